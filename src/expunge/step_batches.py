"""The micro-batches of a whole run, each a pure function of its number and process: resuming needs no sampler state."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch.utils.data import Dataset

from expunge import processes
from expunge.methods.base import Method
from expunge.sampling import StepSampler
from expunge.tasks.base import Batch, Encoded

__all__ = ["Parts", "StepBatches"]

Parts = tuple[Batch | None, Batch | None, Batch | None]
"""Forget, retain and alternate; None for a group that the method does not read, or without a record for a micro-batch."""


class StepBatches(Dataset[Parts]):
    """Item i is micro-batch i of the run, collated: of several processes each has its own part of a step's records.

    Args:
        method: Says which groups a step reads, and how many views of forget records.
        task: Collates records.
        forget: The forget records.
        retain: The retained records.
        sampler: Says which records a step sees.
        micro_batches: Micro-batches a step.
        steps: Steps of the run.
        alternate: The forget records with other answers, where the method makes some.
        lockstep: Whether a group without a record gets a batch without units, so that all processes run as often.
    """

    def __init__(
        self, method: Method, task: Any, forget: Encoded, retain: Encoded, sampler: StepSampler, *, micro_batches: int,
        steps: int, alternate: Encoded | None = None, lockstep: bool = False,
    ) -> None:  # fmt: skip
        self._method, self._task, self._sampler = method, task, sampler
        self._forget, self._retain = forget, retain
        self._micro_batches, self._steps = micro_batches, steps
        self._alternate = alternate
        self._lockstep = lockstep

    def __len__(self) -> int:
        return self._steps * self._micro_batches

    def __getitem__(self, item: int) -> Parts:
        step, part = divmod(item, self._micro_batches)
        own = processes.number() * self._micro_batches + part
        plan = self._sampler.plan(step).split(processes.count() * self._micro_batches)[own]
        read = self._method.groups(step, self._sampler.steps_per_pass)
        forget = retain = alternate = None
        if "forget" in read:
            forget = self._batch(self._forget, plan.forget, views=getattr(self._method, "views", 1))
        if "retain" in read:
            retain = self._batch(self._retain, plan.retain)
        if "alternate" in read and self._alternate is not None:
            alternate = self._batch(self._alternate, plan.forget)
        return forget, retain, alternate

    def _batch(self, encoded: Encoded, positions: Sequence[int], **options: Any) -> Batch | None:
        if positions:
            return self._task.collate(encoded, positions, **options)
        return self._task.collate(encoded, [0]).without_units() if self._lockstep else None
