"""torch's random state, on the CPU and on every GPU: taken, and put back."""

from __future__ import annotations

import torch
from torch import Tensor

__all__ = ["random_state", "restore_random_state"]


def random_state() -> tuple[Tensor, list[Tensor]]:
    """The state as it is now."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def restore_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
