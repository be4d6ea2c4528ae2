"""The micro-batches of a whole run, each a pure function of its number: resuming needs no sampler state."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from expunge.methods.base import Method
from expunge.sampling import StepSampler
from expunge.tasks.base import Batch, Encoded

__all__ = ["Parts", "StepBatches"]

Parts = tuple[Batch | None, Batch | None, Batch | None]
"""Forget, retain and alternate; None for a group that the method does not read, or without a record for a micro-batch."""


class StepBatches(Dataset[Parts]):
    """Item i is micro-batch i of the run, collated.

    Args:
        method: Says which groups a step reads, and how many views of forget records.
        task: Collates records.
        forget: The forget records.
        retain: The retained records.
        sampler: Says which records a step sees.
        micro_batches: Micro-batches a step.
        steps: Steps of the run.
        alternate: The forget records with other answers, where the method makes some.
    """

    def __init__(
        self, method: Method, task: Any, forget: Encoded, retain: Encoded, sampler: StepSampler, *, micro_batches: int,
        steps: int, alternate: Encoded | None = None,
    ) -> None:  # fmt: skip
        self._method, self._task, self._sampler = method, task, sampler
        self._forget, self._retain = forget, retain
        self._micro_batches, self._steps = micro_batches, steps
        self._alternate = alternate

    def __len__(self) -> int:
        return self._steps * self._micro_batches

    def __getitem__(self, item: int) -> Parts:
        step, part = divmod(item, self._micro_batches)
        plan = self._sampler.plan(step).split(self._micro_batches)[part]
        read = self._method.groups(step, self._sampler.steps_per_pass)
        forget = retain = alternate = None
        if plan.forget and "forget" in read:
            forget = self._task.collate(self._forget, plan.forget, views=getattr(self._method, "views", 1))
        if plan.retain and "retain" in read:
            retain = self._task.collate(self._retain, plan.retain)
        if plan.forget and "alternate" in read and self._alternate is not None:
            alternate = self._task.collate(self._alternate, plan.forget)
        return forget, retain, alternate
