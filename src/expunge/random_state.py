"""Random state: torch's, on the CPU and on every GPU, and that of Python and numpy; taken, and put back."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import torch
from torch import Tensor

__all__ = ["every_random_state", "random_state", "restore_every_random_state", "restore_random_state"]


def random_state() -> tuple[Tensor, list[Tensor]]:
    """torch's state as it is now."""
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def restore_random_state(state: tuple[Tensor, list[Tensor]]) -> None:
    """Put back what `random_state` gave."""
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])


def every_random_state() -> tuple[dict[str, Tensor], dict[str, Any]]:
    """All of it as tensors by name, and as values that JSON can hold."""
    cpu, gpus = random_state()
    name, keys, *rest = np.random.get_state()
    version, words, gauss = random.getstate()
    tensors = {"cpu": cpu, **{f"cuda {number}": state for number, state in enumerate(gpus)}}
    return tensors, {"python": [version, list(words), gauss], "numpy": [name, np.asarray(keys).tolist(), *rest]}


def restore_every_random_state(tensors: dict[str, Tensor], values: dict[str, Any]) -> None:
    """Put back what `every_random_state` gave; states of GPUs only where there are as many."""
    gpus = [tensors[f"cuda {number}"] for number in range(len(tensors) - 1)]
    here = torch.cuda.device_count() if torch.cuda.is_available() else 0
    restore_random_state((tensors["cpu"], gpus if len(gpus) == here else []))
    version, words, gauss = values["python"]
    random.setstate((version, tuple(words), gauss))
    name, keys, *rest = values["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), *rest))
