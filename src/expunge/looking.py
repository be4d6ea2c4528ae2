"""How forget and calibration records look to a model, for the stop rule: samples, what a look costs, and how often to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

import numpy as np

from expunge.config import StopConfig
from expunge.matching import compare
from expunge.models import head_of
from expunge.scoring import Scores, score
from expunge.stopping import TOLERANCE, Check
from expunge.tasks.base import Encoded

__all__ = ["SHARE", "Look", "Schedule", "rows_a_step", "schedule"]

SHARE = 0.1
"""Checks may cost this share of a run's example-passes."""
_LEAST = 32


def rows_a_step(method: Any, batch_size: int, forget: int, retain: int) -> int:
    """Records, views counted, that run through the model in a step of a method.

    Args:
        method: A `Method`.
        batch_size: Forget records a step.
        forget: Forget records.
        retain: Retained records.
    """
    reads = {need.partition(".")[0] for need in method.needs}
    rows = min(batch_size, forget) * getattr(method, "views", 1) if "forget" in reads else 0
    return rows + (min(max(2, batch_size * getattr(method, "retain_ratio", 1)), retain) if "retain" in reads else 0)


@dataclass(frozen=True)
class Schedule:
    """When the stop rule looks, and at what.

    Attributes:
        every: Steps between checks.
        most: Checks in all; those that come early take from the later ones.
        forget: Forget records a check scores.
        calibration: Calibration records.
    """

    every: int
    most: int
    forget: int
    calibration: int


def schedule(config: StopConfig, forget: int, calibration: int, run: float, steps: int) -> Schedule:
    """How often to look, and at how many records.

    Both samples shrink, to 32 records at least, until five checks (before the first step, two on the way, one early, one
    after the last) cost no more than a tenth of the run; then there are as many checks as fit. Settings that are given
    are kept.

    Args:
        config: The stop rule's settings.
        forget: Forget records.
        calibration: Calibration records.
        run: Example-passes of the whole run, if it is not ended early.
        steps: Its steps.
    """
    forget = min(config.sample, forget)
    calibration = min(config.sample, max(64, 4 * forget), calibration)
    allowed = SHARE * run
    if config.every is None:
        most = int(3 * allowed / 5)
        shrink = min(1.0, most / max(1, forget + calibration))
        forget = max(min(forget, _LEAST), int(forget * shrink))
        calibration = max(min(calibration, _LEAST), min(calibration, most - forget))
    checks = int(allowed / max((forget + calibration) / 3, 1e-9))
    every = config.every or max(1, -(-steps // max(1, checks - 2)))
    return Schedule(every, max(checks, 1 - -steps // every), forget, calibration)


@dataclass
class Look:
    """Scores samples of forget and calibration records, and compares them.

    Words of a tagger's most common class (O) weigh half together, all others the other half: else a model that finds no
    entity at all would look like one that forgot. Calibration units of a class erased whole are left out.

    Args:
        task: Collates records.
        forget: All forget records.
        calibration: All calibration records.
        known: (C,) retained units of each class.
        sizes: Forget and calibration records of the samples.
        confidence: Level at which records are told apart.
        seed: Seed of the samples and of the bootstrap.
        batch_size: Records a forward pass.

    Attributes:
        passes: Example-passes spent so far.
    """

    task: Any
    forget: Encoded
    calibration: Encoded
    known: np.ndarray
    sizes: tuple[int, int]
    confidence: float
    seed: int
    batch_size: int = 64
    passes: float = 0.0
    _unseen: np.ndarray = field(default_factory=lambda: np.zeros(0))
    _lately: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 4])
        self._samples: list[Encoded] = []
        for records, most in zip((self.forget, self.calibration), self.sizes, strict=True):
            size = len(records)
            self._samples.append(records.take(sorted(rng.choice(size, min(most, size), replace=False).tolist())))
        labels = [np.array(sample.flat_labels, dtype=int) for sample in self._samples]
        self._weights = [np.ones(len(labels[0])), (self.known[labels[1]] > 0).astype(float)]
        self._classes: Sequence[np.ndarray] | None = labels
        if self.forget.units is not None:
            common = self.known.argmax()
            self._weights = [_balanced(w, own == common) for w, own in zip(self._weights, labels, strict=True)]
            self._classes = None
        self._unknown = _average(self.known[labels[0]] == 0, self._weights[0])

    def check(self, model: Any, step: int) -> Check:
        """A look at the model as it is now."""
        self.passes += sum(map(len, self._samples)) / 3
        head = head_of(model, self.task, self._samples[0])
        tables = [
            score(model, head, sample, self.task, batch_size=self.batch_size, keep_hidden=False)
            for sample in self._samples
        ]
        right = [_average(table.correct, own) for table, own in zip(tables, self._weights, strict=True)]
        sure = [_average(np.exp(-table.losses), own) for table, own in zip(tables, self._weights, strict=True)]
        found = Check(step, right[0], right[1], sure[0], sure[1], self._unknown, len(self.known))
        self._unseen = np.sort(tables[1].record_margins)
        self._lately.clear()
        if not len(self._unseen):
            return found
        forget, unseen = self._classes or (None, None)
        matched = compare(
            tables[0].record_margins,
            tables[1].record_margins,
            forget,
            unseen,
            confidence=self.confidence,
            seed=self.seed,
        )
        return replace(found, **asdict(matched))

    def watch(self, scores: Scores) -> None:
        """Take note of a training step's own forget outputs: where its records stand among calibration records."""
        if len(self._unseen) and len(scores.labels):
            places = np.searchsorted(self._unseen, scores.record_margins()) / len(self._unseen)
            self._lately.append(float(places.mean()))

    def near(self) -> bool:
        """Whether the last steps' records stand no higher than records never seen; dropout puts them a little low."""
        return len(self._lately) > 0 and float(np.mean(self._lately[-3:])) <= 0.5 + TOLERANCE


def _balanced(kept: np.ndarray, common: np.ndarray) -> np.ndarray:
    """(U,) weights such that the kept units of the most common class and all other kept ones weigh the same."""
    shares = (kept * common).sum(), (kept * ~common).sum()
    if not all(shares):
        return kept
    return kept * np.where(common, 0.5 / shares[0], 0.5 / shares[1])


def _average(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean; 0 where nothing weighs, as when calibration holds an erased class alone."""
    return float((values * weights).sum() / weights.sum()) if weights.sum() else 0.0
