"""From the outputs of micro-batches, of all processes, to the scores of a step's groups."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.collectives import all_everywhere
from expunge.methods.base import GROUPS, Method
from expunge.partner_queue import PartnerQueue
from expunge.reference import Reference
from expunge.snapshot import Snapshot
from expunge.step import Scores
from expunge.step_batches import Parts
from expunge.token_head import TokenHead

__all__ = ["Gatherer", "Outputs", "leaves", "sent_back", "tensors"]

Outputs = tuple[Tensor, Tensor | None]
"""Hidden states and logits of a batch; of tokens no logits; where a method stops halfway, states of its layer alone."""


class Gatherer:
    """Makes scores of outputs.

    Args:
        method: Says what it reads.
        head: The model's last linear layer.
        reference: The original's outputs, where the method reads them.
        several_units: Whether units are parts of records.
        device: Where empty groups are made.
        halfway: Whether outputs are states of a layer.
    """

    def __init__(
        self, method: Method, head: Any, reference: Reference | None, *, several_units: bool, device: Any, halfway: bool
    ) -> None:
        self._method, self._head, self._reference = method, head, reference
        self._several_units, self._device, self._halfway = several_units, device, halfway
        self._read = {need.partition(".")[0] for need in method.reads}
        self._queue = PartnerQueue()
        self._anchors = torch.zeros(0, dtype=torch.long, device=device)

    def scores(self, group: str, pairs: Sequence[Parts], outputs: Sequence[Sequence[Outputs | None]]) -> Scores:
        """The scores of a group over all micro-batches of a step, of all processes: every one has the same."""
        place = GROUPS.index(group)
        found = [(pair[place], out[place]) for pair, out in zip(pairs, outputs, strict=True)]
        both = [(batch, out) for batch, out in found if batch is not None and out is not None]
        nothing = torch.zeros(0, device=self._device)
        hidden = torch.cat([_at_least_float32(out[0]) for _, out in both]) if both else nothing
        head = self._head if isinstance(self._head, TokenHead) else None
        logits = None
        if head is None:
            given = [_at_least_float32(out[1]) for _, out in both if out[1] is not None]
            logits = torch.cat(given) if given else nothing
        elif not both:
            hidden = torch.zeros((0, head.module.in_features), device=self._device)
        names = ("labels", "record_index", "unit_index")
        ints = (
            torch.cat([torch.stack([getattr(b, n) for n in names], dim=1) for b, _ in both]) if both else nothing.long()
        )
        own = slice(None)
        if group in self._read:
            rows = [ints, hidden, *([] if logits is None or self._halfway else [logits])]
            (ints, hidden, *rest), own = all_everywhere(rows)
            logits = rest[0] if rest else logits
        flat = dict(zip(names, ints.reshape(-1, len(names)).unbind(dim=1), strict=True))
        if group == "forget":
            self._anchors = flat["labels"]
        return Scores(
            hidden=hidden, logits=logits, **flat, allowed=self._method.reads,
            group=group, reference=self._reference, queued=self._partners(group, flat["labels"], hidden), head=head,
            several_units=self._several_units, layer=hidden if self._halfway else None, own=own,
        )  # fmt: skip

    def _partners(self, group: str, labels: Tensor, hidden: Tensor) -> tuple[Tensor, Tensor] | None:
        """What anchors are compared with beside the retained units, and the labels of it."""
        anchors = self._anchors
        if group != "retain" or "retain.hidden" not in self._method.reads or not len(anchors) or not len(labels):
            return None
        if isinstance(self._head, TokenHead):
            there = torch.cat([anchors, labels]).unique()
            return self._head.module.weight.detach()[there], there
        queued = self._queue.lacking(labels, anchors)
        self._queue.add(hidden.detach(), labels)
        return queued

    def state(self) -> Snapshot:
        """The partners kept for steps to come."""
        return self._queue.state()

    def restore(self, snapshot: Snapshot, device: Any) -> None:
        """Put back what `state` gave."""
        self._queue.restore(snapshot, device)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def leaves(outputs: Outputs) -> Outputs:
    """The same outputs without what made them, ready to take a gradient."""
    hidden, logits = outputs
    return hidden.detach().requires_grad_(), None if logits is None else logits.detach().requires_grad_()


def tensors(outputs: Sequence[Outputs | None]) -> list[Tensor]:
    """All tensors of all groups, in order."""
    return [tensor for group in outputs if group is not None for tensor in group if tensor is not None]


def sent_back(outputs: Sequence[Outputs | None], gradients: Sequence[Tensor | None]) -> Tensor | None:
    """A scalar whose gradient with regard to each tensor is the one given; None where there is no tensor, so no record."""
    flat = tensors(outputs)
    shares = [(t * g).sum() for t, g in zip(flat, gradients, strict=True) if g is not None]
    if not flat:
        return None
    return torch.stack(shares).sum() if shares else torch.stack([t.sum() * 0.0 for t in flat]).sum()
