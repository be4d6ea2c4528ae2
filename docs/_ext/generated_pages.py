"""Pages made from docstrings when the site is built: one a method and audit, the public names, the commands.

Everything here but `setup` is a pure function to Markdown, so that tests can look at the pages without building the site.
"""

from __future__ import annotations

import inspect
from dataclasses import MISSING
from importlib import import_module
from itertools import pairwise
from pathlib import Path
from typing import Any

from docstrings import docstring, markdown, paragraphs, sections

FOLDER = Path(__file__).parent.parent / "reference"

TITLES = {"Ours": "Where ours differs"}
READS = {
    "hidden": "inputs of the last linear layer",
    "logits": "outputs of the last linear layer",
    "reference": "the untouched original's outputs",
    "reference_logp": "the original's log-probabilities of the labels",
    "layer": "states behind one layer",
    "reference_layer": "the original's states behind that layer",
}
GROUPS = {
    "forget": "records to forget",
    "retain": "retained partners",
    "alternate": "the same records with other answers",
}
UNITS = {"classes": "classifiers and taggers", "tokens": "causal language models"}

SEE = {
    "deepcut": ["methods.md", "benchmark.md"],
    "deepcut-calibrated": ["calibrated.md"],
    "deepcut-kernel": ["calibrated.md"],
    "leave-out": ["language-models.md"],
    "offset": ["offset.md"],
    "o3": ["o3.md"],
    "sisa": ["sisa.md"],
    "latent-probe": ["stress.md"],
    "relearning": ["stress.md"],
    "int8": ["stress.md"],
    "reworded": ["stress.md"],
    "deep-unlearning": ["deep-unlearning.md"],
    "detector": ["o3.md"],
}

MODULES = {
    "expunge": "What most people need",
    "expunge.testing": "For tests, here and in plug-ins",
    "expunge.methods.base": "What a method is",
    "expunge.audits.base": "What an audit is",
    "expunge.options": "Settings with their ranges",
    "expunge.step": "What a method sees of a step",
    "expunge.scoring": "Scores of records",
    "expunge.losses": "Loss terms",
    "expunge.token_losses": "Loss terms of tokens",
    "expunge.stats": "Statistics",
    "expunge.stopping": "The stop rule",
    "expunge.tasks.text_classification": "Text classification",
    "expunge.tasks.token_classification": "Tagging",
    "expunge.tasks.generation": "Causal language models",
    "expunge.errors": "Errors",
}
"""Modules whose `__all__` is public, and what each is for."""


def _settings(cls: Any) -> str:
    rows = cls.describe()
    if not rows:
        return "None."
    shown = ["| setting | default | what it is |", "|---|---|---|"]
    for name, default, help_ in rows:
        value = "none" if default is None or default is MISSING else f"`{default!r}`"
        shown.append(f"| `{name}` | {value.replace('|', chr(92) + '|')} | {help_.replace('|', chr(92) + '|')} |")
    return "\n".join(shown)


def _needs(cls: Any) -> str:
    kinds = "classifiers, taggers and causal language models"
    lines = [f"- **Forgets in**: {kinds if len(cls.units) == 2 else UNITS[next(iter(cls.units))]}."]
    needs = getattr(cls(), "reads", None)  # as set by default
    if needs is None:
        lines.append("- **Kind**: a procedure, no training loss of its own.")
    else:
        reads = "; ".join(
            f"{READS[what]} of {GROUPS[group]}" for group, _, what in (n.partition(".") for n in sorted(needs))
        )
        lines.append(f"- **Reads at each step**: {reads}.")
    if cls.needs_base:
        lines.append("- **Trains models from the base**: `--base` and `--recipe`.")
    if getattr(cls, "rewinds", False):
        lines.append("- **Goes back toward the base**: better with `--base`.")
    if cls.__name__ == "O3":
        lines.append("- **Needs**: `pip install peft`.")
    if cls.__name__ == "Sisa":
        lines.append("- **Model**: a folder that `expunge train-sisa` made.")
    return "\n".join(lines)


def method_page(name: str) -> str:
    """The page of a method: formula, source, differences, needs, settings, failure signs, example."""
    from expunge import registry

    cls = registry.find("methods", name)
    first, found = sections(inspect.getdoc(cls) or "")
    parts = [f"# {name}", first]
    by_title = dict(found)
    for title, text in found:
        if title not in ("Failure signs", "Example"):
            parts += [f"## {TITLES.get(title, title)}", text]
    parts += ["## Needs", _needs(cls), "## Settings", _settings(cls), "## Signs of failure", by_title["Failure signs"]]
    parts += [
        "## Example",
        _run_of(name, cls),
        f"From Python, `expunge.{cls.__name__}`:" if _public(cls) else "From Python:",
    ]
    parts += [by_title["Example"], "## See also", _see(name, "methods")]
    return "\n\n".join(parts) + "\n"


