"""Figures of merit of a score table: what to read of each record, and the statistic over records. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.scoring import ScoreTable

__all__ = ["ACCURACY", "ENTITY_F1", "Metric", "headline", "macro_f1_over", "shares"]


@dataclass(frozen=True)
class Metric:
    """A figure that is a function of one row a record, so that records can be resampled.

    Attributes:
        name: What it is called in tables.
        unit: What a value of 1 means.
        read: Table -> (N, ...) one row a record.
        statistic: Such rows -> the figure.
    """

    name: str
    unit: str
    read: Callable[[ScoreTable], np.ndarray]
    statistic: Callable[[np.ndarray], float]

    def of(self, table: ScoreTable) -> float:
        """The figure of a table."""
        return self.statistic(self.read(table))


def shares(hits: np.ndarray) -> float:
    """Share of units predicted correctly, from (N, 2) units right and units."""
    return float(hits[:, 0].sum() / max(1.0, hits[:, 1].sum()))


def _entity_f1(counts: np.ndarray) -> float:
    right, predicted, true = counts.sum(axis=0)
    return float(2 * right / (predicted + true)) if predicted + true else 1.0


def _entities(table: ScoreTable) -> np.ndarray:
    assert table.entities is not None
    return table.entities


ACCURACY = Metric("accuracy", "share", lambda table: table.hits, shares)
"""Share of units predicted correctly: of records for a text classifier, of words for a tagger."""

ENTITY_F1 = Metric("entity F1", "F1", _entities, _entity_f1)
"""Micro-averaged F1 of whole entities, type and both ends right; 1 where there is none to find and none was found."""


def macro_f1_over(classes: int) -> Metric:
    """Mean of the classes' F1 scores, for models with one unit a record."""
    from expunge.stats import macro_f1

    def read(table: ScoreTable) -> np.ndarray:
        return np.stack([table.labels, table.predictions], axis=1)

    def statistic(pairs: Any) -> float:
        return macro_f1(pairs[:, 0], pairs[:, 1], classes)

    return Metric("macro-F1", "F1", read, statistic)


def headline(table: ScoreTable) -> Metric:
    """The figure a verdict is about: entity F1 where there are entities, else accuracy."""
    return ACCURACY if table.entities is None else ENTITY_F1
