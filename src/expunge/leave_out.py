"""Leave-out targets: what a model that never saw a unit would say of it, estimated from cheap and clean sources. Pure."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import log_expit, log_softmax, ndtr, ndtri

from expunge.scoring import margins

__all__ = ["LEAST", "Groups", "blended", "clean_margins", "evenly", "margins_of", "target_log_probabilities"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST = 20
"""Units of a class from which its own distribution is taken; classes with fewer share one."""


@dataclass(frozen=True)
class Groups:
    """Which units are compared with which: those of one class where it has enough of them, else of all rare classes.

    Attributes:
        reference: (R,) margins.
        classes: (R,) their classes.
        common: (C,) bool, whether a class is compared with itself alone.
    """

    reference: Floats
    classes: Integers
    common: NDArray[np.bool_]

    def percentiles(self, values: Floats, classes: Integers) -> Floats:
        """(U,) place of each value among the reference of its group, within (0, 1); ties count half."""
        found = np.empty(len(values))
        for chosen, reference in self._each(classes):
            low = np.searchsorted(reference, values[chosen], side="left")
            high = np.searchsorted(reference, values[chosen], side="right")
            found[chosen] = ((low + high) / 2 + 0.5) / (len(reference) + 1)
        return found

    def quantiles(self, shares: Floats, classes: Integers) -> Floats:
        """(U,) reference values at these places: the inverse of `percentiles`, between them linear."""
        found = np.empty(len(shares))
        for chosen, reference in self._each(classes):
            places = (np.arange(len(reference)) + 1.0) / (len(reference) + 1)
            found[chosen] = np.interp(shares[chosen], places, reference)
        return found

    def _each(self, classes: Integers) -> list[tuple[NDArray[np.bool_], Floats]]:
        pairs = []
        for number in np.unique(classes[self.common[classes]]):
            pairs.append((classes == number, np.sort(self.reference[self.classes == number])))
        rest = ~self.common[classes]
        if rest.any():
            rare = self.reference[~self.common[self.classes]]
            # Too few of all rare classes together say nothing: then every unit is the reference.
            pairs.append((rest, np.sort(rare if len(rare) >= LEAST else self.reference)))
        return pairs


def blended(seen: Floats, clean: Floats | None, clean_weight: float) -> Floats:
    """(U,) one place within (0, 1) from two: a weighted mean of their normal scores, brought back to unit variance.

    Args:
        seen: (U,) places among retained units, under a model that saw both.
        clean: (U,) places among never-seen units, under a model that saw neither; None where there is none.
        clean_weight: Weight of the second, in [0, 1].
    """
    if clean is None or clean_weight == 0:
        return seen
    # The two are not independent; their correlation was .6 to .7 wherever it was measured (docs/calibrated.md).
    mean = (1 - clean_weight) * ndtri(seen) + clean_weight * ndtri(clean)
    spread = np.sqrt((1 - clean_weight) ** 2 + clean_weight**2 + 2 * clean_weight * (1 - clean_weight) * 0.65)
    return ndtr(mean / spread)


def clean_margins(
    features: Floats, classes: Integers, others: list[tuple[Floats, Integers]], *, count: int
) -> list[Floats]:
    """Margins that a linear classifier on a never-trained encoder's features gives to units it was not fitted on.

    Args:
        features: (R, H) features of retained units, which it is fitted on.
        classes: (R,) their classes.
        others: Features (U, H) and classes (U,) of other units; the first pair, never-seen records, chooses how strongly
            the classifier is regularised.
        count: How many classes there are.

    Returns:
        For each pair (U,) margins in nats; a class that no retained unit has gets a probability of 1e-6.
    """
    from sklearn.linear_model import LogisticRegression

    mean, spread = features.mean(axis=0), features.std(axis=0) + 1e-6
    best: tuple[float, list[Floats]] | None = None
    for strength in (1e-3, 1e-2, 1e-1):
        fitted = LogisticRegression(C=strength, max_iter=200).fit((features - mean) / spread, classes)
        found = []
        for rows, labels in others:
            probabilities = np.full((len(rows), count), 1e-6)
            probabilities[:, fitted.classes_] = fitted.predict_proba((rows - mean) / spread)
            found.append(margins_of(np.log(np.clip(probabilities, 1e-6, 1)), labels))
        loss = float(-log_expit(found[0]).mean()) if len(found[0]) else 0.0
        if best is None or loss < best[0]:
            best = loss, found
    assert best is not None
    return best[1]


def evenly(classes: Integers, seed: int, most: int = 4000) -> Integers:
    """Positions of at most `most` units, those of the most common class no more than all others together, in order."""
    rng = np.random.default_rng([seed, 9])
    drawn = rng.permutation(len(classes))
    common = classes[drawn] == np.bincount(classes).argmax()
    others = drawn[~common][: most // 2]
    return np.sort(np.concatenate([others, drawn[common][: max(len(others), 1)]]))


def margins_of(logits: Floats, classes: Integers) -> Floats:
    """(U,) log-odds of each unit's class, in nats, from (U, C) logits."""
    return margins(torch.as_tensor(logits).double(), torch.as_tensor(classes)).numpy()


def target_log_probabilities(margins: Floats, logits: Floats, classes: Integers) -> Floats:
    """(U, C) log-probabilities with these margins for the true classes; the other classes share as in `logits` (U, C)."""
    rows = np.arange(len(classes))
    rest = logits.astype(float).copy()
    rest[rows, classes] = -np.inf
    found = log_softmax(rest, axis=1) + log_expit(-margins)[:, None]
    found[rows, classes] = log_expit(margins)
    return found
