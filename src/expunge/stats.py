"""Statistics of audits: pure functions of numpy arrays; no torch."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

__all__ = ["Interval", "auc", "bootstrap", "macro_f1", "noise_floor", "wilson"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A figure with its confidence interval.

    Attributes:
        value: The figure itself, on the data as they are.
        low: Lower end.
        high: Upper end.
    """

    value: float
    low: float
    high: float


def auc(positives: NDArray[Any], negatives: NDArray[Any]) -> float:
    """Probability that a random positive scores above a random negative, ties counting half (Mann-Whitney U / nm).

    Raises:
        ValueError: Either sample is empty.
    """
    if not len(positives) or not len(negatives):
        raise ValueError("auc needs at least one positive and one negative score")
    ranks: Floats = scipy_stats.rankdata(np.concatenate([positives, negatives]))
    n, m = len(positives), len(negatives)
    return float((ranks[:n].sum() - n * (n + 1) / 2) / (n * m))


def macro_f1(labels: NDArray[Any], predictions: NDArray[Any], classes: int) -> float:
    """Mean of the F1 scores of the classes that occur among the labels; a class never predicted scores 0.

    Args:
        labels: (N,) true classes, 0 ... classes - 1.
        predictions: (N,) predicted classes.
        classes: How many classes there are.
    """
    hits = np.bincount(labels[labels == predictions], minlength=classes)
    truth = np.bincount(labels, minlength=classes)
    said = np.bincount(predictions, minlength=classes)
    present = truth > 0
    return float((2 * hits[present] / (truth[present] + said[present])).mean())


def noise_floor(values: Sequence[Any]) -> float | None:
    """Mean absolute difference of each value to the mean of the others; None for fewer than two.

    Args:
        values: One figure a model, or one array of figures of equal shape.
    """
    if len(values) < 2:
        return None
    others = [np.mean([v for j, v in enumerate(values) if j != i], axis=0) for i in range(len(values))]
    return float(np.mean([np.abs(v - o).mean() for v, o in zip(values, others, strict=True)]))


def wilson(successes: int, n: int, confidence: float = 0.95) -> Interval:
    """A share with its Wilson score interval, which stays honest near 0 and 1."""
    result = scipy_stats.binomtest(successes, n).proportion_ci(confidence_level=confidence, method="wilson")
    return Interval(successes / n, float(result.low), float(result.high))


def bootstrap(
    sizes: Sequence[int],
    statistic: Callable[[list[Integers]], float],
    *,
    resamples: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap over one or several independent samples.

    Args:
        sizes: Size of each sample.
        statistic: The figure, given for each sample the positions to use. Several models scored on the same records
            are compared record by record when the statistic reads all of them at the same positions.
        resamples: How often positions are drawn with replacement.
        confidence: Confidence level.
        seed: Seed of the draws.
    """
    rng = np.random.default_rng(seed)
    value = statistic([np.arange(size) for size in sizes])
    draws = [statistic([rng.integers(0, size, size) for size in sizes]) for _ in range(resamples)]
    tail = (1 - confidence) / 2
    low, high = np.quantile(np.array(draws), [tail, 1 - tail])
    return Interval(value, float(low), float(high))
