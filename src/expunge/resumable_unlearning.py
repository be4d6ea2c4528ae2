"""What `UnlearnTrainer` has beyond its steps: what they carry is in its checkpoints too."""

from __future__ import annotations

from typing import TYPE_CHECKING

from expunge.methods.base import State
from expunge.resumable import ResumableTrainer
from expunge.snapshot import Snapshot
from expunge.trainer_state import restored_training, training_state

if TYPE_CHECKING:
    from expunge.gathering import Gatherer
    from expunge.reference import Reference

__all__ = ["ResumableUnlearning"]


class ResumableUnlearning(ResumableTrainer):
    """A trainer with a method's state, partners, the original's outputs, passes and a log."""

    method_state: State
    history: list[dict[str, float]]
    _gatherer: Gatherer
    _reference: Reference | None
    _passes: float

    @property
    def passes(self) -> float:
        """Example-passes of preparation and steps, without those of the reference."""
        return self._passes

    def snapshot(self, *, weights: bool = True) -> Snapshot:
        """As `ResumableTrainer.snapshot`, with what the method carries, partners, the original's outputs, passes and log."""
        return training_state(self, self._gatherer, self._reference, weights=weights)

    def restore(self, kept: Snapshot) -> None:
        """As `ResumableTrainer.restore`."""
        super().restore(kept)
        self._passes = restored_training(self, kept, self._gatherer, self._reference)
