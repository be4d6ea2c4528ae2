"""Read the JSON in which a folder of several models says what it holds."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from expunge.errors import Problem, UsageError

__all__ = ["read_versioned"]

T = TypeVar("T")


def read_versioned(
    folder: str | Path, file: str, version: int, build: Callable[[dict[str, Any]], T], *, where: str, noun: str,
    writer: str = "expunge run",
) -> T:  # fmt: skip
    """What a folder's file says, of the version that is known.

    Args:
        folder: The folder.
        file: Its file.
        version: The version that is known.
        build: The values, the version left out -> what they mean. What it raises of wrong ones is told as a broken file.
        where: The setting, for messages.
        noun: What the folder is called.
        writer: The command that writes such folders.

    Raises:
        UsageError: It is broken, or of a newer Expunge.
    """
    try:
        values = json.loads((Path(folder).expanduser() / file).read_text(encoding="utf-8"))
        found = values.pop("version")
        if found == version:
            return build(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError, UsageError) as error:
        what = f'the {file} of "{folder}" cannot be read ({type(error).__name__})'
        raise UsageError(Problem(where, what, f"Give the folder as `{writer}` wrote it.")) from None
    what = f'"{folder}" is of version {found} of {noun}, known is {version}'
    raise UsageError(Problem(where, what, "Use the Expunge that wrote it, or a newer one."))
