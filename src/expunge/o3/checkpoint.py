"""What the next step of an adapter's training stands on: kept, and put back to the bit."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import nn

from expunge.o3.adapters import put_adapter
from expunge.random_state import every_random_state
from expunge.snapshot import Snapshot
from expunge.trainer_state import optimizer_state, put_optimizer_state, restore_random

__all__ = ["restored_steps", "steps_kept"]

_Said = list[dict[str, float]]


def steps_kept(
    step: int, order: list[int], passes: float, said: _Said, weights: Mapping[str, nn.Parameter], optimizer: Any,
    rng: np.random.Generator,
) -> Snapshot:  # fmt: skip
    """All that the step behind `step` stands on. No record is in it, but positions of those that come next in the epoch.

    Args:
        step: Steps done.
        order: Records that are left in this pass, by position.
        passes: Example-passes so far.
        said: Figures of each step.
        weights: The adapter's, by name.
        optimizer: Of these.
        rng: What orders are drawn from.
    """
    values = {"step": step, "order": order, "passes": passes, "said": said, "order drawn": rng.bit_generator.state}
    made = Snapshot(values=values)
    made.add("weights", Snapshot({name: weight.detach().clone() for name, weight in weights.items()}))
    made.add("optimizer", optimizer_state(optimizer))
    made.add("random", Snapshot(*every_random_state()))
    return made


def restored_steps(
    kept: Snapshot, model: Any, name: str, optimizer: Any, rng: np.random.Generator
) -> tuple[int, list[int], float, _Said]:
    """Put back what `steps_kept` took of the adapter of that name; steps done, order, passes and figures."""
    put_adapter(model, name, kept.part("weights").tensors)
    put_optimizer_state(optimizer, kept.part("optimizer"))
    rng.bit_generator.state = kept.values["order drawn"]
    restore_random(kept)
    return tuple(kept.values[name] for name in ("step", "order", "passes", "said"))  # pyright: ignore[reportReturnType]
