"""When training keeps a checkpoint, and what stands in it beside the trainer's own state."""

from __future__ import annotations

from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from expunge.looking import Look
from expunge.paused import CHECKPOINT, PausedRun
from expunge.stopping import StopRule

__all__ = ["Checkpoints"]


class Checkpoints(TrainerCallback):
    """Keeps a checkpoint after a step when one is due; the last callback, so that the step has been checked.

    One before the first step is kept where preparing took so long that one is due.

    Args:
        paused: Where.
        trainer: An `UnlearnTrainer`.
        look: What the stop rule looks with.
        stop: The stop rule.
    """

    def __init__(self, paused: PausedRun, trainer: Any, look: Look, stop: StopRule) -> None:
        self._paused, self._trainer, self._look, self._stop = paused, trainer, look, stop

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del args, control, kwargs
        if state.global_step == 0:
            self._keep_if_due(state)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        del args, kwargs
        if not control.should_training_stop and state.global_step < state.max_steps:
            self._keep_if_due(state)

    def _keep_if_due(self, state: TrainerState) -> None:
        if not self._paused.due():
            return
        made = self._trainer.checkpoint()
        made.add("look", self._look.state())
        made.add("stop", self._stop.state())
        self._paused.keep(CHECKPOINT, state.global_step, made)
