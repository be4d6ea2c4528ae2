"""What README and docs show works as shown: links, options, commands, Python, and the pages made from docstrings."""

from __future__ import annotations

import doctest
import inspect
import re
import subprocess
import sys
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import expunge
from conftest import Job, in_process
from doc_stage import ELSEWHERE, ROOT, Block, Stage, blocks, commands
from expunge import cli, registry

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINKED = [
    *PAGES, *sorted((ROOT / "docs" / "benchmark").rglob("*.md")),
    *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md", "SECURITY.md", "tests/plugin_package/README.md")),
]  # fmt: skip
QUICK = {"README.md", "history.md", "o3.md", "offset.md", "own-model.md", "sisa.md"}
"""Pages whose Python is run in `make test`; the rest's is slow."""
NOT_RUN = {
    "language-models.md": "needs a GPU, the whole data set and a model from the hub",
    "offset.md": "a sketch, `ask` is yours; tests/test_offset.py runs one",
    "plug-in.md": "a sketch; tests/plugin_package/tests/test_capped.py is the whole of it, and runs",
    "several-processes.md": "needs several GPUs or Ray; tests/test_ranks.py and tests/test_ray.py run small ones on the CPU",
}
"""The blocks that no test runs: page -> why."""

sys.path.insert(0, str(ROOT / "docs" / "_ext"))
generated: Any = import_module("generated_pages")
sys.path.pop(0)


def made_by_the_site() -> set[str]:
    """Pages under docs/reference/, which are made when the site is built."""
    names = {"methods.md", "audits.md", "commands.md", "api.md", *(f"api/{module}.md" for module in generated.MODULES)}
    return names | {f"{kind}/{name}.md" for kind in ("methods", "audits") for name in registry.names(kind)}


