"""Scores of records under a causal language model: one pass, token by token, no array over vocabulary and units."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.halfway import states_behind
from expunge.layer_states import LayerStates
from expunge.scoring import ScoreTable, margins
from expunge.tasks.base import Batch, Encoded
from expunge.token_head import TokenHead, part_sizes

__all__ = ["hidden_of", "score_tokens", "token_figures"]


def token_figures(logits: Tensor, labels: Tensor) -> Tensor:
    """(n, 4) of (n, V) logits and (n,) labels, in float64.

    Margin of the label (log-odds, nats); the most probable token; mean and standard deviation of log p(v) over the
    vocabulary under p itself (nats), as Min-K++ wants them.
    """
    logp = logits.log_softmax(dim=-1)
    p = logp.exp()
    mean = (p * logp).sum(dim=-1)
    square = (p * (logp - mean[:, None]).square()).sum(dim=-1)
    found = (margins(logits, labels), logits.argmax(dim=-1), mean, square.clamp(min=0).sqrt())
    return torch.stack([part.double() for part in found], dim=1)


def score_tokens(
    model: Any,
    head: TokenHead,
    encoded: Encoded,
    task: Any,
    *,
    batch_size: int = 16,
    keep_hidden: bool = True,
    layers: LayerStates | None = None,
    advance: Callable[[int], None] | None = None,
) -> ScoreTable:
    """As `expunge.scoring.score`, for next tokens."""

    def read(hidden: Tensor, labels: Tensor) -> Tensor:
        vocabulary = head.module.out_features
        found = [token_figures(head.logits(hidden[part]), labels[part]) for part in part_sizes(len(labels), vocabulary)]
        return torch.cat(found) if found else hidden.new_zeros((0, 4), dtype=torch.float64)

    figures, hidden = _over(model, _hidden(head), encoded, task, read, batch_size, keep_hidden, layers, advance)
    margin = figures[:, 0]
    return ScoreTable(
        labels=np.array(encoded.flat_labels, dtype=int),
        predictions=figures[:, 1].long().numpy(),
        margins=margin.numpy(),
        losses=functional.softplus(-margin).numpy(),
        hidden=hidden.numpy(),
        offsets=np.array(encoded.offsets),
        several_units=True,
        spread=figures[:, 2:].numpy(),
        compressed=None if encoded.compressed is None else np.array(encoded.compressed),
    )


def hidden_of(
    model: Any, head: TokenHead, encoded: Encoded, task: Any, *, batch_size: int = 16,
    layer: nn.Module | None = None, advance: Callable[[int], None] | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """(U,) log-probabilities of the labels, in nats, and (U, H) inputs of the last layer, in float32, on the CPU.

    With a `layer` given its outputs, and zeros in place of log-probabilities: what comes after it does not run.
    """
    if layer is not None:

        def run(model: Any, batch: Batch) -> Tensor:
            return states_behind(model, layer, batch)

        return _over(model, run, encoded, task, lambda h, _: h[:, 0] * 0, batch_size, True, None, advance)

    def read(hidden: Tensor, labels: Tensor) -> Tensor:
        found = [
            head.logits(hidden[part]).log_softmax(dim=-1).gather(1, labels[part, None])
            for part in part_sizes(len(labels), head.module.out_features)
        ]
        return torch.cat(found) if found else hidden.new_zeros((0, 1))

    figures, hidden = _over(model, _hidden(head), encoded, task, read, batch_size, True, None, advance)
    return figures.squeeze(1).float(), hidden


def _hidden(head: TokenHead) -> Callable[[Any, Batch], Tensor]:
    return lambda model, batch: head.run(model, batch)[0]


def _over(
    model: Any, run: Callable[[Any, Batch], Tensor], encoded: Encoded, task: Any,
    read: Callable[[Tensor, Tensor], Tensor], batch_size: int, keep_hidden: bool, layers: LayerStates | None,
    advance: Callable[[int], None] | None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """What `read` makes of units and their labels, and their hidden states (U, 0 unless kept), in the units' order."""
    order = sorted(range(len(encoded)), key=lambda i: -len(encoded.input_ids[i]))
    device = next(model.parameters()).device
    rows: list[tuple[Tensor, Tensor, Tensor]] = []
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(), layers.watching(model) if layers else nullcontext():
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                batch = task.collate(encoded, chosen).to(device)
                if layers:
                    batch = layers.asking(batch)
                hidden = run(model, batch)
                if layers:
                    layers.take(batch)
                kept = hidden if keep_hidden else hidden[:, :0]
                rows.append((read(hidden, batch.labels).cpu(), kept.float().cpu(), batch.unit_index.cpu()))
                if advance:
                    advance(len(chosen))
    finally:
        model.train(was_training)
    figures, hidden, index = (torch.cat(part) for part in zip(*rows, strict=True))
    back = index.argsort()
    return figures[back], hidden[back]
