"""Leave-out targets of whole records: the log-odds a model that never saw a forget record would give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, ndtr, ndtri

from expunge import leave_out

if TYPE_CHECKING:
    from expunge.methods.base import MethodContext
    from expunge.tasks.base import Encoded

__all__ = ["RecordTargets", "class_effects", "clean_margins", "record_targets", "whole_records"]

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

_FEW = 5
"""Records of a class from which its own level is taken; that of two or three is noise, however far it is drawn in."""


@dataclass(frozen=True)
class RecordTargets:
    """Where records belong.

    Attributes:
        forget: (N,) target log-odds of the forget records, in nats.
        unseen: Positions of the calibration records that they were made from.
        known: (M,) log-odds of these under the original.
    """

    forget: Floats
    unseen: list[int]
    known: Floats


def whole_records(margins: Floats, offsets: list[int]) -> Floats:
    """(N,) log-odds of records from those of their (U,) units, as `ScoreTable.record_margins` has them."""
    counts = np.diff(offsets)
    if len(margins) == len(counts):
        return margins
    sums = np.add.reduceat(np.append(np.logaddexp(0, -margins), 0.0), offsets[:-1]) * (counts > 0)
    loss = np.maximum(sums / np.maximum(1, counts), 1e-300)
    return -loss - np.log(-np.expm1(-loss))


def class_effects(values: Floats, classes: Integers, count: int) -> Floats:
    """(C,) how far each class lies from the mean of all, drawn toward it as far as few records leave that open.

    A class mean of n records is multiplied by n / (n + v), with v the variance within classes over that between them (the
    best linear predictor of a random effect, Searle et al. 1992, section 7.3): 0 for a class without records.
    """
    counts = np.bincount(classes, minlength=count)
    several = counts > 1
    if not several.any() or (counts > 0).sum() < 2:
        return np.zeros(count)
    means = np.bincount(classes, values, minlength=count) / np.maximum(1, counts)
    squares = np.bincount(classes, (values - means[classes]) ** 2, minlength=count)
    within = float(squares.sum() / max(1, (counts - 1)[several].sum()))
    there = counts > 0
    between = float(means[there].var(ddof=1) - within * (1 / counts[there]).mean())
    if between <= 0:
        return np.zeros(count)
    return np.where(there, (means - values.mean()) * counts / (counts + within / between), 0.0)


def record_targets(
    context: MethodContext, *, rewind: float, sample: int, clean_weight: float = 0.0, spread: float = 1.0
) -> RecordTargets:
    """The log-odds that the original gives calibration records at the place each forget record has.

    The place is read among retained records of its class under a rewound model (`MethodContext.rewound`; without a base,
    under the original), and blended with that among calibration records under a linear classifier on the base encoder, which
    has seen neither. Where classes are rare, it is among all of them, less the effect of their class where a handful of records
    tell it. A tagger's sentences have no class. Words of a class that no retained record has are as likely as one class of all.

    Args:
        context: What a method may use; passes are counted there.
        rewind: Share of the way from the base to the original at which the rewound model stands.
        sample: Retained records to draw, and calibration records where their scores are not known yet.
        clean_weight: Weight of the base encoder's classifier in a place.
        spread: Share of the places' spread (in normal scores) that targets keep: a place that is known but roughly says
            less the further out it is.
    """
    by_class = context.forget.units is None
    count = context.classes if by_class else 1
    retain = context.drawn("retain", sample)
    if context.known is None:
        unseen = context.places("calibration", sample)
        known = _margins(context, context.model, context.calibration.take(unseen))
    else:
        unseen, known = list(range(len(context.calibration))), context.known
    parts = context.forget, retain, context.calibration.take(unseen)
    classes = [np.array(p.flat_labels, dtype=int) if by_class else np.zeros(len(p), dtype=int) for p in parts]
    rewound = context.rewound(rewind)
    own, seen = (_margins(context, rewound or context.model, part) for part in parts[:2])
    numbers = [np.bincount(c, minlength=count) for c in classes]
    common = (numbers[1] >= leave_out.LEAST) & (numbers[2] >= leave_out.LEAST)
    levelled = ~common & (numbers[1] >= _FEW) & (numbers[2] >= _FEW)

    def placed(values: Floats, reference: Floats, which: int) -> Floats:
        shift = np.where(levelled, class_effects(reference, classes[which], count), 0.0)
        groups = leave_out.Groups(reference - shift[classes[which]], classes[which], common)
        return groups.percentiles(values - shift[classes[0]], classes[0])

    place, clean = placed(own, seen, 1), None
    if rewound is not None and clean_weight:
        drawn = list(range(len(unseen))) if context.known is None else context.places("calibration", sample)
        never_seen = context.calibration.take([unseen[i] for i in drawn])
        found = clean_margins(context, retain, never_seen)
        if found is not None:
            classes.append(classes[2][drawn])
            own, never = (whole_records(m, p.offsets) for m, p in zip(found, (context.forget, never_seen), strict=True))
            clean = placed(own, never, 3)
    place = ndtr(spread * ndtri(leave_out.blended(place, clean, clean_weight)))
    shift = np.where(levelled, class_effects(known, classes[2], count), 0.0)
    groups = leave_out.Groups(known - shift[classes[2]], classes[2], common)
    target = groups.quantiles(place, classes[0]) + shift[classes[0]]
    return RecordTargets(_of_erased(context, target), unseen, known)


def clean_margins(context: MethodContext, retain: Encoded, unseen: Encoded) -> tuple[Floats, Floats] | None:
    """(U,) log-odds that a linear classifier on the base encoder, fitted to retained units, gives forget and unseen units.

    None where there is no base, it gives no hidden states, or the retained units are of one class.
    """
    base = context.rewound(0.0)
    features = [context.embedded(base, part) for part in (context.forget, retain, unseen)]
    labels = [np.array(part.flat_labels, dtype=int) for part in (context.forget, retain, unseen)]
    rows = [found for found in features if found is not None]
    if len(rows) < len(features) or len(np.unique(labels[1])) < 2:
        return None
    # Of a tagger's words, as many of the most common class as of all others: they would else be nearly all.
    kept = leave_out.evenly(labels[1], context.seed) if retain.units is not None else np.arange(len(labels[1]))
    never, forget = leave_out.clean_margins(
        rows[1][kept], labels[1][kept], [(rows[2], labels[2]), (rows[0], labels[0])], count=context.classes
    )
    return forget, never


def _margins(context: MethodContext, model: object, records: Encoded) -> Floats:
    found = leave_out.margins_of(
        context.logits(model, records).double().numpy(), np.array(records.flat_labels, dtype=int)
    )
    return whole_records(found, list(records.offsets))


def _of_erased(context: MethodContext, target: Floats) -> Floats:
    """The targets, with units of a class erased whole as likely as one class of all: nothing is known of them."""
    erased = context.erased[np.array(context.forget.flat_labels, dtype=int)]
    if not erased.any():
        return target
    offsets = np.array(context.forget.offsets)
    share = np.add.reduceat(np.append(erased, 0).astype(float), offsets[:-1]) / np.maximum(1, np.diff(offsets))
    loss = (1 - share) * -np.log(expit(target)) + share * np.log(context.classes)
    return -loss - np.log(-np.expm1(-loss))
