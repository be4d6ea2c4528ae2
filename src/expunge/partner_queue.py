"""Recent embeddings of retained units, a few of each class: partners for anchors whose class a batch lacks."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from expunge.snapshot import Snapshot

__all__ = ["PartnerQueue"]


class PartnerQueue:
    """The last embeddings of each class, without their graph.

    The sampler puts a record of every anchor's class into a step as long as there is room; tags outnumber records in a
    small step, and then the queue has what the step lacks.

    Args:
        size: Embeddings kept of each class.
    """

    def __init__(self, size: int = 8) -> None:
        self._size = size
        self._kept: dict[int, Tensor] = {}

    def add(self, hidden: Tensor, labels: Tensor) -> None:
        """Keep the last of (U, H) embeddings with (U,) labels."""
        for label in labels.unique().tolist():
            new = hidden[labels == label][-self._size :]
            old = self._kept.get(label)
            self._kept[label] = new if old is None else torch.cat([old, new])[-self._size :]

    def lacking(self, present: Tensor, wanted: Tensor) -> tuple[Tensor, Tensor] | None:
        """(Q, H) embeddings and (Q,) labels of the classes that are in `wanted` but not in `present`; None without any."""
        missing = set(wanted.unique().tolist()) - set(present.unique().tolist())
        found = sorted(label for label in missing if label in self._kept)
        if not found:
            return None
        labels = torch.cat([torch.full((len(self._kept[label]),), label) for label in found])
        return torch.cat([self._kept[label] for label in found]), labels.to(present.device)

    def state(self) -> Snapshot:
        """Embeddings by class."""
        return Snapshot({str(label): kept.clone() for label, kept in self._kept.items()})

    def restore(self, snapshot: Snapshot, device: Any) -> None:
        """Put back what `state` gave."""
        self._kept = {int(label): kept.to(device) for label, kept in snapshot.tensors.items()}
