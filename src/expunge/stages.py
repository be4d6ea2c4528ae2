"""Models that a run has finished, kept so that another process need not make them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from transformers import PreTrainedModel

from expunge.paused import CHECKPOINT, PausedRun
from expunge.random_state import every_random_state
from expunge.snapshot import Snapshot
from expunge.trainer_state import model_state, restore_model, restore_random
from expunge.unlearning import Outcome

__all__ = ["keep_model", "keep_outcome", "kept_model", "kept_outcome"]

_UNLEARNED = "unlearned"


def kept_outcome(paused: PausedRun | None, model: Any) -> Outcome | None:
    """What an earlier process's unlearning left, put into the original; None where it did not get so far."""
    found = _restored(paused, _UNLEARNED, lambda: model)
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
    if _kept(paused, _UNLEARNED, original, {"outcome": told}):
        paused.drop(CHECKPOINT)


def kept_model(paused: PausedRun | None, stage: str, load: Callable[[], Any]) -> Any | None:
    """A model that an earlier process has trained, or None.

    Args:
        paused: Where it may be.
        stage: What it is called there.
        load: -> the model it was trained from.
    """
    made: list[Any] = []

    def loaded() -> Any:
        made.append(load())
        return made[0]

    return made[0].eval() if _restored(paused, stage, loaded) is not None else None


def keep_model(paused: PausedRun | None, stage: str, model: Any) -> None:
    """Keep a model that was trained, if it is time."""
    if paused is not None:
        _kept(paused, stage, model, {})


def _kept(paused: PausedRun, stage: str, model: Any, values: dict[str, Any]) -> bool:
    if not paused.due():
        return False
    made = Snapshot(values=dict(values))
    made.add("weights", model_state(model))
    made.add("random", Snapshot(*every_random_state()))
    return paused.keep(stage, 0, made) is not None


def _restored(paused: PausedRun | None, stage: str, into: Callable[[], Any]) -> Snapshot | None:
    found = None if paused is None else paused.newest(stage)
    if found is None:
        return None
    restore_model(into(), found[1].part("weights"))
    restore_random(found[1])
    return found[1]
