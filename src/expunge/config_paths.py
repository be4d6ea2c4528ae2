"""Paths in the values of a config: which they are, and how they are made absolute."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

__all__ = ["absolute_paths", "anchor_paths", "expand_paths"]

_FILES = {
    ("data", "facts"), ("data", "rules"), ("request", "file"), ("request", "past"), ("retrain", "recipe"),
    ("privacy", "salt_file"),
}  # fmt: skip
_FILES_OR_HUB_IDS = {
    ("model", "path"),
    ("data", "train"),
    ("data", "held_out"),
    ("data", "calibration"),
    ("retrain", "base"),
    ("retrain", "models"),
}
_DATA_SUFFIXES = {".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".toml", ".conll", ".bio", ".iob", ".iob2"}


def _change_paths(values: dict[str, Any], change: Callable[[str, bool], str]) -> None:
    """Replace every path of a config by `change(path, whether it can be a hub id)`."""
    for section, name in _FILES | _FILES_OR_HUB_IDS:
        table = values.get(section)
        if not isinstance(table, dict) or not table.get(name):
            continue
        given, hub = table[name], (section, name) in _FILES_OR_HUB_IDS
        if isinstance(given, str):
            table[name] = change(given, hub)
        elif isinstance(given, list | tuple):
            table[name] = [change(item, hub) if isinstance(item, str) else item for item in given]


def _anchored(text: str, hub: bool, folder: Path) -> str:
    path = folder / Path(text).expanduser()
    names_a_file = text.startswith((".", "/", "~")) or text.count("/") > 1 or path.suffix in _DATA_SUFFIXES
    return str(path) if not hub or names_a_file or path.exists() else text


def expand_paths(values: dict[str, Any]) -> None:
    """Write out the home folder where a path of a config starts with ``~``."""
    _change_paths(values, lambda text, _: str(Path(text).expanduser()) if text.startswith("~") else text)


def anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Make the paths of a config file absolute that are relative to its folder."""
    _change_paths(values, lambda text, hub: _anchored(text, hub, folder))


def absolute_paths(values: dict[str, Any]) -> None:
    """Make the paths of a config absolute where they exist here, so that it can be read from any folder."""
    _change_paths(values, lambda text, _: str(Path(text).absolute()) if Path(text).exists() else text)
