"""Are two groups of records told apart? Margins of forget and of never-seen records, matched by class. Pure."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from expunge.stats import ks, ks_limit

__all__ = ["Before", "Matched", "Places", "compare"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST = 5
"""Never-seen records of a class from which a forget record of that class is compared with these alone."""


@dataclass(frozen=True)
class Matched:
    """How forget records stand among never-seen ones.

    Attributes:
        auc: Chance that a forget record's margin is above that of a never-seen one of its class; ties count half.
        low: Lower end of its interval: normal, with the spread of a bootstrap over both groups.
        high: Upper end.
        ks: Kolmogorov-Smirnov distance of both margin distributions, never-seen records weighted to the forget records' shares
            of classes.
        ks_limit: The distance that chance exceeds with 1 - confidence.
    """

    auc: float
    low: float
    high: float
    ks: float
    ks_limit: float


@dataclass(frozen=True)
class Before:
    """Margins at an earlier time, of more records: what is known of them makes a later comparison of a sample more exact.

    Attributes:
        forget: (N0,) margins then, of all forget records.
        unseen: (M0,) margins then, of all never-seen records.
        forget_classes: (N0,) classes; None: all are compared with all.
        unseen_classes: (M0,) classes.
        forget_sample: (N,) places of the sample's forget records among them.
        unseen_sample: (M,) places of its never-seen records.
    """

    forget: Floats
    unseen: Floats
    forget_classes: Integers | None
    unseen_classes: Integers | None
    forget_sample: Integers
    unseen_sample: Integers
    _drawn: dict[tuple[int, int], Callable[[Floats, Floats], Floats]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )

    def followed(self, resamples: int, seed: int) -> Callable[[Floats, Floats], Floats]:
        """(N, M) wins now, and (N, M) pairs, of the sample -> the figure of all, and in each resample; (1 + resamples,).

        What does not hang on now is computed once: of thousands of records that is nearly all.
        """
        if (resamples, seed) not in self._drawn:
            self._drawn[resamples, seed] = self._followed(resamples, seed)
        return self._drawn[resamples, seed]

    def _followed(self, resamples: int, seed: int) -> Callable[[Floats, Floats], Floats]:
        rng = np.random.default_rng(seed)
        counts = [
            np.concatenate([np.ones((1, k)), rng.multinomial(k, np.full(k, 1 / k), resamples).astype(float)])
            for k in (len(self.forget), len(self.unseen))
        ]
        whole = _pairs(self.forget, self.unseen, self.forget_classes, self.unseen_classes)
        all_then = _auc(_won(self.forget, self.unseen, whole), whole, *counts)
        at, beside = self.forget_sample, self.unseen_sample
        of_sample = counts[0][:, at], counts[1][:, beside]
        classes = (None, None) if self.forget_classes is None or self.unseen_classes is None else (
            self.forget_classes[at], self.unseen_classes[beside]
        )  # fmt: skip
        pairs = _pairs(self.forget[at], self.unseen[beside], *classes)
        then = _auc(_won(self.forget[at], self.unseen[beside], pairs), pairs, *of_sample)
        return lambda won, with_: all_then + (_auc(won, with_, *of_sample) - then)


class Places:
    """Where margins stand among those of never-seen records: the same pairs as `compare`, one forget record at a time.

    Args:
        unseen: (M,) margins, at least one.
        classes: (M,) classes; None: all are compared with all.
    """

    def __init__(self, unseen: Floats, classes: Integers | None = None) -> None:
        self.unseen, self.classes = unseen, classes
        self._all = np.sort(unseen)
        there = () if classes is None else np.flatnonzero(np.bincount(classes) >= LEAST).tolist()
        self._own = {c: np.sort(unseen[classes == c]) for c in there}

    def of(self, margins: Floats, classes: Integers | None = None) -> Floats:
        """(N,) shares of never-seen records of their classes that margins are above; ties count half.

        Args:
            margins: (N,) margins.
            classes: (N,) classes, where there are any.
        """
        found = _place(self._all, margins)
        for c, own in self._own.items():
            of_class = classes == c
            found[of_class] = _place(own, margins[of_class])
        return found


def _place(ordered: Floats, margins: Floats) -> Floats:
    below, not_above = (np.searchsorted(ordered, margins, side) for side in ("left", "right"))
    return (below + not_above) / (2 * len(ordered))


def compare(
    forget: Floats, unseen: Floats, forget_classes: Integers | None = None, unseen_classes: Integers | None = None, *,
    before: Before | None = None, confidence: float = 0.9, resamples: int = 200, seed: int = 0,
) -> Matched:  # fmt: skip
    """Compare margins of forget records with those of never-seen ones.

    Args:
        forget: (N,) margins, at least one.
        unseen: (M,) margins, at least one.
        forget_classes: (N,) classes; left out: all are compared with all.
        unseen_classes: (M,) classes. A forget record whose class has fewer than `LEAST` there is compared with all.
        before: Earlier margins of all records, where these are a sample: the figure is then the earlier one of all, plus
            what the sample's has changed since (a control variate: records differ much more than a record changes).
        confidence: Level of the interval and of the limit.
        resamples: Bootstrap resamples.
        seed: Seed of these.
    """
    n, m = len(forget), len(unseen)
    if not n or not m:
        raise ValueError("compare needs at least one record in each group")
    with_ = _pairs(forget, unseen, forget_classes, unseen_classes)
    now = _won(forget, unseen, with_)
    if before is None:
        rng = np.random.default_rng(seed)
        counts = [rng.multinomial(k, np.full(k, 1 / k), resamples).astype(float) for k in (n, m)]
        value = float(_auc(now, with_, np.ones((1, n)), np.ones((1, m)))[0])
        drawn = _auc(now, with_, *counts)
    else:
        value, *rest = before.followed(resamples, seed)(now, with_).tolist()
        drawn = np.array(rest)
    # The bootstrap's own percentiles cover too little at a hundred records (85 % for 90 % in simulation); its spread does.
    half = float(ndtri((1 + confidence) / 2) * drawn.std(ddof=1))
    weights = (with_ / with_.sum(axis=1, keepdims=True)).mean(axis=0)
    limit = ks_limit(n, float(1 / (weights**2).sum()), confidence)
    return Matched(
        min(1.0, max(0.0, value)), max(0.0, value - half), min(1.0, value + half),
        ks(forget, unseen, weights).value, limit,
    )  # fmt: skip


def _pairs(forget: Floats, unseen: Floats, forget_classes: Integers | None, unseen_classes: Integers | None) -> Floats:
    """(N, M) 1 where a forget record is compared with a never-seen one."""
    if forget_classes is None or unseen_classes is None:
        return np.ones((len(forget), len(unseen)))
    same = forget_classes[:, None] == unseen_classes[None, :]
    return np.where((same.sum(axis=1) >= LEAST)[:, None], same, True).astype(float)


def _won(forget: Floats, unseen: Floats, pairs: Floats) -> Floats:
    """(N, M) 1 where a compared forget record is above, one half where they are equal."""
    return ((forget[:, None] > unseen[None, :]) + 0.5 * (forget[:, None] == unseen[None, :])) * pairs


def _auc(won: Floats, pairs: Floats, forget_counts: Floats, unseen_counts: Floats) -> Floats:
    """(B,) figures for (B, N) and (B, M) multiplicities."""
    compared = unseen_counts @ pairs.T
    places = np.divide(unseen_counts @ won.T, compared, out=np.full_like(compared, 0.5), where=compared > 0)
    total = forget_counts.sum(axis=1)
    return np.divide((forget_counts * places).sum(axis=1), total, out=np.full_like(total, 0.5), where=total > 0)
