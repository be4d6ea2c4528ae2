"""How forget and calibration records look to a model, for the stop rule: samples, what a look costs, and how often to look."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, astuple, dataclass, field, replace
from typing import Any

import numpy as np
import torch

from expunge.collectives import of_first
from expunge.config import StopConfig, TrainingConfig
from expunge.foresight import FEW_STEPS, Foresight
from expunge.head import head_of
from expunge.matching import Before, Matched, Places, compare
from expunge.models import passes_of
from expunge.sampling import retained_a_step
from expunge.scoring import ScoreTable, score
from expunge.snapshot import Snapshot
from expunge.step import Scores
from expunge.stopping import TOLERANCE, Check
from expunge.tasks.base import Encoded

__all__ = ["SHARE", "Look", "Schedule", "follows", "known_units", "rows_a_step", "samples", "schedule"]

SHARE = 0.1
"""Checks may cost this share of a run's example-passes."""
_LEAST = 32
_WIDE = 2000


def known_units(task: Any, records: Encoded) -> np.ndarray:
    """(C,) units of each class among the records that stay; 0: erased whole, as no class of a language model ever is."""
    classes = len(task.label_names)
    return np.ones(classes, dtype=np.int64) if task.of_tokens else np.bincount(records.flat_labels, minlength=classes)


def rows_a_step(method: Any, batch_size: int, forget: int, retain: int) -> int:
    """Records, views counted, that run through the model in a step of a method.

    Args:
        method: A `Method`.
        batch_size: Forget records a step.
        forget: Forget records.
        retain: Retained records.
    """
    reads = {need.partition(".")[0] for need in method.reads}
    rows = min(batch_size, forget) * getattr(method, "views", 1) if "forget" in reads else 0
    partners = retained_a_step(batch_size, getattr(method, "retain_ratio", 1), retain) if "retain" in reads else 0
    return rows + partners


@dataclass(frozen=True)
class Schedule:
    """When the stop rule looks, and at what.

    Attributes:
        every: Steps between checks.
        most: Checks in all, the first look included; those that come early take from the later ones.
        forget: Forget records a check scores.
        calibration: Calibration records.
    """

    every: int
    most: int
    forget: int
    calibration: int

    @property
    def passes(self) -> float:
        """Example-passes of a check."""
        return (self.forget + self.calibration) / 3