@cache
def anchors(page: Path) -> set[str]:
    """Of every heading what a code host and the site make of it."""
    text = re.sub(r"^```.*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    titles = re.findall(r"^#+ (.*)$", text, re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).strip().replace(" ", "-") for title in titles}


@pytest.mark.parametrize("page", LINKED, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```(?!\{).*?^```", "", page.read_text(encoding="utf-8"), flags=re.S | re.M)
    for target in re.findall(r"\]\(([^)\s]+)\)", text):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        place = (page.parent / name).resolve() if name else page
        reference = ROOT / "docs" / "reference"
        if place.is_relative_to(reference):
            assert str(place.relative_to(reference)) in made_by_the_site(), target
            continue
        assert place.exists(), target
        assert not anchor or anchor in anchors(place), f"{target}: there is no such heading"


@cache
def options_of(command: str) -> str:
    """What ``--help`` of a command says."""
    import typer

    found: Any = typer.main.get_command(cli.app)
    for word in command.split():
        found = found.commands[word]
    return " ".join(option for parameter in found.params for option in [*parameter.opts, "--help"])


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_options_in_the_docs_exist(page: Path) -> None:
    for block in blocks(page):
        for line in commands(block.text) if block.kind == "sh" else ():
            words = line.partition("#")[0].split()[1:]
            command = " ".join(words[: 2 if words[0] in ("deep", "bench") else 1])
            if command.startswith("-"):
                continue
            for flag in [word for word in words if word.startswith("--")]:
                assert flag in options_of(command).split(), f"expunge {command} has no {flag}"


def runnable(block: Block) -> bool:
    return block.kind in ("sh", "python", "py") and block.not_run is None


def test_blocks_are_run_or_say_why_not() -> None:
    told = {page.name: block.not_run for page in PAGES for block in blocks(page) if block.not_run}
    assert told == NOT_RUN
    left = {page.name for page in PAGES for block in blocks(page) if block.kind == "py" and block.not_run is None}
    assert not left, "a block that is Python and not run says so; one that is run is fenced as python"


def marked(pages: list[Path], quick: set[str]) -> list[Any]:
    return [pytest.param(p, id=p.name, marks=[] if p.name in quick else [pytest.mark.slow]) for p in pages]


@pytest.fixture
def stage(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Stage:
    made = Stage(tmp_path, job)
    made.lay()
    monkeypatch.chdir(tmp_path)
    return made


WITH_PYTHON = [page for page in PAGES if any(block.kind == "python" for block in blocks(page))]


@pytest.mark.parametrize("page", marked(WITH_PYTHON, QUICK))
def test_python_in_the_docs_runs(page: Path, stage: Stage) -> None:
    """The blocks as printed, in a folder where my-model, train.csv and so on are those of a tiny job."""
    from doc_stage import PRINTED

    for block in blocks(page):
        if block.kind == "python" and block.not_run is None:
            code = block.text
            for printed, own in PRINTED.items():
                code = code.replace(printed, own)
            stage.lay_for(code)
            exec(compile(code, page.name, "exec"), {"__name__": "docs"})
    saved = any('.save("erased")' in block.text for block in blocks(page) if block.kind == "python")
    assert saved == (stage.folder / "erased" / "report.html").exists()


WITH_COMMANDS = [p for p in PAGES if any(b.kind == "sh" and runnable(b) and commands(b.text) for b in blocks(p))]


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_COMMANDS, ids=lambda page: page.name)
def test_commands_in_the_docs_run(page: Path, stage: Stage) -> None:
    """Every line of every shell block, in order, in one folder; `...` stands for the options of the page's first run."""
    if page.name == "deep-unlearning.md":  # it measures a language model that some run has left
        stage.lay_for("my-llm")
        (stage.folder / "erased").symlink_to(stage.folder / "my-llm")
    if page.name in ("README.md", "report.md"):  # they read what runs have left
        stage.ran("erased", "first", "second")
    for block in blocks(page):
        if block.kind == "sh" and runnable(block):
            stage.run(block)


def test_lines_that_are_not_run_are_few() -> None:
    lines = [
        line for page in PAGES for block in blocks(page) if block.kind == "sh" and runnable(block)
        for line in block.text.splitlines() if line.startswith(tuple(ELSEWHERE))
    ]  # fmt: skip
    assert all(
        line.startswith(("make demo", "make test", "make bench-", "pip install", "python3 -m venv")) for line in lines
    )


def test_the_readmes_one_line_command_works(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    command = re.search(r"expunge (run --model my-model.*?--out erased/)", text.replace("\\\n", " "), re.S)
    assert command
    monkeypatch.chdir(stage.folder)
    done = in_process(*command[1].split())
    assert done.returncode == 0, done.stderr
    assert (stage.folder / "erased" / "model.safetensors").exists()


def test_the_trainer_example_runs(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    import trainer

    trainer.main()
    assert "'step': 10" in capsys.readouterr().out
    sys.modules.pop("trainer")


@pytest.mark.parametrize("name", registry.names("methods"))
def test_docstring_examples_hold(name: str) -> None:
    cls = registry.find("methods", name)
    found = doctest.DocTestFinder().find(cls, cls.__name__, module=import_module(cls.__module__), globs=None)
    ran = [doctest.DocTestRunner().run(test) for test in found]
    assert sum(result.failed for result in ran) == 0
    assert sum(result.attempted for result in ran) >= 1, "it has no example"


@pytest.mark.parametrize("name", registry.names("methods"))
def test_every_method_has_a_whole_page(name: str) -> None:
    page = generated.method_page(name)
    for title in (
        "Formula",
        "Source",
        "Where ours differs",
        "Needs",
        "Settings",
        "Signs of failure",
        "Example",
        "See also",
    ):
        body = re.search(rf"^## {title}\n\n(.+?)(?=\n## |\Z)", page, re.S | re.M)
        assert body, f"the page has no section {title}"
        assert len(body[1].strip()) > 3, f"the section {title} is empty"
    cls = registry.find("methods", name)
    assert all(f"| `{field}` |" in page for field, _, _ in cls.describe())
    assert "```pycon\n>>> " in page
    command = re.search(r"```sh\nexpunge run (.*)\n```", page)
    assert command
    assert f"--method {name} " in command[1]
    assert all(flag in options_of("run").split() for flag in re.findall(r"--[a-z-]+", command[1]))


@pytest.mark.parametrize("name", registry.names("audits"))
def test_every_audit_has_a_whole_page(name: str) -> None:
    page = generated.audit_page(name)
    first = (inspect.getdoc(registry.find("audits", name)) or "").splitlines()[0]
    assert page.startswith(f"# {name}\n\n{first}")
    for title in ("Needs", "Settings", "Example", "See also"):
        assert f"\n## {title}\n\n" in page
    assert f"expunge audit erased/ --audit {name} --out again/" in page


@pytest.mark.parametrize("module", generated.MODULES)
def test_every_public_name_is_documented(module: str) -> None:
    """100 %: names, and the public methods and properties of classes."""
    home = import_module(module)
    page = generated.api_page(module)
    for name in home.__all__:
        thing = getattr(home, name)
        assert f"\n## {name}\n" in page
        if inspect.isclass(thing) or inspect.isfunction(thing):
            assert inspect.getdoc(thing), f"{name} has no docstring"
        elif not str(getattr(thing, "__module__", "")).startswith(("typing", "expunge")):
            assert isinstance(thing, dict | tuple | frozenset | str | int | float) or thing.__doc__, name
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            for own, _ in generated.members(thing):
                assert generated.documented(thing, own), f"{name}.{own} has no docstring"


def test_the_paper_index_is_whole() -> None:
    """A line for each method and audit, with every paper that its docstring names."""
    lines = (ROOT / "docs" / "papers.md").read_text(encoding="utf-8").splitlines()
    for kind in ("methods", "audits"):
        for name in registry.names(kind):
            own = [line for line in lines if line.startswith(f"| `{name}` |")]
            assert len(own) == 1, f"{len(own)} lines for {name}"
            named = re.findall(r"\b\d{4}\.\d{5}\b", inspect.getdoc(registry.find(kind, name)) or "")
            assert not set(named) - set(re.findall(r"\[(\d{4}\.\d{5})\]", own[0])), f"{name} names more papers"
    for shown, linked in re.findall(r"\[(\d{4}\.\d{5})\]\(https://arxiv.org/abs/(\d{4}\.\d{5})\)", "\n".join(lines)):
        assert shown == linked


def test_the_readme_and_methods_page_name_every_method() -> None:
    text = "".join((ROOT / "docs" / name).read_text(encoding="utf-8") for name in ("methods.md", "language-models.md"))
    missing = [name for name in registry.names("methods") if f"`{name}`" not in text]
    assert not missing
    assert set(expunge.__all__) >= {registry.find("methods", name).__name__ for name in registry.names("methods")}


@pytest.mark.slow
def test_the_site_is_built_without_a_warning(tmp_path: Path) -> None:
    words = [sys.executable, "-m", "sphinx", "-q", "-W", "--keep-going", "-d", tmp_path / "trees", ROOT / "docs"]
    done = subprocess.run([*map(str, words), str(tmp_path / "site")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "site" / "reference" / "methods" / "deepcut.html").exists()
