"""A `transformers.Trainer` whose checkpoints hold all that its steps stand on, in safetensors and JSON alone."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from transformers import Trainer

from expunge.methods.base import State
from expunge.snapshot import Snapshot
from expunge.trainer_state import restore_random, restored_optimizer, restored_training, training_state

if TYPE_CHECKING:
    from expunge.gathering import Gatherer
    from expunge.reference import Reference

__all__ = ["ResumableTrainer"]


class ResumableTrainer(Trainer):
    """What `UnlearnTrainer` has beyond its steps: it can be stopped between two of them, and go on to the bit.

    The trainer's own checkpoints (`save_steps`, `resume_from_checkpoint`) work too: it writes the model and its own state, and
    what it would pickle is a `Snapshot` in the same folder.
    """

    method_state: State
    history: list[dict[str, float]]
    _gatherer: Gatherer
    _reference: Reference | None
    _passes: float
    _checkpoint: Snapshot | None = None
    _random_due = False

    @property
    def passes(self) -> float:
        """Example-passes of preparation and steps, without those of the reference."""
        return self._passes

    def snapshot(self, *, weights: bool = True) -> Snapshot:
        """All that the next step stands on, to be taken between two steps.

        Args:
            weights: With the weights that are trained; without them where they are kept elsewhere.
        """
        return training_state(self, self._gatherer, self._reference, weights=weights)

    def restore_random_if_due(self) -> None:
        """Put back the random state of a checkpoint before its next step draws anything."""
        if self._random_due:
            self._load_rng_state(None)

    def _save_optimizer_and_scheduler(self, output_dir: str) -> None:
        self.snapshot(weights=False).write_into(Path(output_dir))

    def _save_rng_state(self, output_dir: str) -> None:
        del output_dir  # part of the snapshot

    def _save_scaler(self, output_dir: str) -> None:
        del output_dir  # none: float16 is not trained in

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: Any = None) -> None:
        kept = Snapshot.read(Path(resume_from_checkpoint))
        if not kept.part("weights").tensors:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        self._passes = restored_training(self, kept, self._gatherer, self._reference)
        self._checkpoint = kept

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if checkpoint is None or self._checkpoint is None:
            return
        restored_optimizer(self, self._checkpoint)
        self._random_due = (
            self._checkpoint.values["step"] > 0
        )  # before the first step the trainer does it itself, and rightly

    def _load_scaler(self, checkpoint: str | None) -> None:
        del checkpoint

    def _load_rng_state(self, checkpoint: str | None) -> None:
        del checkpoint
        if self._checkpoint is not None:
            restore_random(self._checkpoint)
        self._random_due = False
