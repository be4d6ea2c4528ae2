"""The table of erased records as a page shows it: its columns, and each record as one line of text. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expunge.record import RunRecord
from expunge.summary import MODELS, record_columns

__all__ = ["AT_ONCE", "Column", "RecordRows", "record_rows"]

AT_ONCE = 1000
"""Rows that stand in the page itself, readable without JavaScript; further ones are data that its script shows."""
_MOST_CHOICES = 6


@dataclass(frozen=True)
class Column:
    """One column.

    Attributes:
        name: What its head says.
        number: Whether its texts begin with a number, by which it is sorted.
        choices: What its texts begin with, up to a colon, where that is one of few words: what a reader can choose from.
    """

    name: str
    number: bool
    choices: tuple[str, ...] = ()


@dataclass(frozen=True)
class RecordRows:
    """The table.

    Attributes:
        columns: Its columns; the first names the record.
        rows: A tuple of texts for each record, in the record's order.
    """

    columns: tuple[Column, ...]
    rows: tuple[tuple[str, ...], ...]

    @property
    def at_once(self) -> Sequence[tuple[str, ...]]:
        """The rows that stand in the page."""
        return self.rows[:AT_ONCE]

    @property
    def further(self) -> Sequence[tuple[str, ...]]:
        """The rows that do not."""
        return self.rows[AT_ONCE:]


def record_rows(record: RunRecord) -> RecordRows:
    """All that the record holds of each erased record, as text: margins in nats, what is right, duplicates, attacks."""
    found: list[tuple[str, bool, list[str]]] = [("record", False, [row["id"] for row in record.records])]
    if any(not row.get("named", True) for row in record.records):
        because = ["requested" if row.get("named", True) else "duplicate" for row in record.records]
        found.append(("because", False, because))
    for model in (model for model in MODELS if any(model in row for row in record.records)):
        said = [row.get(model) for row in record.records]
        found.append((f"{model}: margin", True, ["" if one is None else f"{one['margin']:z.2f}" for one in said]))
        found.append((f"{model}: right", False, ["" if one is None else _right(one) for one in said]))
    found.append(("duplicates", True, [_duplicates(row) for row in record.records]))
    for name, cells in record_columns(record):
        number = any(_is_number(cell) for cell in cells)
        found.append((name, number, cells))
    columns = tuple(Column(name, number, () if number else _choices(cells)) for name, number, cells in found)
    return RecordRows(columns, tuple(zip(*(cells for _, _, cells in found), strict=True)))


def _right(said: dict[str, Any]) -> str:
    """Whether a label was predicted, and which; of several models, words or tokens the share."""
    word = {0: "no", 1: "yes"}.get(said["correct"])
    if word is None:
        return f"{said['correct']:.0%}"
    return f"{word}: {said['predicted']}" if "predicted" in said else word


def _duplicates(row: dict[str, Any]) -> str:
    alike = row.get("alike", [])
    left = sum(entry["left"] for entry in alike)
    return f"{len(alike) or row['duplicates']}" + f" ({left} left)" * bool(left)


def _is_number(cell: str) -> bool:
    try:
        float(cell.split(" ", 1)[0])
    except ValueError:
        return False
    return True


def _choices(cells: Sequence[str]) -> tuple[str, ...]:
    """The few words that texts begin with; none where they are many, or all the same."""
    words: set[str] = set()
    for cell in cells:
        words.add(cell.partition(":")[0])
        if len(words) > _MOST_CHOICES:
            return ()
    return tuple(sorted(words)) if 1 < len(words) < len(cells) else ()
