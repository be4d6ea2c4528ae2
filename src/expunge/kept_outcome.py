"""What a run's unlearning left, kept so that another process need not unlearn again."""

from __future__ import annotations

from typing import Any

from transformers import PreTrainedModel

from expunge.kept_models import keep_model, restored
from expunge.paused import CHECKPOINT, PausedRun
from expunge.unlearning import Outcome

__all__ = ["keep_outcome", "kept_outcome"]

_UNLEARNED = "unlearned"


def kept_outcome(paused: PausedRun | None, model: Any) -> Outcome | None:
    """What an earlier process's unlearning left, put into the original; None where it did not get so far."""
    found = restored(paused, _UNLEARNED, lambda: model)
    return None if found is None else Outcome(model.eval(), **found.values["outcome"])


def keep_outcome(paused: PausedRun | None, original: Any, outcome: Outcome) -> None:
    """Keep what unlearning left, where it is the original with other weights: what a method made of it is made again.

    Args:
        paused: Where, if anywhere.
        original: The model that was given to it.
        outcome: What it left.
    """
    if paused is None or outcome.model is not original or not isinstance(original, PreTrainedModel):
        return
    told = {"log": outcome.log, "passes": outcome.passes, "check_passes": outcome.check_passes}
    if keep_model(paused, _UNLEARNED, original, {"outcome": told}):
        paused.drop(CHECKPOINT)
