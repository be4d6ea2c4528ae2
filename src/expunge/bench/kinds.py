"""What results are of, as JSON beside them: results of another kind are not added to them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from expunge.errors import Problem, UsageError

__all__ = ["same_kind"]


def same_kind(
    file: Path, listed: Mapping[str, Any], what: str, but: Collection[str] = ()
) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is to be written to `file`, and what stands there: the same, where nothing does yet.

    An option that is left at nothing (null, false, an empty text or list) is as if it were not there: older results do not
    know it.

    Args:
        file: The JSON; its folder is made.
        listed: What the results are of.
        what: What these are called where they differ.
        but: Names that may differ.

    Raises:
        UsageError: The file lists something else.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    now = json.loads(json.dumps(listed))  # as it is read back
    before = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else now
    if changed := sorted(n for n, value in now.items() if _given(before.get(n)) != _given(value) and n not in but):
        problem = f'"{file}" belongs to {what} ({", ".join(changed)} differ)'
        raise UsageError(Problem("--out", problem, "Give a new folder, or the data, base and config of the old one."))
    return now, before


def _given(value: Any) -> Any:
    """The value without options that are left at nothing."""
    if not isinstance(value, dict):
        return value
    return {name: own for name, own in value.items() if own or (own == 0 and own is not False)}
