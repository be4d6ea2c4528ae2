"""Paths in the values of a config: which they are, and how they are made absolute."""

from __future__ import annotations

import os
from collections.abc import Callable
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from expunge.errors import Problem, UsageError

__all__ = ["absolute_paths", "anchor_paths", "expand_paths", "expanded", "meant_beside", "path_problem"]

_LONGEST_NAME, _LONGEST_PATH = 255, 4095  # bytes, as Linux and macOS have it, near enough

_FILES = {
    ("data", "facts"), ("data", "rules"), ("request", "file"), ("request", "past"), ("retrain", "recipe"),
    ("training", "cache"), ("privacy", "salt_file"),
}  # fmt: skip
_FILES_OR_HUB_IDS = {
    ("model", "path"),
    ("data", "train"),
    ("data", "held_out"),
    ("data", "calibration"),
    ("retrain", "base"),
    ("retrain", "models"),
    ("method", "encoder"),
    ("method", "small"),
}
_DATA_SUFFIXES = {".csv", ".tsv", ".jsonl", ".json", ".parquet", ".txt", ".toml", ".conll", ".bio", ".iob", ".iob2"}


def meant_beside(path: str | Path) -> str:
    """`Did you mean "x"? ` for the nearest name in the folder of a path that is not there, or an empty string."""
    place = Path(path).expanduser()
    try:
        near = get_close_matches(place.name, [other.name for other in place.parent.iterdir()], n=1, cutoff=0.75)
    except OSError:
        return ""
    return f'Did you mean "{place.parent / near[0]}"? ' if near else ""


def _change_paths(values: dict[str, Any], change: Callable[[str, bool, str], str]) -> None:
    """Replace every path of a config by `change(path, whether it can be a hub id, its setting)`."""
    for section, name in sorted(_FILES | _FILES_OR_HUB_IDS):
        table = values.get(section)
        if not isinstance(table, dict) or not table.get(name):
            continue
        given, hub, where = table[name], (section, name) in _FILES_OR_HUB_IDS, f"{section}.{name}"
        if isinstance(given, str):
            table[name] = change(given, hub, where)
        elif isinstance(given, list | tuple):
            table[name] = [change(item, hub, where) if isinstance(item, str) else item for item in given]


def _anchored(text: str, hub: bool, folder: Path) -> str:
    path = folder / Path(text).expanduser()
    names_a_file = text.startswith((".", "/", "~")) or text.count("/") > 1 or path.suffix in _DATA_SUFFIXES
    return str(path) if not hub or names_a_file or path.exists() else text


def expand_paths(values: dict[str, Any]) -> list[Problem]:
    """Write out the home folder where a path of a config starts with ``~``; says which can be no paths."""
    found = []

    def change(text: str, hub: bool, where: str) -> str:
        if problem := path_problem(text, where, hub=hub):
            found.append(problem)
            return text
        return str(Path(text).expanduser()) if text.startswith("~") else text

    _change_paths(values, change)
    return found


def path_problem(text: str, where: str, *, hub: bool = False) -> Problem | None:
    """Why a text can be no path.

    Args:
        text: The path.
        where: The setting, option or argument it was given as.
        hub: Whether it is no path but a hub id where nothing of that name lies here.
    """
    if problem := _no_path(text, where):
        return problem
    path = Path(text).expanduser()
    whole = text if hub and not os.path.exists(path) else str(path.absolute())  # the record names whole paths
    try:
        whole.encode()
    except UnicodeEncodeError:
        shown = whole.encode(errors="backslashreplace").decode()
        way_out = "Give a path whose names are all UTF-8, those of the folders above it too: records hold it as text."
        return Problem(where, f'the path "{shown}" is not UTF-8', way_out)
    return None


def _no_path(text: str, where: str) -> Problem | None:
    """Why a text can be no path, wherever it is taken from."""
    if "\0" in text:
        return Problem(where, f"{text!r:.200} holds a NUL character", "Give a path without it.")
    name = max(text.split("/"), key=lambda part: len(part.encode(errors="replace")))
    if len(name.encode(errors="replace")) > _LONGEST_NAME or len(text.encode(errors="replace")) > _LONGEST_PATH:
        what = f'"{name[:60]}...", of {len(text):,} characters, is too long for a path'
        return Problem(where, what, f"Give a path whose names have {_LONGEST_NAME} bytes at most.")
    try:
        Path(text).expanduser()
    except RuntimeError:
        return Problem(where, f'"{text}" is in the home of nobody known here', "Write the whole path.")
    return None


def expanded(path: str | Path, where: str) -> Path:
    """A path with the home folder written out where it starts with ``~``.

    Args:
        path: The path.
        where: The setting, option or argument it was given as.

    Raises:
        UsageError: It can be no path.
    """
    if problem := path_problem(str(path), where):
        raise UsageError(problem)
    return Path(path).expanduser()


def anchor_paths(values: dict[str, Any], folder: Path) -> None:
    """Make the paths of a config file absolute that are relative to its folder."""
    _change_paths(values, lambda text, hub, where: text if _no_path(text, where) else _anchored(text, hub, folder))


def absolute_paths(values: dict[str, Any]) -> None:
    """Make the paths of a config absolute where they exist here, so that it can be read from any folder."""
    _change_paths(values, lambda text, *_: str(Path(text).absolute()) if Path(text).exists() else text)