def _public(cls: Any) -> bool:
    import expunge

    return cls.__name__ in expunge.__all__


def _run_of(name: str, cls: Any) -> str:
    model, data, more = "my-model", "train.csv --text body --label topic --id key --held-out test.csv", ""
    if cls.units == {"tokens"}:
        model, data = "my-llm", "train.jsonl --id id --held-out held-out.jsonl"
    if cls.needs_base or getattr(cls, "rewinds", False):
        more = " --base my-base --recipe recipe.toml"
    if name == "sisa":
        model = "my-sisa"
    request = "--forget-label water" if name == "o3" else "--forget ids.txt"
    command = f"expunge run --model {model} --data {data} {request} --method {name}{more} --out erased/"
    return f"```sh\n{command}\n```"


def _see(name: str, kind: str) -> str:
    pages = [*SEE.get(name, []), "methods.md" if kind == "methods" else "evidence.md", "papers.md"]
    return "\n".join(f"- [{_title(page)}](../../{page})" for page in dict.fromkeys(pages))


def _title(page: str) -> str:
    text = (FOLDER.parent / page).read_text(encoding="utf-8")
    return text.partition("\n")[0].removeprefix("# ")


def audit_page(name: str) -> str:
    """The page of an audit: what it measures, what it needs, settings, how to ask for it."""
    from expunge import registry

    cls = registry.find("audits", name)
    usual = [task for task in registry.names("tasks") if name in registry.find("tasks", task).audits]
    asked = f"Part of every run of: {', '.join(usual)}." if usual else "Only where it is asked for."
    needs = (
        f"Beside the scores of a run: {', '.join(sorted(cls.needs))}."
        if cls.needs
        else "The scores that every run has."
    )
    doc = "\n\n".join(markdown(block) for block in paragraphs(inspect.getdoc(cls) or ""))
    command = f"expunge audit erased/ --audit {name} --out again/"
    return "\n\n".join([
        f"# {name}", doc, "## Needs", f"{asked} {needs}", "## Settings", _settings(cls), "## Example",
        "Of a finished run, beside the audits it had:", f"```sh\n{command}\n```", "## See also", _see(name, "audits"),
    ]) + "\n"  # fmt: skip


def index_page(kind: str) -> str:
    """All methods or audits by name, with their first lines."""
    from expunge import registry

    rows = [
        f"| [{name}]({kind}/{name}.md) | {(inspect.getdoc(registry.find(kind, name)) or '').splitlines()[0]} |"
        for name in registry.names(kind)
    ]
    table = "\n".join(["| name | |", "|---|---|", *rows])
    names = "\n".join(f"{kind}/{name}" for name in registry.names(kind))
    title = {"methods": "Every method", "audits": "Every audit"}[kind]
    said = f"`expunge list` prints this table, `expunge show NAME` a page. {len(rows)} {kind}."
    return f"# {title}\n\n{said}\n\n{table}\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"


def signature(thing: Any) -> str:
    """How a class or function is called, wrapped where it is long."""
    try:
        found = inspect.signature(thing)
    except (TypeError, ValueError):
        return f"{thing.__name__}"
    own = [p for p in found.parameters.values() if p.name != "self"]
    shown = [str(p.replace(annotation=inspect.Parameter.empty, default=_plain(p.default))) for p in own]
    by_name = [place for place, p in enumerate(own) if p.kind is p.KEYWORD_ONLY]
    if by_name and not any(p.kind is p.VAR_POSITIONAL for p in own):
        shown.insert(by_name[0], "*")
    one = f"{thing.__name__}({', '.join(shown)})"
    return one if len(one) <= 100 else f"{thing.__name__}(\n    " + ",\n    ".join(shown) + ",\n)"


class _Shown(str):
    """Printed as it is."""

    __slots__ = ()

    def __repr__(self) -> str:
        return str(self)


def _plain(default: Any) -> Any:
    if default is inspect.Parameter.empty or isinstance(default, (int, float, str, bool, type(None), tuple)):
        return default
    return _Shown("...")  # an object whose repr says nothing, or holds an address


CONTRACTS = ("Method", "Procedure", "Audit", "Options", "StopRule")
"""Classes whose pages explain what their subclasses inherit or fill in."""


