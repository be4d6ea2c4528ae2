"""Where forget records stand between the stop rule's looks, and where the next step would leave them."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from expunge.snapshot import Snapshot

__all__ = ["FEW_STEPS", "Foresight"]

FEW_STEPS = 8
"""Requests of so many steps a pass at most are followed record by record: each has been seen lately."""


@dataclass
class Foresight:
    """Each record's place among records never seen (0: below all, 1: above all), from the step that read it last.

    A step's outputs are of the weights before its own change. What a record moved between two readings tells how fast all
    of them move; those that were read earlier are taken to have moved on alike. Steps run with dropout and looks do not: the
    first step after a look reads the weights looked at, and what differs there is taken off later readings.

    Args:
        count: Forget records.
    """

    count: int
    _places: np.ndarray = field(init=False)
    _read: np.ndarray = field(init=False)
    _step: int = 0
    _shift: float = 0.0
    _moved: list[tuple[float, int, int]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._places = np.full(self.count, np.nan)
        self._read = np.zeros(self.count, dtype=np.int64)

    def looked(self, records: np.ndarray, places: np.ndarray) -> None:
        """A look saw these records of the weights as they are now; how fast they move is asked anew."""
        self._places[records], self._read[records] = places, self._step
        self._moved.clear()

    def unplaced(self) -> None:
        """The weights are no longer those that were looked at, nor were they changed by a step."""
        self._places[:] = np.nan
        self._moved.clear()

    def stepped(self, records: np.ndarray, places: np.ndarray) -> None:
        """A step read these records (views of one may repeat) and has changed the weights since."""
        own, which = np.unique(records, return_inverse=True)
        now = np.bincount(which, places) / np.bincount(which)
        since = self._step - self._read[own]
        known = ~np.isnan(self._places[own])
        if (fresh := known & (since == 0)).any():
            self._shift = float((now - self._places[own])[fresh].mean())
        now = now - self._shift
        if (moved := known & (since > 0)).any():
            far = float((now - self._places[own])[moved].sum())
            self._moved.append((far, int(since[moved].sum()), int(moved.sum())))
        self._places[own], self._read[own] = now, self._step
        self._step += 1

    def speed(self) -> float | None:
        """How far a record moves a step, by the last readings of as many records as there are; None: too few since a look."""
        far, steps, records = 0.0, 0, 0
        for one in reversed(self._moved):
            far, steps, records = far + one[0], steps + one[1], records + one[2]
            if records >= self.count:
                break
        return far / steps if 2 * records > self.count else None

    def due(self) -> bool:
        """Whether the next step would leave the records below the middle of those never seen, and further from it than now."""
        speed = self.speed()
        if speed is None or speed >= 0:
            return False
        here = float(np.nanmean(self._places + speed * (self._step - self._read)))
        return here + speed / 2 <= 0.5

    def state(self) -> Snapshot:
        """All that it has seen."""
        import torch

        tensors = {"places": torch.from_numpy(self._places.copy()), "read": torch.from_numpy(self._read.copy())}
        return Snapshot(tensors, {"step": self._step, "shift": self._shift, "moved": self._moved})

    def restore(self, snapshot: Snapshot) -> None:
        """Take over what `state` gave."""
        self._places, self._read = (snapshot.tensors[name].numpy().copy() for name in ("places", "read"))
        self._step, self._shift = snapshot.values["step"], snapshot.values["shift"]
        self._moved = [(far, steps, records) for far, steps, records in snapshot.values["moved"]]
