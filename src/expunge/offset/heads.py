"""What the three models say at units, and how that becomes the logits of the ensemble."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from expunge.head import Head, find_head
from expunge.tasks.base import Batch
from expunge.token_head import TokenHead, find_token_head

__all__ = ["BlackHead", "BlackTokenHead", "OffsetHead", "OffsetTokenHead", "Sizes", "combined", "part_of"]


def combined(large: Tensor, small: Tensor, tuned: Tensor, alpha: float) -> Tensor:
    """Logits of the ensemble: ``large + alpha (tuned - small)`` (Huang et al., arXiv 2404.11045).

    The difference comes first: while both small models are the same it is 0 to the bit, and the sum is `large`.

    Args:
        large: (..., C) logits or log-probabilities of the frozen model.
        small: (..., C) logits of the small model as it was.
        tuned: (..., C) those of its trained copy.
        alpha: Weight of the offset.
    """
    return large + alpha * (tuned - small)


@dataclass(frozen=True)
class Sizes:
    """Stands where a linear layer is asked for its sizes.

    Attributes:
        in_features: Width of its input.
        out_features: Classes, or tokens of the vocabulary.
    """

    in_features: int
    out_features: int


@dataclass(frozen=True)
class BlackHead:
    """The outputs of a classifier that shows nothing else, in the place of an `expunge.head.Head`."""

    def run(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(U, 0) in place of hidden states, and (U, C) logits."""
        logits = batch.select(model(**batch.inputs).logits)
        return logits[:, :0], logits


@dataclass(frozen=True)
class BlackTokenHead(TokenHead):
    """The outputs of a causal language model that shows nothing else: `hidden` are the logits themselves."""

    module: Any

    def run(self, model: Any, batch: Batch) -> tuple[Tensor, None]:
        """(U, V) logits at the units; None in place of logits, as of any token head."""
        return batch.select(model(**batch.inputs).logits), None

    def logits(self, hidden: Tensor) -> Tensor:
        """The same again, in float32 at least."""
        return _wide(hidden)

    def frozen(self) -> Callable[[Tensor], Tensor]:
        """`logits`: there is nothing that could change."""
        return _wide

    def shown(self, hidden: Tensor) -> Tensor:
        """(U, 0): logits over a vocabulary are no hidden states to keep."""
        return hidden[:, :0]


def _wide(logits: Tensor) -> Tensor:
    return logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits


@dataclass(frozen=True)
class Part:
    """One of the three models at units.

    Attributes:
        head: Its last linear layer, or what stands for it.
        width: Of what `features` gives.
        classes: Columns of logits.
    """

    head: Any
    width: int
    classes: int

    def features(self, model: Any, batch: Batch) -> Tensor:
        """(U, F): of tokens the head's input; of classes that and the logits behind it."""
        hidden, logits = self.head.run(model, batch)
        return hidden if logits is None else torch.cat([hidden, logits], dim=-1)

    def logits(self, features: Tensor) -> Tensor:
        """(U, C) logits of these."""
        return self.head.logits(features) if isinstance(self.head, TokenHead) else features[:, -self.classes :]

    def hidden(self, features: Tensor) -> Tensor:
        """(U, H) what may be shown as hidden states."""
        if isinstance(self.head, TokenHead):
            return self.head.shown(features)
        return features[:, : -self.classes]

    def frozen(self) -> Callable[[Tensor], Tensor]:
        """`logits` as they are now."""
        return self.head.frozen() if isinstance(self.head, TokenHead) else self.logits


def part_of(model: Any, probe: Batch, tokens: bool) -> Part:
    """A model's part, found by running a probe through it.

    Raises:
        UsageError: Its head is not linear.
    """
    if tokens:
        head = find_token_head(model, probe)
        return Part(head, head.module.in_features, head.module.out_features)
    found: Head = find_head(model, probe)
    classes = int(model.config.num_labels)
    hidden = found.module.in_features if isinstance(found, Head) else 0
    return Part(found, hidden + classes, classes)


Parts = tuple[Part, Part, Part]
"""Of the large model, of the small one as it was, and of its trained copy."""


@dataclass(frozen=True)
class OffsetHead:
    """Used as `expunge.head.Head` is, for an ensemble of classifiers or taggers.

    Attributes:
        parts: Of the three models.
        alpha: Weight of the offset.
    """

    parts: Parts
    alpha: float

    def run(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """(U, H) hidden states of the three models side by side, and (U, C) logits of the ensemble."""
        found = model(batch=batch, parts=self.parts).features
        features = found.split([part.width for part in self.parts], dim=-1)
        both = list(zip(self.parts, features, strict=True))
        hidden = torch.cat([part.hidden(own) for part, own in both], dim=-1)
        large, small, tuned = (part.logits(own) for part, own in both)
        return hidden, combined(large, small, tuned, self.alpha)


@dataclass(frozen=True)
class OffsetTokenHead(TokenHead):
    """Used as `expunge.token_head.TokenHead` is: `hidden` are the inputs of the three output layers side by side.

    Attributes:
        module: Sizes of all that.
        parts: Of the three models.
        alpha: Weight of the offset.
    """

    module: Any
    parts: Parts
    alpha: float

    def run(self, model: Any, batch: Batch) -> tuple[Tensor, None]:
        """(U, F) features of the three models side by side; None in place of logits."""
        return model(batch=batch, parts=self.parts).features, None

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, V) logits of the ensemble."""
        return self._of(hidden, [part.logits for part in self.parts])

    def frozen(self) -> Callable[[Tensor], Tensor]:
        """`logits` as they are now, whatever becomes of the trained copy."""
        layers = [part.frozen() for part in self.parts]
        return lambda hidden: self._of(hidden, layers)

    def shown(self, hidden: Tensor) -> Tensor:
        """The hidden states among the features."""
        features = hidden.split([part.width for part in self.parts], dim=-1)
        return torch.cat([part.hidden(own) for part, own in zip(self.parts, features, strict=True)], dim=-1)

    def _of(self, hidden: Tensor, layers: list[Callable[[Tensor], Tensor]]) -> Tensor:
        features = hidden.split([part.width for part in self.parts], dim=-1)
        large, small, tuned = (layer(own) for layer, own in zip(layers, features, strict=True))
        return combined(large, small, tuned, self.alpha)
