"""Scores of records under a model: one pass, then plain arrays."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from expunge import processes
from expunge.collectives import everywhere
from expunge.layer_states import LayerStates
from expunge.length_groups import FORWARD, runs
from expunge.token_head import TokenHead

if TYPE_CHECKING:
    from expunge.head import Head
    from expunge.tasks.base import Batch, Encoded

__all__ = ["ScoreTable", "margins", "pass_over", "run_over", "score", "table_of"]


@dataclass(frozen=True)
class ScoreTable:
    """Scores of a group of N records with U units under one model, in the records' order.

    Attributes:
        labels: (U,) true classes.
        predictions: (U,) most probable classes.
        margins: (U,) log p_y - log sum of the other classes' probabilities, in nats (float64).
        losses: (U,) -log p_y, in nats (float64).
        hidden: (U, H) inputs of the last linear layer, float32; (U, 0) where they were not kept.
        offsets: (N + 1,) first unit of each record, and last the count of units.
        entities: (N, 3) entities found right, predicted and true of each record; None where there are no entities.
        several_units: Whether units are parts of records, as a tagger's words are.
        layers: (K, L + 1, H) float16 hidden states of a sample of units after the embeddings and after each layer, as
            `expunge.layer_states.LayerStates` reads them; None where they were not asked for, or the model has none.
        layer_units: (K,) numbers of these units, in order.
        spread: (U, 2) mean and standard deviation of log p(v) over the vocabulary under p, in nats, where units are tokens.
        compressed: (N,) bytes that each record's text takes when compressed, likewise.
    """

    labels: np.ndarray
    predictions: np.ndarray
    margins: np.ndarray
    losses: np.ndarray
    hidden: np.ndarray
    offsets: np.ndarray
    entities: np.ndarray | None = None
    several_units: bool = False
    layers: np.ndarray | None = None
    layer_units: np.ndarray | None = None
    spread: np.ndarray | None = None
    compressed: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.offsets) - 1

    @property
    def of_tokens(self) -> bool:
        """Whether units are tokens that a language model writes."""
        return self.spread is not None

    def take(self, records: np.ndarray) -> ScoreTable:
        """The scores of the records at these positions, in that order; without layers."""
        spans = zip(self.offsets[records].tolist(), self.offsets[records + 1].tolist(), strict=True)
        units = np.concatenate([np.arange(first, last) for first, last in spans])
        counts = np.diff(self.offsets)[records]
        return replace(
            self, labels=self.labels[units], predictions=self.predictions[units], margins=self.margins[units],
            losses=self.losses[units], hidden=self.hidden[units], offsets=np.concatenate([[0], np.cumsum(counts)]),
            entities=None if self.entities is None else self.entities[records], layers=None, layer_units=None,
            spread=None if self.spread is None else self.spread[units],
            compressed=None if self.compressed is None else self.compressed[records],
        )  # fmt: skip

    @property
    def correct(self) -> np.ndarray:
        """(U,) bool: the prediction is the label."""
        return self.predictions == self.labels

    @cached_property
    def accuracy(self) -> float:
        """Share of units predicted correctly."""
        return float(self.correct.mean())

    @cached_property
    def confidence(self) -> float:
        """Mean probability of the true label over the units."""
        return float(np.exp(-self.losses).mean())

    @cached_property
    def hits(self) -> np.ndarray:
        """(N, 2) units predicted correctly and units, of each record."""
        return np.stack([self._summed(self.correct), np.diff(self.offsets)], axis=1)

    @cached_property
    def record_losses(self) -> np.ndarray:
        """(N,) mean loss of each record's units, in nats."""
        return self._summed(self.losses) / np.maximum(1, np.diff(self.offsets))

    @cached_property
    def record_margins(self) -> np.ndarray:
        """(N,) log-odds of each record, in nats: of its units' geometric mean probability of the true label.

        For a record of one unit this is the unit's margin.
        """
        if not self.several_units:
            return self.margins
        loss = np.maximum(self.record_losses, 1e-300)
        return -loss - np.log(-np.expm1(-loss))

    def _summed(self, values: np.ndarray) -> np.ndarray:
        return np.add.reduceat(np.append(values, 0).astype(float), self.offsets[:-1]) * (np.diff(self.offsets) > 0)


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
    head: Head | TokenHead,
    encoded: Encoded,
    task: Any,
    *,
    batch_size: int = 64,
    keep_hidden: bool = True,
    layer_units: np.ndarray | None = None,
    advance: Callable[[int], None] | None = None,
) -> ScoreTable:
    """One forward pass over records in eval mode, batched by length; the model's mode is put back afterwards.

    Args:
        model: The model.
        head: Its last linear layer, as `expunge.head.find_head` gives it.
        encoded: Tokenised records.
        task: Collates records, and counts entities where its units are tags.
        batch_size: Records a forward pass.
        keep_hidden: Whether the table keeps the hidden states.
        layer_units: (K,) numbers, in order, of units whose states of every layer the table keeps as well; the pass stays
            one.
        advance: Called with the number of records scored, batch by batch.
    """
    layers = None if layer_units is None else LayerStates(layer_units)
    if isinstance(head, TokenHead):
        from expunge.token_scoring import score_tokens

        table = score_tokens(
            model, head, encoded, task, batch_size=batch_size, keep_hidden=keep_hidden, layers=layers, advance=advance
        )
        return table if layers is None else replace(table, layers=layers.states, layer_units=layers.units)
    hidden, logits = run_over(
        model, head, encoded, task, batch_size=batch_size, keep_hidden=keep_hidden, layers=layers, advance=advance
    )
    table = table_of(logits, encoded, task, hidden)
    return table if layers is None else replace(table, layers=layers.states, layer_units=layers.units)


