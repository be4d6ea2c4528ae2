"""Several processes of one run: how many there are, which one this is, and who speaks for all."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

__all__ = ["alone", "count", "first", "leave", "number", "sharded"]

_alone = False


def count() -> int:
    """Processes that `torchrun` or `accelerate launch` started for this run; 1 without them, and within `alone`."""
    return 1 if _alone else _started()


def number() -> int:
    """Which of them this is, counted from 0; 0 within `alone`."""
    return int(os.environ["RANK"]) if count() > 1 else 0


def first() -> bool:
    """Whether this is the one that writes files and speaks, within `alone` too."""
    return _started() == 1 or int(os.environ["RANK"]) == 0


def _started() -> int:
    return int(os.environ.get("WORLD_SIZE", "1")) if {"RANK", "LOCAL_RANK"} <= os.environ.keys() else 1


@contextmanager
def alone() -> Iterator[None]:
    """Work that this process does for itself, whatever the others do."""
    global _alone
    before, _alone = _alone, True
    try:
        yield
    finally:
        _alone = before


def sharded() -> bool:
    """Whether weights are to be cut up over the processes: `accelerate launch --use_fsdp`, or ACCELERATE_USE_FSDP=true.

    The wish is moved to a variable of our own, which the libraries do not see: accelerate has no FSDP on the CPU, and
    transformers would load weights in the first process alone.
    """
    if os.environ.pop("ACCELERATE_USE_FSDP", "false").lower() in ("true", "1", "yes"):
        os.environ["EXPUNGE_FSDP"] = "true"
    return count() > 1 and os.environ.get("EXPUNGE_FSDP") == "true"


def leave() -> None:
    """Take leave of the other processes, at the end of a run that went well."""
    if count() > 1:
        from torch import distributed

        if distributed.is_initialized():
            distributed.destroy_process_group()
