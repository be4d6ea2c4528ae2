"""What README and docs show works as shown."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from conftest import Job
from expunge import cli

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text(encoding="utf-8")):
        assert target.startswith("https://") or (page.parent / target).exists(), f"{page.name}: {target}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_the_docs_exist(page: Path, capsys, monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "300")
    known = ""
    commands = (
        "run",
        "check",
        "plan",
        "audit",
        "records",
        "report",
        "demo",
        "init",
        "list",
        "show",
        "train-sisa",
        "clean",
        "compare",
    )
    for command in (*commands, "history", "verify", "deep plan", "deep measure"):
        monkeypatch.setattr(sys, "argv", ["expunge", *command.split(), "--help"])
        with pytest.raises(SystemExit):
            cli.main()
        known += capsys.readouterr().out
    for block in re.findall(r"```sh\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        for line in block.replace("\\\n", " ").splitlines():
            if line.startswith("expunge "):
                for flag in re.findall(r" (--[a-z-]+)", line.partition("#")[0]):
                    assert flag in known, f"{page.name}: {flag}"


@pytest.mark.parametrize(
    "page", [p for p in PAGES if "```python" in p.read_text(encoding="utf-8")], ids=lambda p: p.name
)
def test_python_in_the_docs_runs(page: Path, job: Job, tmp_path: Path, monkeypatch) -> None:
    """The blocks as printed, in a folder where my-model, train.csv and test.csv are those of the tiny job."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my-model").symlink_to(job.model)
    (tmp_path / "my-base").symlink_to(job.base)
    (tmp_path / "recipe.toml").write_text("epochs = 2\nlearning_rate = 1e-3\nbatch_size = 16\n", encoding="utf-8")
    for name, source in (("train.csv", job.train), ("test.csv", job.held_out)):
        header, _, rest = source.read_text(encoding="utf-8").partition("\n")
        assert header == "id,text,label"
        (tmp_path / name).write_text("key,body,topic\n" + rest, encoding="utf-8")
    for block in re.findall(r"```python\n(.*?)```", page.read_text(encoding="utf-8"), re.S):
        code = block.replace('"u17"', '"r1-0000"').replace('"u18"', '"r1-0001"')
        exec(compile(code, page.name, "exec"), {})
    assert (tmp_path / "erased" / "report.html").exists()


def test_the_readmes_one_line_command_works(job: Job, tmp_path: Path) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"expunge (run --model my-model.*?--out erased/)", text.replace("\\\n", " "), re.S)
    assert command
    for name, source in (("train.csv", job.train), ("test.csv", job.held_out)):
        rest = source.read_text(encoding="utf-8").partition("\n")[2]
        (tmp_path / name).write_text("key,body,topic\n" + rest, encoding="utf-8")
    (tmp_path / "my-model").symlink_to(job.model)
    (tmp_path / "ids.txt").write_text(job.ids.read_text(encoding="utf-8"), encoding="utf-8")
    words = [sys.executable, "-m", "expunge", *command[1].split()]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "erased" / "model.safetensors").exists()


def test_the_trainer_example_runs(capsys) -> None:
    sys.path.insert(0, str(ROOT / "examples"))
    try:
        import trainer

        trainer.main()
    finally:
        sys.path.pop(0)
    assert "'step': 10" in capsys.readouterr().out


def test_docstring_examples_hold() -> None:
    import doctest
    import importlib

    ran = 0
    for name in ("deepcut", "contrastive", "gradient_difference", "finetune", "retrain", "sisa", "o3"):
        result = doctest.testmod(importlib.import_module(f"expunge.methods.{name}"))
        assert result.failed == 0
        ran += result.attempted
    assert ran >= 5
