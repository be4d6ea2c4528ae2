"""AUCs of several models on the same records, put beside each other: pure functions of numpy arrays; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.stats import norm

from expunge.stats import beaten

__all__ = ["Excess", "Term", "combined_auc", "excess"]

Floats = NDArray[np.float64]
Term = tuple[float, NDArray[Any], NDArray[Any]]
"""(factor, (N,) scores of positives, (M,) scores of negatives)."""


def combined_auc(
    terms: Sequence[Term],
    *,
    records: tuple[NDArray[Any], NDArray[Any]] | None = None,
    weights: tuple[NDArray[Any], NDArray[Any]] | None = None,
) -> tuple[float, float]:
    """A weighted sum of AUCs, such as the difference of two models', and its standard error.

    The error is DeLong's (DeLong et al. 1988: a record's contribution to an AUC is the share of the other side that it
    beats), paired over the terms, and clustered where records have several units.

    Args:
        terms: AUCs to add, all of the same positives and negatives in the same order.
        records: Record number of each positive and each negative; left out: each is a record of its own.
        weights: Weight of each positive and each negative; left out: equal.

    Returns:
        The sum and its standard error; (nan, nan) where a side is empty.
    """
    n, m = len(terms[0][1]), len(terms[0][2])
    if not n or not m:
        return float("nan"), float("nan")
    shares = [w / w.sum() for w in (weights or (np.ones(n), np.ones(m)))]
    wins, losses = np.zeros(n), np.zeros(m)
    for factor, positives, negatives in terms:
        wins += factor * beaten(positives, negatives, shares[1])
        losses += factor * (1 - beaten(negatives, positives, shares[0]))
    value = float(shares[0] @ wins)
    own = records or (np.arange(n), np.arange(m))
    parts = zip(shares, (wins, losses), own, strict=True)
    return value, float(np.sqrt(sum(_variance(share * (of - value), record) for share, of, record in parts)))


def _variance(parts: Floats, records: NDArray[Any]) -> float:
    sums = np.bincount(np.unique(records, return_inverse=True)[1], parts)
    return float((sums**2).sum() * len(sums) / max(1, len(sums) - 1))


@dataclass(frozen=True)
class Excess:
    """How far a figure of the unlearned model lies above the retrained models' mean, or above what it should be.

    Attributes:
        value: The difference.
        low: Lower end of its interval, for this figure alone.
        high: Upper end.
        clear: Whether it is above 0 at this level, with all figures of the audit taken together, and above every
            retrained model's.
    """

    value: float
    low: float
    high: float
    clear: bool


def excess(
    value: float, error: float, retrained: Sequence[float] = (), *, confidence: float = 0.95, figures: int = 1
) -> Excess:
    """Judge a difference, with the luck of the retrained models' seeds in its interval.

    An unlearned model as good as a retrained one is one more draw of those: its figure differs from the mean of R of
    them with the variance s^2 (1 + 1/R), s their standard deviation, on top of that over records. With a single
    retrained model s is unknown and left out.

    Args:
        value: The unlearned model's figure minus the retrained models' mean.
        error: Its standard error over records.
        retrained: The figure of each retrained model.
        confidence: Confidence level.
        figures: How many figures the audit looks at: the level of `clear` is shared among them (Bonferroni), one-sided.
    """
    count = len(retrained)
    seeds = float(np.var(retrained, ddof=1)) * (1 + 1 / count) if count > 1 else 0.0
    whole = float(np.sqrt(error**2 + seeds))
    half = float(norm.ppf((1 + confidence) / 2)) * whole
    needed = float(norm.ppf(1 - (1 - confidence) / figures)) * whole
    highest = max(retrained) - float(np.mean(retrained)) if count else 0.0
    return Excess(value, value - half, value + half, bool(value > max(needed, highest, 1e-9)))
