"""The micro-batches of a whole run, each a pure function of its number: resuming needs no sampler state."""

from __future__ import annotations

from typing import Any

from torch.utils.data import Dataset

from expunge.methods.base import Method
from expunge.sampling import StepSampler
from expunge.tasks.base import Batch, Encoded

__all__ = ["Pair", "StepBatches"]

Pair = tuple[Batch | None, Batch | None]
"""Forget and retain; None for a group that the method does not read, or that has no record left for a micro-batch."""


class StepBatches(Dataset[Pair]):
    """Item i is micro-batch i of the run, collated.

    Args:
        method: Says which groups a step reads, and how many views of forget records.
        task: Collates records.
        forget: The forget records.
        retain: The retained records.
        sampler: Says which records a step sees.
        micro_batches: Micro-batches a step.
        steps: Steps of the run.
    """

    def __init__(
        self, method: Method, task: Any, forget: Encoded, retain: Encoded, sampler: StepSampler, *, micro_batches: int,
        steps: int,
    ) -> None:  # fmt: skip
        self._method, self._task, self._sampler = method, task, sampler
        self._forget, self._retain = forget, retain
        self._micro_batches, self._steps = micro_batches, steps

    def __len__(self) -> int:
        return self._steps * self._micro_batches

    def __getitem__(self, item: int) -> Pair:
        step, part = divmod(item, self._micro_batches)
        plan = self._sampler.plan(step).split(self._micro_batches)[part]
        read = self._method.groups(step, self._sampler.steps_per_pass)
        forget = retain = None
        if plan.forget and "forget" in read:
            forget = self._task.collate(self._forget, plan.forget, views=getattr(self._method, "views", 1))
        if plan.retain and "retain" in read:
            retain = self._task.collate(self._retain, plan.retain)
        return forget, retain
