"""Held-out records: split once by hash into a calibration and an evaluation half, and kept apart from training."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Sequence

from expunge.data.records import Records, normal_form

__all__ = ["again", "at_most", "overlapping", "split_halves"]


def split_halves(records: Records) -> tuple[list[int], list[int]]:
    """Positions of the calibration and of the evaluation half.

    The half is the parity of a hash of the normalised text: it does not depend on order, on the rest of the file or
    on the seed, and copies of a text fall into the same half.
    """
    halves: tuple[list[int], list[int]] = ([], [])
    for position, text in enumerate(records.texts):
        halves[_hash(text)[0] & 1].append(position)
    return halves


def at_most(records: Records, count: int) -> Records:
    """All records, or so many: those whose normalised text has the least hash, in the order they had.

    Which ones these are does not depend on order or on the seed, and another record in the file displaces one at most.
    """
    if len(records) <= count:
        return records
    return records.take(sorted(sorted(range(len(records)), key=lambda i: (_hash(records.texts[i]), i))[:count]))


def _hash(text: Sequence[str]) -> bytes:
    return hashlib.sha256(normal_form(text).encode()).digest()


def overlapping(records: Records, texts: Sequence[tuple[str, ...]]) -> list[int]:
    """Positions of records whose text, normalised, is among `texts`."""
    known = {normal_form(text) for text in texts}
    return [position for position, text in enumerate(records.texts) if normal_form(text) in known]


def again(ids: Sequence[str], forgotten: Collection[str]) -> list[int]:
    """Positions of held-out records with the id of a record to forget.

    Ids that only count the rows, from 0 or from 1, name nothing beyond their own file: none is found then.
    """
    if any(list(ids) == [str(number) for number in range(first, first + len(ids))] for first in (0, 1)):
        return []
    return [position for position, record_id in enumerate(ids) if record_id in forgotten]
