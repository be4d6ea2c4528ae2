"""Linear probes of hidden states: do they tell two groups apart, and how well do they hold the label? Pure; no torch."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CROSS_VALIDATION", "folds", "label_margins", "probe_scores"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

CROSS_VALIDATION = 2.0**0.5
"""Factor on the standard error of an AUC over `probe_scores`. That of the scores as they are is too small: records decide
the probe as well as being judged by it. On pure noise every pair of records counts twice, once each way round, which
makes the variance double; measured factors lie between 1.2 and 1.4 (384 dimensions, 200 and 400 records, with and
without a difference)."""


def folds(records: Sequence[NDArray[Any]], count: int, rng: np.random.Generator) -> list[Integers]:
    """A fold for each unit of each group, such that a record's units share one and each fold has its part of each group.

    Args:
        records: For each group the record number of each unit.
        count: Folds.
        rng: Draws them.
    """
    found = []
    for own in records:
        distinct, place = np.unique(own, return_inverse=True)
        found.append((rng.permutation(len(distinct)) % count)[place])
    return found


def probe_scores(
    states: Sequence[NDArray[Any]], weights: Sequence[Floats], splits: Sequence[Sequence[Integers]], strength: float
) -> tuple[Floats, Floats]:
    """How much like the first group each unit looks to probes that never saw its record.

    L2-regularised logistic regression on features standardised by the other folds. Scores of a fold are ranks within it,
    since two folds' probes share no scale; several splits are averaged.

    Args:
        states: (K, H) hidden states of the units of the first and of the second group.
        weights: (K,) weights of the units, likewise.
        splits: For each repetition the (K,) folds, likewise.
        strength: scikit-learn's C at weights with mean 1: small is strongly regularised.

    Returns:
        (K,) scores in (0, 1) of either group.
    """
    from scipy.stats import rankdata
    from sklearn.linear_model import LogisticRegression

    x = np.concatenate(states).astype(np.float32)
    target = np.repeat([1, 0], [len(s) for s in states])
    weight = np.concatenate(weights) / np.concatenate(weights).mean()
    total = np.zeros(len(x))
    for split in splits:
        fold = np.concatenate(split)
        for number in np.unique(fold):
            out = fold == number
            mean, spread = x[~out].mean(axis=0), x[~out].std(axis=0)
            spread = np.where(spread > 1e-6 * np.abs(mean) + 1e-12, spread, np.inf)  # a constant tells nothing
            model = LogisticRegression(C=strength, max_iter=2000)
            model.fit((x[~out] - mean) / spread, target[~out], sample_weight=weight[~out])
            total[out] += (rankdata(model.decision_function((x[out] - mean) / spread)) - 0.5) / out.sum()
    total /= len(splits)
    return total[target == 1], total[target == 0]


def label_margins(
    train: tuple[NDArray[Any], NDArray[Any]], tests: Sequence[tuple[NDArray[Any], NDArray[Any]]], classes: int
) -> list[Floats]:
    """How far a linear reading of hidden states puts each unit's label above the other classes.

    Ridge regression of the classes (one-hot, of equal weight together) on features standardised by the training units;
    its penalty is a tenth of their count, so a tenth of a feature's own variance.

    Args:
        train: (K, H) states and (K,) classes of the units the reading is fitted to.
        tests: The same of groups to be read.
        classes: How many classes there are.

    Returns:
        For each group (K,) margins: the score of the unit's class minus the best of the others.
    """
    from sklearn.linear_model import Ridge

    x, labels = train[0].astype(np.float64), train[1]
    mean, spread = x.mean(axis=0), x.std(axis=0)
    spread = np.where(spread > 1e-6 * np.abs(mean) + 1e-12, spread, np.inf)
    known, place, counts = np.unique(labels, return_inverse=True, return_counts=True)
    weight = len(labels) / (len(known) * counts[place])
    # Classes that no unit is fitted to score alike: one column for a unit's own, one for the rest.
    columns = len(known) + min(2, classes - len(known))
    target = np.zeros((len(labels), columns))
    target[np.arange(len(labels)), place] = 1
    model = Ridge(alpha=0.1 * len(labels)).fit((x - mean) / spread, target, sample_weight=weight)
    found = []
    for states, own in tests:
        scores = model.predict((states.astype(np.float64) - mean) / spread).reshape(len(own), columns)
        at, column = np.arange(len(own)), np.searchsorted(known, own)
        column = np.where(np.isin(own, known), column, len(known))
        right = scores[at, column]
        scores[at, column] = -np.inf
        found.append(right - scores.max(axis=1))
    return found
