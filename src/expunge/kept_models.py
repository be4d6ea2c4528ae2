"""Models that a run has trained, whole, kept so that another process need not train them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from expunge.paused import PausedRun
from expunge.random_state import every_random_state
from expunge.snapshot import Snapshot
from expunge.trainer_state import model_state, restore_model, restore_random

__all__ = ["keep_model", "kept_model", "restored"]


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

    return made[0].eval() if restored(paused, stage, loaded) is not None else None


def keep_model(paused: PausedRun | None, stage: str, model: Any, values: dict[str, Any] | None = None) -> bool:
    """Keep a model that was trained, with these values, if it is time; whether it was kept."""
    if paused is None or not paused.due():
        return False
    made = Snapshot(values=dict(values or {}))
    made.add("weights", model_state(model))
    made.add("random", Snapshot(*every_random_state()))
    return paused.keep(stage, 0, made) is not None


def restored(paused: PausedRun | None, stage: str, into: Callable[[], Any]) -> Snapshot | None:
    """What was kept, put into a model that is loaded for it, and the random state as it was; None where there is nothing."""
    found = None if paused is None else paused.newest(stage)
    if found is None:
        return None
    restore_model(into(), found[1].part("weights"))
    restore_random(found[1])
    return found[1]
