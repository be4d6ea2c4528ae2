"""Which records a step sees: a pure function of the seed and the step number."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

__all__ = ["StepPlan", "StepSampler", "retained_a_step"]


@dataclass(frozen=True)
class StepPlan:
    """Positions of the records of one optimisation step.

    Attributes:
        forget: Positions within the forget records.
        retain: Positions within the retained records.
    """

    forget: tuple[int, ...]
    retain: tuple[int, ...]

    def split(self, parts: int) -> list[StepPlan]:
        """The plan cut into `parts` micro-batches of nearly equal size (some may be empty)."""
        forget = np.array_split(np.array(self.forget, dtype=int), parts)
        retain = np.array_split(np.array(self.retain, dtype=int), parts)
        return [StepPlan(tuple(f.tolist()), tuple(r.tolist())) for f, r in zip(forget, retain, strict=True)]


def retained_a_step(batch_size: int, retain_ratio: int, available: int) -> int:
    """Retained records in a step: a multiple of the forget records, two at least, as far as there are so many."""
    return min(max(2, batch_size * retain_ratio), available)


class StepSampler:
    """Draws forget records pass by pass, and for them retained partners that are class-aware and fresh.

    Retained partners come from an endless stream of permutations, so that none repeats before all were seen. Where
    the slice for a step lacks a class of the anchors, a record that has it takes the place of one whose classes are
    full; likewise the slice is given a second class where it has only one.

    Args:
        forget_labels: Classes of each forget record's units.
        retain_labels: Classes of each retained record's units.
        batch_size: Forget records a step.
        retain_ratio: Retained records in a step, as a multiple of `batch_size`; a step has at least two.
        seed: Seed of all draws.

    Attributes:
        batch_size: Forget records a step; the last step of a pass may have fewer.
        retain_size: Retained records a step.
    """

    def __init__(
        self,
        forget_labels: Sequence[Sequence[int]],
        retain_labels: Sequence[Sequence[int]],
        *,
        batch_size: int,
        retain_ratio: int,
        seed: int,
    ) -> None:
        self._forget_labels = [tuple(dict.fromkeys(labels)) for labels in forget_labels]
        self._retain_labels = [tuple(dict.fromkeys(labels)) for labels in retain_labels]
        self.batch_size = batch_size
        self.retain_size = retained_a_step(batch_size, retain_ratio, len(self._retain_labels))
        self._seed = seed
        holders: dict[int, list[int]] = {}
        for position, labels in enumerate(self._retain_labels):
            for label in labels:
                holders.setdefault(label, []).append(position)
        self._by_class = {label: np.array(holders[label]) for label in sorted(holders)}
        self._permutations: dict[tuple[str, int], np.ndarray] = {}

    @property
    def steps_per_pass(self) -> int:
        """Steps in which every forget record is seen once."""
        return -(-len(self._forget_labels) // self.batch_size)

    def plan(self, step: int) -> StepPlan:
        """The records of optimisation step `step`, counted from 0."""
        number, within = divmod(step, self.steps_per_pass)
        order = self._permutation("forget", number, len(self._forget_labels))
        forget = [int(i) for i in order[within * self.batch_size : (within + 1) * self.batch_size]]
        retain = self._stream(step * self.retain_size, self.retain_size)
        return StepPlan(tuple(forget), tuple(self._made_class_aware(forget, retain, step)))

    def _permutation(self, what: str, number: int, size: int) -> np.ndarray:
        key = (what, number)
        if key not in self._permutations:
            self._permutations = {k: v for k, v in self._permutations.items() if k[0] != what or k[1] >= number - 1}
            rng = np.random.default_rng([self._seed, 0 if what == "forget" else 1, number])
            self._permutations[key] = rng.permutation(size)
        return self._permutations[key]

    def _stream(self, start: int, count: int) -> list[int]:
        size = len(self._retain_labels)
        drawn: list[int] = []
        while len(drawn) < count:
            number, offset = divmod(start + len(drawn), size)
            order = self._permutation("retain", number, size)
            drawn.extend(int(i) for i in order[offset : offset + count - len(drawn)])
        return drawn

    def _made_class_aware(self, forget: Sequence[int], retain: list[int], step: int) -> list[int]:
        rng = np.random.default_rng([self._seed, 2, step])
        anchors = dict.fromkeys(c for i in forget for c in self._forget_labels[i])
        wanted = [c for c in anchors if c in self._by_class]
        present = Counter(c for i in retain for c in self._retain_labels[i])
        if len({*present, *wanted}) == 1 and len(self._by_class) > 1:
            wanted.append(int(rng.choice([c for c in self._by_class if c not in present])))
        for label in wanted:
            if present[label]:
                continue
            # A record can go where it is not the last to carry a wanted class; best one whose rarest class is fullest.
            spare = [
                (min(present[c] for c in own), -max(own), -place)
                for place, own in enumerate(self._retain_labels[i] for i in retain)
                if own and all(present[c] > 1 or c not in wanted for c in own)
            ]
            if not spare:
                break  # fewer partners than classes among the anchors
            place = -max(spare)[2]
            present.subtract(self._retain_labels[retain[place]])
            retain[place] = int(rng.choice(self._by_class[label]))
            present.update(self._retain_labels[retain[place]])
        return retain
