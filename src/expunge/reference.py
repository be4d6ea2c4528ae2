"""Outputs of a frozen model, each record's taken once and kept."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor

from expunge.models import Head, find_head
from expunge.tasks.base import Encoded

__all__ = ["Reference"]


class Reference:
    """Logits of a frozen copy of a model, in eval mode, on demand.

    Args:
        model: Copied as it is now; later changes do not reach the copy.
        task: Collates records.
        groups: Group -> its records.

    Attributes:
        forwards: Records run so far.
    """

    def __init__(self, model: Any, task: Any, groups: dict[str, Encoded]) -> None:
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._task = task
        self._groups = groups
        self._head: Head | None = None
        self._known: dict[str, dict[int, Tensor]] = {group: {} for group in groups}
        self.forwards = 0

    def logits(self, group: str, records: Tensor, units: Tensor) -> Tensor:
        """(U, C) logits of units, each named by its record and by its number within the group; new records are run."""
        known = self._known[group]
        unseen = sorted(set(records.tolist()) - known.keys())
        if unseen:
            encoded = self._groups[group]
            device = next(self._model.parameters()).device
            batch = self._task.collate(encoded, unseen).to(device)
            with torch.no_grad():
                self._head = self._head or find_head(self._model, batch)
                _, logits = self._head.run(self._model, batch)
            counts = [len(encoded.labels[i]) for i in unseen]
            known.update(zip(unseen, logits.split(counts), strict=True))
            self.forwards += len(unseen)
        offsets = torch.tensor([self._groups[group].offsets[i] for i in records.tolist()], device=units.device)
        places = (units - offsets).tolist()
        rows = [known[record][place] for record, place in zip(records.tolist(), places, strict=True)]
        return torch.stack(rows).to(units.device) if rows else torch.zeros(0, device=units.device)
