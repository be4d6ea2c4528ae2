"""When plain fine-tuning keeps a checkpoint, and how it goes on from one within an epoch."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from expunge.paused import TRAINING, PausedRun
from expunge.random_state import every_random_state, restore_every_random_state
from expunge.snapshot import Snapshot

__all__ = ["FitCheckpoints"]

_EPOCH = "epoch"


class FitCheckpoints(TrainerCallback):
    """Keeps a checkpoint after a step when one is due, with the random state that its epoch's order was drawn from.

    Args:
        paused: Where.
        name: What is trained, as its finished model is called there.
        trainer: A `ResumableTrainer`.
    """

    def __init__(self, paused: PausedRun, name: str, trainer: Any) -> None:
        self._paused, self._stage, self._trainer = paused, f"{TRAINING}-{name}", trainer
        self._found = paused.newest(self._stage)
        self._drawn_from: Snapshot | None = None if self._found is None else self._found[1].part(_EPOCH)

    def begin(self) -> str | None:
        """Begin to keep; gives the checkpoint to go on from, where there is one."""
        self._trainer.add_callback(self)
        return None if self._found is None else str(self._found[0])

    def done(self) -> None:
        """Let go of checkpoints, once the finished model is kept."""
        self._paused.drop(self._stage)

    def on_epoch_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del args, state, control, kwargs
        if self._drawn_from is None:
            self._drawn_from = Snapshot(*every_random_state())
        else:  # the epoch that a checkpoint lies in, or that it stands before
            restore_every_random_state(self._drawn_from.tensors, self._drawn_from.values)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del kwargs
        epoch_over = state.global_step % -(-len(self._trainer.train_dataset) // args.train_batch_size) == 0
        if self._paused.due() and not control.should_training_stop and state.global_step < state.max_steps:
            made = self._trainer.checkpoint()
            made.add(
                _EPOCH, Snapshot(*every_random_state()) if epoch_over or self._drawn_from is None else self._drawn_from
            )
            self._paused.keep(self._stage, state.global_step, made)
        if epoch_over:
            self._drawn_from = None
