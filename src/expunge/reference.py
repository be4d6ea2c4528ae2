"""What the untouched original says of records: each record's outputs are taken once and kept."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any, Protocol

import torch
from torch import Tensor

from expunge.collectives import everywhere, share
from expunge.head import Head, find_head
from expunge.models import passes_of
from expunge.snapshot import Snapshot
from expunge.tasks.base import Encoded

__all__ = ["FrozenCopy", "Reference"]


class Reference(Protocol):
    """Outputs of the original for units, each named by its record and by its number within its group."""

    def logits(self, group: str, records: Tensor, units: Tensor) -> Tensor:
        """(U, C) logits."""
        ...

    def logp(self, group: str, records: Tensor, units: Tensor, labels: Tensor) -> Tensor:
        """(U,) log-probabilities of the units' own labels, in nats."""
        ...

    def hidden(self, group: str, records: Tensor, units: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        """The original's output layer, and its (U, H) inputs."""
        ...

    @property
    def passes(self) -> float:
        """Example-passes spent so far: a forward pass of a record counts a third."""
        ...

    def state(self) -> Snapshot:
        """What a later process needs to give the same outputs at the same cost."""
        ...

    def restore(self, snapshot: Snapshot, device: Any) -> None:
        """Put back what `state` gave."""
        ...


class FrozenCopy:
    """A `Reference` for classifiers: a frozen copy of the model, asked as records come up.

    Args:
        model: Copied as it is now; later changes do not reach the copy.
        task: Collates records.
        groups: Group -> its records.
    """

    def __init__(self, model: Any, task: Any, groups: dict[str, Encoded]) -> None:
        self._model = copy.deepcopy(model).eval().requires_grad_(False)
        self._task = task
        self._groups = groups
        self._head: Head | None = None
        self._known: dict[str, dict[int, Tensor]] = {group: {} for group in groups}
        self._forwards = 0

    @property
    def passes(self) -> float:
        return self._forwards / 3 * passes_of(self._model)

    def state(self) -> Snapshot:
        """Outputs known so far, by position: another batch would round them otherwise."""
        made = Snapshot(values={"forwards": self._forwards})
        for group, known in self._known.items():
            if known:
                made.tensors[f"{group}/positions"] = torch.tensor([*known])
                made.tensors[f"{group}/logits"] = torch.cat([*known.values()])
        return made

    def restore(self, snapshot: Snapshot, device: Any) -> None:
        """Put back what `state` gave."""
        self._forwards = snapshot.values["forwards"]
        for group, known in self._known.items():
            positions = snapshot.tensors.get(f"{group}/positions", torch.zeros(0)).int().tolist()
            counts = [len(self._groups[group].labels[i]) for i in positions]
            if positions:
                known.update(zip(positions, snapshot.tensors[f"{group}/logits"].to(device).split(counts), strict=True))

    def logits(self, group: str, records: Tensor, units: Tensor) -> Tensor:
        known = self._known[group]
        unseen = sorted(set(records.tolist()) - known.keys())
        if unseen:
            encoded = self._groups[group]
            device = next(self._model.parameters()).device
            own = unseen[share(len(unseen))]  # all processes ask for the same, and each runs a part of it
            logits = torch.zeros(0, device=device)
            if own:
                batch = self._task.collate(encoded, own).to(device)
                with torch.no_grad():
                    self._head = self._head or find_head(self._model, batch)
                    _, logits = self._head.run(self._model, batch)
            logits = everywhere(logits)
            counts = [len(encoded.labels[i]) for i in unseen]
            known.update(zip(unseen, logits.split(counts), strict=True))
            self._forwards += len(unseen)
        offsets = torch.tensor([self._groups[group].offsets[i] for i in records.tolist()], device=units.device)
        places = (units - offsets).tolist()
        rows = [known[record][place] for record, place in zip(records.tolist(), places, strict=True)]
        return torch.stack(rows).to(units.device) if rows else torch.zeros(0, device=units.device)

    def logp(self, group: str, records: Tensor, units: Tensor, labels: Tensor) -> Tensor:
        if not len(labels):
            return torch.zeros(0, device=units.device)
        logits = self.logits(group, records, units)
        return logits.log_softmax(dim=-1).gather(1, labels[:, None].to(logits.device)).squeeze(1)

    def hidden(self, group: str, records: Tensor, units: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        return (lambda logits: logits), self.logits(group, records, units)
