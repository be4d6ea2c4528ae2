"""A method on a stage: prepared on a tiny job, and steps of it at will, for `expunge.conformance` to look at."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from expunge.halfway import end_of_pass, states_behind
from expunge.head import head_of
from expunge.methods.base import GROUPS, Method
from expunge.preparation import Preparation, prepared_state
from expunge.reference import FrozenCopy
from expunge.step import Scores, Step
from expunge.tasks.base import Encoded
from expunge.tiny_jobs import TinyJob
from expunge.token_head import TokenHead
from expunge.token_reference import TokenReference

__all__ = ["BATCH", "Stage", "given", "require"]

BATCH = 4
"""Forget records of a step."""


def require(holds: bool, detail: str) -> None:
    if not holds:  # no `assert`: python -O would leave it out
        raise AssertionError(detail)


class Stage:
    """A method prepared on a job, and steps of it at will.

    The model has moved away from the original since, or every divergence between the two would be 0.
    """

    def __init__(self, method: Method, job: TinyJob, order: Sequence[int] | None = None) -> None:
        self.method, self.job = method, job
        self.order = list(order if order is not None else range(len(job.forget)))
        self.records = {"forget": job.forget.take(self.order), "retain": job.retain}
        self.model = job.model(0).eval()
        self.head = head_of(self.model, job.task, job.retain)
        self.layer, _ = end_of_pass(method, self.model)
        self.a_pass = -(-len(job.forget) // BATCH)
        before = {name: p.detach().clone() for name, p in self.model.named_parameters()}
        self.state, alternate, _ = prepared_state(
            method, self.model, job.task, self.records["forget"], job.retain, given(method, job, self.order),
            seed=0, steps_per_pass=self.a_pass,
        )  # fmt: skip
        require(
            all(torch.equal(before[n], p) and p.grad is None for n, p in self.model.named_parameters()),
            "`prepare` changed the model",
        )
        if alternate is not None:
            self.records["alternate"] = alternate
        self.reference = self._referred()
        noise = torch.Generator().manual_seed(1)
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(torch.randn(parameter.shape, generator=noise, dtype=parameter.dtype), alpha=0.05)

    def _referred(self) -> Any:
        if not isinstance(self.head, TokenHead):
            return FrozenCopy(self.model, self.job.task, self.records)
        wanted = {group: range(len(records)) for group, records in self.records.items()}
        with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
            return TokenReference(
                self.model, self.head, self.job.task, self.records, wanted, Path(folder), whole=True, layer=self.layer
            )

    def _run(self, batch: Any) -> tuple[Tensor, Tensor | None]:
        if self.layer is not None:
            return states_behind(self.model, self.layer, batch), None
        return self.head.run(self.model, batch)

    def numbers(self) -> list[int]:
        """A step of each phase: the first two, and the first of every set of groups within twenty passes."""
        first: dict[frozenset[str], int] = {}
        for number in range(20 * self.a_pass):
            first.setdefault(frozenset(self.method.groups(number, self.a_pass)), number)
        return sorted({0, 1, *first.values()})

    def step(
        self, number: int, forget: Sequence[int] = (0, 1, 2, 3), retain: Sequence[int] = tuple(range(9)), *,
        length: int | None = None, allowed: frozenset[str] | None = None,
        change: Callable[[str, Tensor], Tensor] = lambda _, tensor: tensor, labels: tuple[int, int] | None = None,
    ) -> Step:  # fmt: skip
        """One step on records at these positions of the job; a group that the method does not read is empty."""
        read = self.method.groups(number, self.a_pass)
        places = {"forget": [self.order.index(i) for i in forget], "retain": list(retain)}
        places["alternate"] = places["forget"]
        made: dict[str, Scores] = {}
        for place, group in enumerate(GROUPS):
            if group not in self.records:
                continue
            views = getattr(self.method, "views", 1) if group == "forget" else 1
            batch = self.job.task.collate(self.records[group], places[group], views=views, length=length)
            outputs = self._run(batch) if group in read else (torch.zeros(0), torch.zeros(0))
            none = slice(None) if group in read else slice(0)
            wanted = batch.labels[none] if labels is None else torch.full_like(batch.labels[none], labels[place % 2])
            hidden, logits = (None if tensor is None else change(group, tensor) for tensor in outputs)
            assert hidden is not None
            made[group] = Scores(
                hidden=hidden, logits=logits, labels=wanted, record_index=batch.record_index[none],
                unit_index=batch.unit_index[none], allowed=self.method.reads if allowed is None else allowed, group=group,
                reference=self.reference, head=self.head if isinstance(self.head, TokenHead) else None,
                several_units=batch.rows is not None, layer=hidden if self.layer is not None else None,
            )  # fmt: skip
        return Step(made["forget"], made["retain"], number, self.state, made.get("alternate"))

    def parts(self, step: Step) -> dict[str, float]:
        """The loss's parts as numbers."""
        return {name: float(part.detach()) for name, part in self.method.loss(step).items()}


def given(method: Method, job: TinyJob, order: Sequence[int]) -> Preparation:
    def fitted(records: Encoded, seed: int) -> tuple[Any, float]:
        return job.model(seed + sum(map(sum, records.input_ids)) % 9973), 0.0  # another model for other records

    def reanswered(answers: Sequence[str]) -> Encoded:
        return job.task.encode_texts([(job.texts[i][0], own) for i, own in zip(order, answers, strict=True)])

    def written(model: Any, seed: int, temperature: float) -> list[str]:
        del model, temperature
        return [f"Else {seed + i}." for i in order]

    more: dict[str, Any] = {"reanswered": reanswered, "written": written} if job.texts else {}
    if method.rewinds:
        more["base"] = dict(job.model(7).named_parameters())
    return Preparation([f"id-{i}" for i in order], job.unseen, fitted if method.needs_base else None, **more)
