"""Ids as text: what an id can be, and which one was meant by an id that is not there."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

from expunge.data.records import is_text
from expunge.errors import Problem, UsageError, rows_have

__all__ = ["LONGEST_ID", "given_ids", "id_text", "meant"]

LONGEST_ID = 1000
"""Characters."""
# Control characters, separators of lines, halves of surrogate pairs: no list of ids and no screen can hold them.
_UNPRINTABLE = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\ud800-\udfff]")


def id_text(value: Any) -> str:
    """An id as text; whole numbers without decimals (a column with gaps is read as floats), nothing for no id."""
    text = _as_text(value)
    return text if is_text(text) else ""


def _as_text(value: Any) -> str:
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return str(value)


def given_ids(values: Sequence[Any], column: str, where: str, *, unique: bool = True) -> list[str]:
    """The ids of a column.

    Raises:
        UsageError: Rows without an id, values that can be none, and (where they must be `unique`) ids that come twice.
    """
    odd = [value for value in values if isinstance(value, list | tuple | dict | set | bytes | bool)]
    if odd:
        what = f"{rows_have(len(odd))} an id that is none, such as {odd[0]!r:.80}, in column {column}"
        raise UsageError(Problem(where, what, "An id is text or a whole number."))
    ids = [_as_text(value) for value in values]
    problems = []
    if empty := sum(not record_id for record_id in ids):
        what = f"{rows_have(empty)} no id in column {column}"
        problems.append(
            Problem(where, what, "Give every row an id, or leave data.id out: ids are then made from content.")
        )
    if unprintable := [record_id for record_id in ids if _UNPRINTABLE.search(record_id)]:
        what = f"{len(unprintable)} ids hold control characters, such as {unprintable[0]!r:.80}, in column {column}"
        problems.append(Problem(where, what, "Ids must be printable: take them out."))
    if long := [record_id for record_id in ids if len(record_id) > LONGEST_ID]:
        what = f"{len(long)} ids are too long, such as one of {len(long[0]):,} characters, in column {column}"
        problems.append(Problem(where, what, f"An id has {LONGEST_ID:,} at most. Is it the right column?"))
    twice = [i for i, n in Counter(ids).items() if n > 1 and i] if unique and len(set(ids)) < len(ids) else []
    if twice:
        what = f'{len(twice)} ids stand in several rows, such as "{twice[0]:.80}", in column {column}'
        problems.append(
            Problem(where, what, "Ids must be unique; or leave data.id out: ids are then made from content.")
        )
    if problems:
        raise UsageError(problems)
    return ids


def meant(missing: Sequence[str], known: Iterable[str]) -> str:
    """`Did you mean "007" for "7"? ` for the first missing id that differs from a known one in zeros, case or white space only.

    Never more than a question: 7 and 007 may be two people.
    """
    wanted = {_bare(record_id) for record_id in missing}
    near: dict[str, str] = {}
    for record_id in known:
        if (bare := _bare(record_id)) in wanted:
            near.setdefault(bare, record_id)
    asked = next((record_id for record_id in missing if _bare(record_id) in near), None)
    return "" if asked is None else f'Did you mean "{near[_bare(asked)]}" for "{asked}"? '


def _bare(record_id: str) -> str:
    short = record_id.strip().casefold()
    return (short.removesuffix(".0").lstrip("0") or "0") if short.removesuffix(".0").isdigit() else short
