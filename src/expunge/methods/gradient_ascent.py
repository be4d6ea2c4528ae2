"""Gradient ascent: raise the loss of the forget records, and nothing else."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["GradientAscent"]


@dataclass(frozen=True, kw_only=True)
class GradientAscent(Method):
    """Turn training round on the forget records.

    Formula: ``L = -CE(forget)``.

    Source: the "NegGrad" baseline of Golatkar et al., CVPR 2020, arXiv 1911.04933; for language models Jang et al.,
    arXiv 2210.01504.

    Ours: none. Nothing holds the retained records, and the loss has no lower bound: the stop rule ends it.

    Failure signs: evaluation accuracy falls as fast as forget accuracy; the forget part grows without end.

    Example:
        >>> sorted(GradientAscent().needs)
        ['forget.logits']
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def loss(self, step: Step) -> dict[str, Tensor]:
        return {"forget": -step.forget.cross_entropy()}
