"""Scores of records under a causal language model: one pass, token by token, no array over vocabulary and units."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.halfway import states_behind
from expunge.layer_states import LayerStates
from expunge.scoring import ScoreTable, margins, pass_over
from expunge.tasks.base import Batch, Encoded
from expunge.token_head import TokenHead, in_parts

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

    def figures_of(hidden: Tensor, labels: Tensor) -> Tensor:
        return token_figures(head.logits(hidden), labels)

    def read(batch: Batch) -> tuple[Tensor, Tensor]:
        hidden, _ = head.run(model, batch)
        kept = head.shown(hidden) if keep_hidden else hidden[:, :0]
        return in_parts(figures_of, len(batch.labels), head.module.out_features, hidden, batch.labels), kept.float()

    figures, hidden = pass_over(model, encoded, task, read, batch_size=batch_size, layers=layers, advance=advance)
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

    def logp_of(hidden: Tensor, labels: Tensor) -> Tensor:
        return head.logits(hidden).log_softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)

    def read(batch: Batch) -> tuple[Tensor, Tensor]:
        if layer is not None:
            states = states_behind(model, layer, batch)
            return states[:, 0].float() * 0, states.float()
        hidden, _ = head.run(model, batch)
        logp = in_parts(logp_of, len(batch.labels), head.module.out_features, hidden, batch.labels)
        return logp.float(), hidden.float()

    return pass_over(model, encoded, task, read, batch_size=batch_size, advance=advance)
