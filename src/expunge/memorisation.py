"""Had the original memorised a record at all? Its margin, placed among those of records of its class never seen. Pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from expunge.audits.base import classes_of
from expunge.scoring import ScoreTable

__all__ = ["LEVEL", "Memory", "memorised"]

LEVEL = 0.05
"""Share of records never seen that are called memorised, by the test's construction."""


@dataclass(frozen=True)
class Memory:
    """What one record's margin says.

    Attributes:
        percentile: Percentage of unseen records of its class with a smaller margin, ties counting half; None without any.
        unseen: How many these are.
        answer: ``yes``: so large a margin is rare among unseen records; ``no``: half of them or more have one as large, so
            a model that never saw it may well say the same; ``undecided``: in between, or too few unseen records.
    """

    percentile: float | None
    unseen: int
    answer: Literal["yes", "no", "undecided"]


def memorised(records: ScoreTable, unseen: Sequence[ScoreTable]) -> list[Memory]:
    """Judge each record under the original.

    The test is conformal: p = (1 + unseen records of the class with a margin as large) / (1 + all of them). Were the
    record one of them, p <= 0.05 would come up in 5 % of cases at most, however margins are distributed: ``yes``.
    p >= 0.5 is ``no``. Fewer than 19 unseen records of the class cannot give p <= 0.05 and decide nothing. A tagger's
    sentences have no class of their own and are placed among all.

    Args:
        records: Scores of the records asked about, under the original.
        unseen: Scores of records never trained on, under the same model.
    """
    margins = np.concatenate([table.record_margins for table in unseen])
    classes, own = np.concatenate([classes_of(table) for table in unseen]), classes_of(records)
    by_class = {c: np.sort(margins[classes == c]) for c in np.unique(own)}
    return [_judge(float(m), by_class[c]) for m, c in zip(records.record_margins, own, strict=True)]


def _judge(margin: float, others: np.ndarray) -> Memory:
    count = len(others)
    if not count:
        return Memory(None, 0, "undecided")
    below, upto = (int(np.searchsorted(others, margin, side=side)) for side in ("left", "right"))
    p = (1 + count - below) / (1 + count)
    answer = "yes" if p <= LEVEL else "no" if p >= 0.5 and 1 / (1 + count) <= LEVEL else "undecided"
    return Memory(round(50.0 * float(below + upto) / count, 1), count, answer)