def follows(config: StopConfig, training: TrainingConfig, forget: int) -> bool:
    """Whether each of so many forget records is followed between looks: a pass takes few steps, and `every` is left open."""
    few = -(-forget // training.batch_size) <= FEW_STEPS
    return few and config.every is None and training.accumulation == 1


def samples(config: StopConfig, forget: int, calibration: int) -> tuple[int, int]:
    """Forget and calibration records a check scores, where its cost is no matter: the latter in proportion."""
    forget = min(config.sample, forget)
    return forget, min(config.sample, max(64, 4 * forget), calibration)


def schedule(config: StopConfig, forget: int, calibration: int, run: float, steps: int) -> Schedule:
    """How often to look, and at how many records.

    Both samples shrink, to 32 records at least, until four checks (two on the way, one early, one after the last) cost no
    more than a tenth of the run; then there are as many checks as fit. Settings that are given are kept. The look
    before the first step comes on top: a run has scored the original anyway. So do the stop rule's early looks at short runs.

    Args:
        config: The stop rule's settings.
        forget: Forget records.
        calibration: Calibration records.
        run: Example-passes of the whole run, if it is not ended early.
        steps: Its steps.
    """
    forget, calibration = samples(config, forget, calibration)
    allowed = SHARE * run
    if config.every is None:
        most = int(3 * allowed / 4)
        shrink = min(1.0, most / max(1, forget + calibration))
        forget = max(min(forget, _LEAST), int(forget * shrink))
        calibration = max(min(calibration, _LEAST), min(calibration, most - forget))
    checks = int(allowed / max((forget + calibration) / 3, 1e-9))
    every = config.every or max(1, -(-steps // max(1, checks - 1)))
    return Schedule(every, 1 + max(checks, -(-steps // every)), forget, calibration)


@dataclass(frozen=True)
class _Seen:
    """What the first look saw.

    Attributes:
        tables: Scores of forget and calibration records.
        wide: Their figures.
        narrow: The same of the samples.
    """

    tables: list[ScoreTable]
    wide: list[float]
    narrow: list[float]


@dataclass
class Look:
    """Scores samples of forget and calibration records, and compares them.

    Words of a tagger's most common class (O) weigh half together, all others the other half: else a model that finds no
    entity at all would look like one that forgot. Calibration units of a class erased whole are left out.

    The first look is at all of them, up to `_WIDE`; later ones at samples. Of these only the change since then is taken, and
    added to what the first look saw: records differ far more than a record changes.

    Args:
        task: Collates records.
        forget: All forget records.
        calibration: All calibration records.
        known: (C,) retained units of each class.
        sizes: Forget and calibration records of the samples.
        confidence: Level at which records are told apart.
        seed: Seed of the samples and of the bootstrap.
        batch_size: Records a forward pass.
        given: Scores of all forget and calibration records under the original, where the run has them: then the first
            look is free.
        foresight: Follows each record between looks, where a pass over them takes few steps.

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
    given: tuple[ScoreTable, ScoreTable] | None = None
    foresight: Foresight | None = None
    passes: float = 0.0
    _unseen: Places | None = None
    _lately: list[float] = field(default_factory=list)
    _then: _Seen | None = None
    _before: Before | None = None

    def __post_init__(self) -> None:
        rng = np.random.default_rng([self.seed, 4])
        own = len(self.forget), len(self.calibration)
        self._of = np.array([labels[0] if len(labels) else 0 for labels in self.forget.labels])
        most = _WIDE, _WIDE if self.given else max(256, 4 * min(own[0], _WIDE))
        self._wide = [np.sort(rng.choice(n, min(m, n), replace=False)) for n, m in zip(own, most, strict=True)]
        self._narrow = [
            np.sort(rng.choice(len(wide), min(size, len(wide)), replace=False))
            for wide, size in zip(self._wide, self.sizes, strict=True)
        ]

    def check(self, model: Any, step: int) -> Check:
        """A look at the model as it is now; the first one must be at the original."""
        self._lately.clear()
        if self._then is None:
            tables = self._first(model)
            self._then = _Seen(tables, self._figures(tables), self._figures(self._sampled(tables)))
            self._place(self._wide[0], tables)
            return self._made(step, self._then.wide, self._compared(tables, None))
        then = self._then
        tables = self._scored(model, [wide[narrow] for wide, narrow in zip(self._wide, self._narrow, strict=True)])
        changed = np.array(self._figures(tables)[:4]) - np.array(then.narrow[:4])
        figures = [*np.clip(np.array(then.wide[:4]) + changed, 0, 1).tolist(), then.wide[4]]
        self._place(self._wide[0][self._narrow[0]], tables)
        return self._made(step, figures, self._compared(tables, then.tables))

    def _place(self, positions: np.ndarray, tables: list[ScoreTable]) -> None:
        """Take the margins of records never seen as what the next steps' records are placed among."""
        if len(tables[1]):
            self._unseen = Places(tables[1].record_margins, _classes(tables)[1])
        if self.foresight is not None and self._unseen is not None:
            self.foresight.looked(positions, self._unseen.of(tables[0].record_margins, _classes(tables)[0]))

    def state(self) -> Snapshot:
        """What it has seen since the first look, which is at the original and can be had again."""
        seen = self._unseen
        tensors = {} if seen is None else {"unseen": torch.from_numpy(seen.unseen.astype(np.float64))}
        found = Snapshot(tensors, {"lately": self._lately, "passes": self.passes})
        if self.foresight is not None:
            found.add("foresight", self.foresight.state())
        return found

    def restore(self, snapshot: Snapshot, model: Any) -> None:
        """Take over what `state` gave.

        Args:
            snapshot: What `state` gave.
            model: The original, which is looked at first as before.
        """
        self.check(model, 0)
        if self._unseen is not None:  # by that look: at all of them, later ones are at the sample
            margins, classes = snapshot.tensors["unseen"].numpy(), self._unseen.classes
            if classes is not None and len(margins) < len(classes):
                classes = classes[self._narrow[1]]
            self._unseen = Places(margins, classes)
        self._lately[:] = snapshot.values["lately"]
        self.passes = snapshot.values["passes"]
        if self.foresight is not None:
            self.foresight.restore(snapshot.part("foresight"))

    def _first(self, model: Any) -> list[ScoreTable]:
        if self.given is None:
            return self._scored(model, self._wide)
        return [table.take(wide) for table, wide in zip(self.given, self._wide, strict=True)]

    def _scored(self, model: Any, positions: Sequence[np.ndarray]) -> list[ScoreTable]:
        samples = [
            records.take(own.tolist()) for records, own in zip((self.forget, self.calibration), positions, strict=True)
        ]
        self.passes += sum(map(len, samples)) / 3 * passes_of(model)
        head = head_of(model, self.task, samples[0])
        return [
            score(model, head, sample, self.task, batch_size=self.batch_size, keep_hidden=False) for sample in samples
        ]

    def _sampled(self, tables: list[ScoreTable]) -> list[ScoreTable]:
        return [table.take(narrow) for table, narrow in zip(tables, self._narrow, strict=True)]

    def _figures(self, tables: list[ScoreTable]) -> list[float]:
        """Accuracy of both, confidence of both, share of forget units of a class erased whole."""
        weights = [np.ones(len(tables[0].labels)), (self.known[tables[1].labels] > 0).astype(float)]
        if tables[0].several_units and not tables[0].of_tokens:
            common = self.known.argmax()
            weights = [_balanced(w, t.labels == common) for w, t in zip(weights, tables, strict=True)]
        right = [_average(table.correct, own) for table, own in zip(tables, weights, strict=True)]
        sure = [_average(np.exp(-table.losses), own) for table, own in zip(tables, weights, strict=True)]
        return [*right, *sure, _average(self.known[tables[0].labels] == 0, weights[0])]

    def _compared(self, tables: list[ScoreTable], then: list[ScoreTable] | None) -> Matched | None:
        if not all(map(len, tables)):
            return None
        if then is not None and self._before is None:
            self._before = Before(*_margins(then), *_classes(then), *self._narrow)
        before = None if then is None else self._before
        return compare(*_margins(tables), *_classes(tables), before=before, confidence=self.confidence, seed=self.seed)

    def _made(self, step: int, figures: Sequence[float], matched: Matched | None) -> Check:
        right, unseen_right, sure, unseen_sure, unknown = figures
        found = Check(step, right, unseen_right, sure, unseen_sure, unknown, len(self.known))
        own = astuple(found if matched is None else replace(found, **asdict(matched)))
        return Check(*(type(mine)(told) for mine, told in zip(own, of_first(own), strict=True)))

    def watch(self, scores: Scores) -> None:
        """Take note of a training step's own forget outputs: where its records stand among calibration records."""
        if self._unseen is not None and len(scores.labels):
            records = scores.records()
            classes = None if self._unseen.classes is None else self._of[records]
            places = self._unseen.of(scores.record_margins(), classes)
            self._lately.append(float(places.mean()))
            if self.foresight is not None:
                self.foresight.stepped(records, places)

    def near(self) -> bool:
        """Whether a look is due early: the next step would lead away from records never seen or, where single records are
        not followed, the last steps' records stand no higher than these; dropout puts them a little low.
        """
        if self.foresight is not None:
            near = self.foresight.due()
        else:
            near = len(self._lately) > 0 and float(np.mean(self._lately[-3:])) <= 0.5 + TOLERANCE
        return bool(of_first([near])[0])


def _margins(tables: Sequence[ScoreTable]) -> list[np.ndarray]:
    return [table.record_margins for table in tables]


def _classes(tables: Sequence[ScoreTable]) -> list[np.ndarray | None]:
    """Classes of the records; of sentences, which have several, None."""
    return [None if table.several_units else table.labels for table in tables]


def _balanced(kept: np.ndarray, common: np.ndarray) -> np.ndarray:
    """(U,) weights such that the kept units of the most common class and all other kept ones weigh the same."""
    shares = (kept * common).sum(), (kept * ~common).sum()
    if not all(shares):
        return kept
    return kept * np.where(common, 0.5 / shares[0], 0.5 / shares[1])


def _average(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean; 0 where nothing weighs, as when calibration holds an erased class alone."""
    return float((values * weights).sum() / weights.sum()) if weights.sum() else 0.0
