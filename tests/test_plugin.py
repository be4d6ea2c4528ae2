"""A plug-in as others would write it, built, installed and used; and a method added to Expunge itself, as the docs show it."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import Job
from expunge import cli, registry
from expunge.testing import check_audit, check_method

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tests" / "plugin_package"
PAGE = ROOT / "docs" / "plug-in.md"
METHOD = PACKAGE / "src" / "expunge_capped" / "capped.py"
TOUCHED = ["src/expunge/methods/capped.py", "pyproject.toml", "tests/golden/capped.json", "docs/papers.md"]


def install(source: Path, place: Path) -> Path:
    """As `pip install` does it, built by the package's own build backend, into a folder of its own."""
    words = ["--quiet", "--no-deps", "--no-build-isolation", "--no-index", "--disable-pip-version-check"]
    subprocess.run([sys.executable, "-m", "pip", "install", *words, "--target", place, source], check=True, timeout=300)
    return place


def run(*words: str | Path, site: Path, folder: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(site)}
    return subprocess.run(
        [sys.executable, *map(str, words)], env=environment, cwd=folder, capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("plug-in")
    source = shutil.copytree(PACKAGE, place / "source", ignore=shutil.ignore_patterns("__pycache__", ".*"))
    return install(source, place / "site")


@pytest.fixture
def installed(site: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The plug-in is installed in this process, for one test."""
    monkeypatch.syspath_prepend(site)
    registry._group.cache_clear()
    yield
    registry._group.cache_clear()
    for name in [name for name in sys.modules if name.startswith("expunge_capped")]:
        del sys.modules[name]


def expunge(*words: str) -> int:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["expunge", *words])
        with pytest.raises(SystemExit) as ended:
            cli.main()
    return int(ended.value.code or 0)


@pytest.mark.usefixtures("installed")
def test_its_names_are_found(capsys: pytest.CaptureFixture[str]) -> None:
    expunge("list", "--json")
    found = json.loads(capsys.readouterr().out)
    assert found["methods"]["capped"] == "Raise the loss of each forget unit up to a ceiling, and hold retained ones."
    assert found["audits"]["confidence"].startswith("How sure each model is")
    expunge("show", "capped")
    shown = capsys.readouterr().out
    assert "Formula: ``L = CE(retain) + mean over forget units" in shown
    assert re.search(r"ceiling +2\.0 +loss up to which a forget unit is pushed", shown)
    expunge("init", "capped")
    assert 'name = "capped"' in capsys.readouterr().out


@pytest.mark.usefixtures("installed")
def test_it_keeps_the_rules() -> None:
    check_method(registry.find("methods", "capped"))
    check_audit(registry.find("audits", "confidence"))


@pytest.mark.usefixtures("installed")
def test_a_run_takes_its_method_and_its_audit(job: Job, tmp_path: Path) -> None:
    flags = job.flags(method="capped", audit="confidence", out=tmp_path / "erased")
    assert expunge("run", *flags, "--set", "training.min_steps=8", "--set", "method.ceiling=1.5") == 0
    record = json.loads((tmp_path / "erased" / "record.json").read_text(encoding="utf-8"))
    assert record["config"]["method"] == {"name": "capped", "ceiling": 1.5, "retain_ratio": 2}
    rows = [row for row in record["measurements"] if row["audit"] == "confidence"]
    values = {(row["model"], row["group"]): row["value"] for row in rows}
    assert set(values) == {(m, g) for m in ("original", "unlearned") for g in ("forget", "evaluation")}
    assert values["unlearned", "forget"] < values["original", "forget"]
    assert "probability of the true label" in (tmp_path / "erased" / "report.html").read_text(encoding="utf-8")


@pytest.mark.slow
def test_another_process_finds_it_and_it_passes_its_own_tests(site: Path) -> None:
    """`check_method`, `check_audit`, the loss by hand, the golden trajectory: as its author runs them."""
    assert "capped " in run("-m", "expunge", "list", site=site).stdout
    done = run("-m", "pytest", "-q", "-p", "no:cacheprovider", "-c", os.devnull, PACKAGE / "tests", site=site)
    assert done.returncode == 0, done.stdout
    assert "4 passed" in done.stdout


def patch_of_the_docs() -> str:
    blocks = re.findall(r"```diff\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return "".join(blocks)


def test_the_diff_of_the_docs_is_current() -> None:
    """One file, one entry point, one golden file, one line of the paper index; the file is the plug-in's own."""
    patch = patch_of_the_docs()
    assert re.findall(r"^\+\+\+ b/(.*)$", patch, re.M) == TOUCHED
    assert not re.findall(r"^-(?!--)", patch, re.M), "nothing is taken away"
    method = patch.split("diff --git")[1]
    assert "".join(re.findall(r"^\+(?!\+\+)(.*\n)", method, re.M)) == METHOD.read_text(encoding="utf-8")
    subprocess.run(["git", "apply", "--check", "-"], input=patch, text=True, cwd=ROOT, check=True)


@pytest.mark.slow
def test_a_method_of_expunge_itself_takes_four_files(tmp_path: Path) -> None:
    """With the diff applied to a copy of the repository and nothing else, the method is found, kept to the rules and golden."""
    copy = tmp_path / "expunge"
    for name in ("src", "tests/golden"):
        shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in (
        "pyproject.toml",
        "README.md",
        "LICENSE",
        "docs/papers.md",
        "tests/test_golden.py",
        "tests/conftest.py",
    ):
        (copy / name).parent.mkdir(exist_ok=True)
        shutil.copy(ROOT / name, copy / name)
    subprocess.run(["git", "apply", "-"], input=patch_of_the_docs(), text=True, cwd=copy, check=True)
    site = install(copy, tmp_path / "site")
    where = run("-c", "import expunge.methods.capped as m; print(m.__file__)", site=site)
    assert Path(where.stdout.strip()).is_relative_to(site), where.stderr
    assert "capped " in run("-m", "expunge", "list", site=site).stdout
    code = "from expunge.testing import check_method; from expunge.methods.capped import Capped; check_method(Capped)"
    checked = run("-c", code, site=site)
    assert checked.returncode == 0, checked.stderr
    words = ["-q", "-p", "no:cacheprovider", "-c", os.devnull, "-k", "capped or file_for_each"]
    golden = run("-m", "pytest", *words, copy / "tests" / "test_golden.py", site=site)
    assert golden.returncode == 0, golden.stdout
    assert "2 passed" in golden.stdout