def members(cls: type) -> list[tuple[str, Any]]:
    """Public methods and properties that a class of ours defines or takes from one of ours."""
    found = {}
    for base in reversed(cls.__mro__):
        if base.__module__.partition(".")[0] == "expunge":
            for name, value in vars(base).items():
                shown = inspect.isfunction(value) or isinstance(value, (property, classmethod, staticmethod))
                if not name.startswith("_") and shown:
                    found[name] = value
                elif name in found:
                    del found[name]
    return sorted(found.items())


def documented(cls: type, name: str) -> str:
    """A member's docstring, its own or that of what it overrides."""
    bases = [vars(base)[name] for base in cls.__mro__ if name in vars(base)]
    found = [inspect.getdoc(getattr(cls, name)), *map(inspect.getdoc, bases)]
    return next((doc for doc in found if doc), "")


def api_page(module: str) -> str:
    """All public names of a module."""
    home = import_module(module)
    parts = [f"# {module}", f"{MODULES[module]}."]
    if module != "expunge":
        parts.append(docstring(inspect.getdoc(home) or ""))
    for name in home.__all__:
        thing = getattr(home, name)
        parts += [f"## {name}"]
        if inspect.isclass(thing) or inspect.isfunction(thing):
            called = f"```python\n{signature(thing)}\n```" if thing.__module__.startswith("expunge") else ""
            parts += [called, docstring(inspect.getdoc(thing) or "")]
        elif doc := constant_doc(home, name):
            parts += [docstring(doc)]
        if inspect.isclass(thing) and not issubclass(thing, BaseException):
            for own, value in members(thing):
                if any(own in vars(base) for base in thing.__mro__[1:] if base.__name__ in CONTRACTS):
                    continue  # it is explained there
                call = own if isinstance(value, property) else signature(getattr(thing, own))
                parts += [f"### {name}.{own}", f"```python\n{call}\n```", docstring(documented(thing, own))]
    return "\n\n".join(part for part in parts if part) + "\n"


def constant_doc(module: Any, name: str) -> str:
    """The text behind a constant's assignment, which Python does not keep."""
    import ast

    body = ast.parse(inspect.getsource(module)).body
    for node, behind in pairwise(body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(t, ast.Name) and t.id == name for t in targets) and isinstance(behind, ast.Expr):
            return inspect.cleandoc(str(getattr(behind.value, "value", "")))
    return ""


def commands_page() -> str:
    """Every command with its options, as ``--help`` gives them."""
    import typer

    from expunge.cli import app

    said = "`expunge COMMAND --help` says the same. `--install-completion` has the shell complete commands, methods and audits."
    parts = ["# Commands", said]

    def describe(command: Any, words: str) -> None:
        for name, sub in sorted(getattr(command, "commands", {}).items()):
            describe(sub, f"{words} {name}")
        if getattr(command, "commands", None):
            return
        parts.extend([f"## {words}", command.help or ""])
        rows = ["| | |", "|---|---|"]
        for parameter in command.params:
            names = parameter.opts if parameter.param_type_name == "option" else [parameter.name.upper()]
            shown = ", ".join(f"`{name}`" for name in names)
            rows.append(f"| {shown} | {(getattr(parameter, 'help', '') or '').replace('|', chr(92) + '|')} |")
        if len(rows) > 2:
            parts.append("\n".join(rows))

    describe(typer.main.get_command(app), "expunge")
    return "\n\n".join(parts) + "\n"


def pages() -> dict[str, str]:
    """Path under `reference/` -> text, of all pages."""
    from expunge import registry

    found = {"methods.md": index_page("methods"), "audits.md": index_page("audits"), "commands.md": commands_page()}
    found |= {f"methods/{name}.md": method_page(name) for name in registry.names("methods")}
    found |= {f"audits/{name}.md": audit_page(name) for name in registry.names("audits")}
    found |= {f"api/{module}.md": api_page(module) for module in MODULES}
    names = "\n".join(f"api/{module}" for module in MODULES)
    rows = "\n".join(f"| [{module}](api/{module}.md) | {what} |" for module, what in MODULES.items())
    found["api.md"] = f"# Public names\n\n| module | |\n|---|---|\n{rows}\n\n```{{toctree}}\n:hidden:\n\n{names}\n```\n"
    return found


def write(_: Any = None) -> None:
    """Write all pages; those that stay the same keep their time, so that the site is built anew only where it must be."""
    made = pages()
    for path in FOLDER.rglob("*.md"):
        if str(path.relative_to(FOLDER)) not in made:
            path.unlink()
    for name, text in made.items():
        target = FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        if not target.exists() or target.read_text(encoding="utf-8") != text:
            target.write_text(text, encoding="utf-8")


def setup(app: Any) -> dict[str, Any]:
    """Called by Sphinx."""
    app.connect("builder-inited", write)
    return {"parallel_read_safe": True}


if __name__ == "__main__":
    write()