def table_of(logits: Tensor, encoded: Encoded, task: Any, hidden: Tensor | None = None) -> ScoreTable:
    """The scores that (U, C) logits of records' units make."""
    logits = logits.double()
    labels = torch.tensor(encoded.flat_labels)
    found = margins(logits, labels)
    predictions = logits.argmax(dim=1).numpy()
    offsets = np.array(encoded.offsets)
    return ScoreTable(
        labels=labels.numpy(),
        predictions=predictions,
        margins=found.numpy(),
        losses=functional.softplus(-found).numpy(),
        hidden=(hidden if hidden is not None else logits.float()[:, :0]).numpy(),
        offsets=offsets,
        entities=task.entities(labels.numpy(), predictions, offsets),
        several_units=encoded.units is not None,
    )


def run_over(
    model: Any,
    head: Head,
    encoded: Encoded,
    task: Any,
    *,
    batch_size: int = 64,
    keep_hidden: bool = True,
    layers: LayerStates | None = None,
    advance: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """(U, H) hidden states (U, 0 unless kept) and (U, C) logits of records, as `score` takes them, on the CPU.

    `layers`, where given, takes from the same pass what it wants.
    """

    def read(batch: Batch) -> tuple[Tensor, Tensor]:
        hidden, logits = head.run(model, batch)
        return (hidden if keep_hidden else hidden[:, :0]).float(), logits.float()

    return pass_over(model, encoded, task, read, batch_size=batch_size, layers=layers, advance=advance)


def pass_over(
    model: Any,
    encoded: Encoded,
    task: Any,
    read: Callable[[Batch], tuple[Tensor, Tensor]],
    *,
    batch_size: int,
    layers: LayerStates | None = None,
    advance: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:
    """What `read`, which runs the model in eval mode, makes of every batch: two tensors, a row a unit, in the units' order.

    Batches are of records of like length; the model's mode is put back afterwards. The result is on the CPU. Of several
    processes each runs a part of the batches, and all get the whole.
    """
    device = next(model.parameters()).device
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), layers.watching(model) if layers else nullcontext():
            for number, chosen in enumerate(runs(encoded, batch_size, device, a_pass=FORWARD)):
                if advance and number % processes.count() != processes.number():
                    advance(len(chosen))
                if number % processes.count() != processes.number():
                    continue
                batch = task.collate(encoded, chosen).to(device)
                if layers:
                    batch = layers.asking(batch)
                first, second = read(batch)
                if layers:
                    layers.take(batch)
                rows.append((first.cpu(), second.cpu(), batch.unit_index.cpu()))
                if advance:
                    advance(len(chosen))
    finally:
        model.train(was_training)
    nothing = (torch.zeros(0), torch.zeros(0), torch.zeros(0, dtype=torch.long))
    first, second, index = (everywhere(torch.cat(part)) for part in zip(*(rows or [nothing]), strict=True))
    if layers:
        layers.merge()
    back = index.argsort()
    return first[back], second[back]
