"""Text made from the settings' own declarations: the commented config, the catalogue, and the page of a method."""

from __future__ import annotations

import inspect
import json
from dataclasses import MISSING
from typing import Any

import tomli_w

from expunge import registry
from expunge.config import SECTIONS
from expunge.errors import Problem, UsageError
from expunge.options import did_you_mean

__all__ = ["catalogue", "explain", "template"]

_FILL_IN = {
    ("model", "path"): "my-model",
    ("data", "train"): "train.csv",
    ("data", "held_out"): "test.csv",
    ("request", "file"): "ids.txt",
}
_KINDS = ("methods", "audits", "tasks")


def template(method: str) -> str:
    """A commented TOML config for a method: what must be filled in stands open, every default stands as a comment.

    Raises:
        UsageError: No such method.
    """
    cls = registry.find("methods", method)
    lines = [
        "# A run of Expunge. Lines behind # are defaults. Paths are relative to this file.",
        "#   expunge check run.toml        look for everything that is wrong",
        "#   expunge run run.toml --out erased/",
        "",
        "# seed = 0",
    ]
    for name, section in SECTIONS.items():
        lines += ["", f"# {_summary(section)}", f"[{name}]"]
        lines += [_line(name, field, default, help_) for field, default, help_ in section.describe()]
        if name == "request":
            lines += ["", f"# {_summary(cls)}", "[method]", f'name = "{method}"']
            lines += [_line("method", field, default, help_) for field, default, help_ in cls.describe()]
    return "\n".join(lines) + "\n"


def _line(section: str, name: str, default: Any, help_: str) -> str:
    if (section, name) in _FILL_IN:
        return f"{_toml(name, _FILL_IN[section, name])}  # {help_}"
    shown = f"{name} (no default)" if default is None or default is MISSING else _toml(name, default)
    return f"# {shown}  # {help_}"


def _toml(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        return f"{name} = {json.dumps(value)}"
    return tomli_w.dumps({name: value}).strip()


def _summary(cls: type) -> str:
    return (inspect.getdoc(cls) or cls.__name__).splitlines()[0]


def catalogue() -> dict[str, dict[str, str]]:
    """Kind -> name -> first line of its docstring."""
    return {kind: {name: _summary(registry.find(kind, name)) for name in registry.names(kind)} for kind in _KINDS}


def explain(name: str, *, as_json: bool = False) -> str:
    """The docstring and settings of a method or audit.

    Raises:
        UsageError: No such name.
    """
    kind = next((kind for kind in _KINDS if name in registry.names(kind)), None)
    if kind is None:
        known = [entry for kind in _KINDS for entry in registry.names(kind)]
        way_out = f"{did_you_mean(name, known)}Known: {', '.join(known)}; or give a folder that `expunge run` wrote."
        raise UsageError(Problem("show", f'there is no "{name}"', way_out))
    cls = registry.find(kind, name)
    rows = cls.describe() if hasattr(cls, "describe") else []
    if as_json:
        settings = {field: {"default": default, "help": help_} for field, default, help_ in rows}
        return (
            json.dumps({"name": name, "kind": kind, "doc": inspect.getdoc(cls), "settings": settings}, indent=1) + "\n"
        )
    lines = [f"{name} ({kind.rstrip('s')})", "", inspect.getdoc(cls) or "", ""]
    if rows:
        width = max(len(field) for field, _, _ in rows)
        lines += ["Settings and defaults:", *(f"  {f:<{width}}  {d!r:<10}  {h}" for f, d, h in rows)]
    return "\n".join(lines) + "\n"
