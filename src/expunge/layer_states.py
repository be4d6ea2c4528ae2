"""Hidden states of every layer at some units, caught while a scoring pass runs anyway."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from torch import Tensor

from expunge import processes
from expunge.collectives import everywhere
from expunge.tasks.base import Batch, Encoded

__all__ = ["LayerStates", "sample_units"]

_LARGEST = float(torch.finfo(torch.float16).max)


def sample_units(encoded: Encoded, most: int, seed: int) -> np.ndarray:
    """Numbers of at most `most` units drawn at random, in order: the same for every model.

    Of units within records, those of the most common class (a tagger's O) fill half at most, as far as there are
    others: they would else be nearly all, and what a tagger learnt by heart is in the rest.

    Args:
        encoded: Tokenised records.
        most: How many.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng([seed, 6])
    labels = np.array(encoded.flat_labels, dtype=int)
    drawn = rng.permutation(len(labels))
    if encoded.units is not None and len(labels):
        common = labels[drawn] == np.bincount(labels).argmax()
        rest = drawn[~common][: max(most // 2, most - int(common.sum()))]
        drawn = np.concatenate([rest, drawn[common][: most - len(rest)]])
    return np.sort(drawn[:most])


class LayerStates:
    """Catches what a model says of itself (`output_hidden_states`) in a pass made for its logits.

    A unit within a record is read at its own token. Where the record is the unit, it is the mean over its tokens, padding
    left out: the token that the head reads ([CLS], a decoder's last) gathers the text only in the upper layers, and has
    next to nothing of it in the lower ones.

    Args:
        units: (K,) numbers of the units wanted, in order.
        last: Keep the last layer alone.
    """

    def __init__(self, units: np.ndarray, *, last: bool = False) -> None:
        self.units = units
        self._from = -1 if last else 0
        self._wanted = torch.as_tensor(units)
        self._seen: Any = None
        self._found: list[tuple[Tensor, Tensor]] = []
        self._missing = False

    @contextmanager
    def watching(self, model: Any) -> Iterator[None]:
        """While the model runs."""
        hook = model.register_forward_hook(self._see)
        try:
            yield
        finally:
            hook.remove()

    def _see(self, module: Any, args: Any, output: Any) -> None:
        del module, args
        self._seen = getattr(output, "hidden_states", None)

    def asking(self, batch: Batch) -> Batch:
        """The batch as the model is to get it: asked for its layers where it has a wanted unit."""
        if self._missing or not torch.isin(batch.unit_index.cpu(), self._wanted).any():
            return batch
        return replace(batch, inputs={**batch.inputs, "output_hidden_states": True})  # pyright: ignore[reportArgumentType]

    def take(self, batch: Batch) -> None:
        """Keep the wanted units of the batch that has just run (as `asking` gave it)."""
        if "output_hidden_states" not in batch.inputs:
            return
        states, shape = self._seen, batch.inputs["input_ids"].shape
        self._seen = None
        if not states or any(s.shape[:2] != shape or s.shape != states[0].shape for s in states):
            self._missing = True  # an ensemble, or layers of several widths
            return
        states = states[self._from :]
        units = batch.unit_index
        at = torch.isin(units, self._wanted.to(units.device)).nonzero().squeeze(1)
        if batch.rows is None or batch.columns is None:
            weights = batch.inputs["attention_mask"][at, :, None].float()
            read = [(s[at].float() * weights).sum(dim=1) / weights.sum(dim=1) for s in states]
        else:
            read = [s[batch.rows[at], batch.columns[at]].float() for s in states]
        kept = torch.stack(read, dim=1).clamp(-_LARGEST, _LARGEST).half()
        self._found.append((units[at].cpu(), kept.cpu()))

    def merge(self) -> None:
        """Take in what other processes have caught in their parts of the pass."""
        if processes.count() > 1:
            found = self._found or [(torch.zeros(0, dtype=torch.long), torch.zeros(0))]
            units, kept = (everywhere(torch.cat(part)) for part in zip(*found, strict=True))
            self._found = [(units, kept)] if len(units) else []

    @property
    def states(self) -> np.ndarray | None:
        """(K, L + 1, H) float16, the embeddings' output first, or (K, 1, H); None where the model does not give them."""
        if self._missing or not self._found:
            return None
        units, kept = (torch.cat(part) for part in zip(*self._found, strict=True))
        return kept[units.argsort()].numpy()
