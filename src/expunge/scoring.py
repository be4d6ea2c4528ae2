"""Units and their scores. The only place where log-probabilities of labels are taken."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from expunge.errors import UndeclaredNeedError

if TYPE_CHECKING:
    from expunge.models import Head
    from expunge.tasks.base import Batch, Encoded

__all__ = ["ScoreTable", "Scores", "Step", "margins", "score"]


class Scores:
    """What a model says of one group's units, flat: a row is a unit (for text classification, a view of a record).

    Attributes:
        labels: (U,) class of each unit.
        record_index: (U,) row of the unit's record within its group and step; views of a record share it.
    """

    def __init__(
        self,
        *,
        hidden: Tensor,
        logits: Tensor,
        labels: Tensor,
        record_index: Tensor,
        allowed: Iterable[str],
        group: str,
    ) -> None:
        self._hidden = hidden
        self._logits = logits
        self.labels = labels
        self.record_index = record_index
        self._allowed = frozenset(allowed)
        self._group = group

    def _declared(self, what: str) -> None:
        need = f"{self._group}.{what}"
        if need not in self._allowed:
            raise UndeclaredNeedError(f'the method reads "{need}" without naming it in its needs')

    @property
    def hidden(self) -> Tensor:
        """(U, H) input of the last linear layer."""
        self._declared("hidden")
        return self._hidden

    @property
    def logits(self) -> Tensor:
        """(U, C) outputs of the last linear layer."""
        self._declared("logits")
        return self._logits

    def cross_entropy(self) -> Tensor:
        """Mean negative log-probability of the labels over the units, in nats."""
        return functional.cross_entropy(self.logits, self.labels)


@dataclass(frozen=True)
class Step:
    """One optimisation step as a method sees it: all anchors and all partners of the global step.

    Attributes:
        forget: Units of the records to forget, each record as often as the method asks for views.
        retain: Units of the retained partners drawn for them.
        number: Count of optimisation steps done before this one.
    """

    forget: Scores
    retain: Scores
    number: int


@dataclass(frozen=True)
class ScoreTable:
    """Scores of a group of records under one model, in the records' order.

    Attributes:
        labels: (N,) true classes.
        predictions: (N,) most probable classes.
        margins: (N,) log p_y - log sum of the other classes' probabilities, in nats (float64).
        losses: (N,) -log p_y, in nats (float64).
        hidden: (N, H) inputs of the last linear layer, float32.
    """

    labels: np.ndarray
    predictions: np.ndarray
    margins: np.ndarray
    losses: np.ndarray
    hidden: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def correct(self) -> np.ndarray:
        """(N,) bool: the prediction is the label."""
        return self.predictions == self.labels

    @cached_property
    def accuracy(self) -> float:
        """Share of correct predictions."""
        return float(self.correct.mean())

    @cached_property
    def confidence(self) -> float:
        """Mean probability of the true label."""
        return float(np.exp(-self.losses).mean())


def margins(logits: Tensor, labels: Tensor) -> Tensor:
    """log p_y - log(sum over c != y of p_c), in nats: the logit-scaled confidence (Carlini et al. 2022, arXiv 2112.03570).

    Args:
        logits: (U, C) with C at least 2.
        labels: (U,).

    Returns:
        (U,) margins, computed without leaving log space.
    """
    own = logits.gather(1, labels[:, None])
    others = logits.scatter(1, labels[:, None], float("-inf"))
    return own.squeeze(1) - others.logsumexp(dim=1)


def score(
    model: Any,
    head: Head,
    encoded: Encoded,
    collate: Callable[[Encoded, list[int]], Batch],
    *,
    batch_size: int = 64,
    advance: Callable[[int], None] | None = None,
) -> ScoreTable:
    """One forward pass over records in eval mode, batched by length; the model's mode is put back afterwards.

    Args:
        model: The model.
        head: Its last linear layer, as `expunge.models.find_head` gives it.
        encoded: Tokenised records.
        collate: The task's collate function.
        batch_size: Records a forward pass.
        advance: Called with the number of records scored, batch by batch.
    """
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded.input_ids[i]))
    device = next(model.parameters()).device
    rows: list[tuple[Tensor, Tensor]] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                hidden, logits = head.run(model, collate(encoded, chosen).to(device))
                rows.append((hidden.float().cpu(), logits.cpu().double()))
                if advance:
                    advance(len(chosen))
    finally:
        model.train(was_training)
    back = torch.empty(len(order), dtype=torch.long)
    back[torch.tensor(order)] = torch.arange(len(order))
    hidden = torch.cat([row[0] for row in rows])[back]
    logits = torch.cat([row[1] for row in rows])[back]
    labels = torch.tensor(encoded.labels)
    return ScoreTable(
        labels=labels.numpy(),
        predictions=logits.argmax(dim=1).numpy(),
        margins=margins(logits, labels).numpy(),
        losses=functional.cross_entropy(logits, labels, reduction="none").numpy(),
        hidden=hidden.numpy(),
    )
