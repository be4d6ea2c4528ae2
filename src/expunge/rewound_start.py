"""Steps that begin on the way back to the base, from where the records to forget had left less."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["RewoundStart"]


class RewoundStart(TrainerCallback):
    """Moves the weights before the first step: behind the stop rule, whose first look is at the original.

    What the original says, a method's targets and references, has been taken before: that is when the trainer is made.

    Args:
        move: Moves them.
    """

    def __init__(self, move: Callable[[], None]) -> None:
        self._move = move

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        del args, state, control, kwargs
        self._move()
