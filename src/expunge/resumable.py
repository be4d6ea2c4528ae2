"""A `transformers.Trainer` whose checkpoints hold all that its steps stand on, in safetensors and JSON alone."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import Trainer

from expunge.snapshot import Snapshot
from expunge.trainer_state import restore_model, restore_random, restored_optimizer, step_state

__all__ = ["ResumableTrainer"]

_STATE = "trainer_state.json"  # where transformers looks for it


class ResumableTrainer(Trainer):
    """A `Trainer` that can be stopped between two steps, and go on to the bit.

    The trainer's own checkpoints (`save_steps`, `resume_from_checkpoint`) work too: it writes the model and its own state, and
    what it would pickle is a `Snapshot` in the same folder.
    """

    _checkpoint: Snapshot | None = None
    _random_due = False

    def snapshot(self, *, weights: bool = True) -> Snapshot:
        """All that the next step stands on, to be taken between two steps.

        Args:
            weights: With the weights that are trained; without them where they are kept elsewhere.
        """
        return step_state(self, weights=weights)

    def checkpoint(self) -> Snapshot:
        """A snapshot from which `train(resume_from_checkpoint=...)` goes on: with the trainer's own state, in its own file."""
        made = self.snapshot()
        made.texts[_STATE] = json.dumps(asdict(self.state))
        return made

    def restore(self, kept: Snapshot) -> None:
        """Put back what `snapshot` gave, but optimizer, schedule and random state, which are there only once it trains."""
        weights = kept.part("weights")
        if weights.tensors:
            restore_model(self.model, weights)

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
        self.restore(kept)
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
