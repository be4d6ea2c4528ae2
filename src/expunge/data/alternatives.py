"""Other answers to the same prompts: the true one in other words, and false ones."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from expunge.data.records import is_text
from expunge.data.sources import Columns, pick
from expunge.errors import Problem, UsageError, rows_have

__all__ = ["PARAPHRASED", "PERTURBED", "read_alternatives"]

PARAPHRASED = ("paraphrased_answer",)
"""Columns looked for by themselves: the true answer in other words."""
PERTURBED = ("perturbed_answers", "perturbed_answer")
"""Likewise false answers."""


def read_alternatives(
    columns: Columns, paraphrased: str | None, perturbed: str | None, *, where: str, needed: bool
) -> tuple[tuple[str, ...], ...]:
    """What `Records.alternatives` holds.

    Args:
        columns: The data.
        paraphrased: Column with the true answer in other words; None: one of `PARAPHRASED`, where it is there.
        perturbed: Column with lists of false answers (or one a row); None: one of `PERTURBED`, likewise.
        where: The setting the data was given in, for messages.
        needed: Whether columns that are named must be there: held-out records may do without.

    Returns:
        A tuple a record; empty where there is no column of false answers.

    Raises:
        UsageError: A column named is missing, or a value is no text.
    """
    named = [name for name in (paraphrased, perturbed) if name is not None]
    if needed and (problems := pick(columns, named, where=where, source=where)):
        raise UsageError(problems)
    false = next((name for name in (perturbed,) if name in columns), None) if perturbed else _first(columns, PERTURBED)
    if false is None:
        return ()
    said = paraphrased if paraphrased in columns else None if paraphrased else _first(columns, PARAPHRASED)
    others = [_several(value) for value in columns[false]]
    own = [""] * len(others)
    if said is not None:  # a gap in a table is NaN
        own = ["" if value is None or value != value else value for value in columns[said]]
    problems = []
    if bad := [row for row, values in enumerate(others, start=1) if not all(is_text(v) and v.strip() for v in values)]:
        what = f"{rows_have(len(bad))} something else than texts in {false}, the first is row {bad[0]}"
        problems.append(Problem(where, what, "Give a list of false answers a row, or an empty one."))
    if bad := [row for row, value in enumerate(own, start=1) if not is_text(value)]:
        what = f"{rows_have(len(bad))} no text in {said}, the first is row {bad[0]}"
        problems.append(Problem(where, what, "Give the answer in other words, or nothing."))
    if problems:
        raise UsageError(problems)
    return tuple((first, *more) for first, more in zip(own, others, strict=True))


def _first(columns: Columns, names: Sequence[str]) -> str | None:
    return next((name for name in names if name in columns), None)


def _several(value: Any) -> list[Any]:
    if value is None or value == "" or value != value:  # a gap in a table is NaN
        return []
    return [value] if isinstance(value, str) else list(value) if isinstance(value, list | tuple) else [None]
