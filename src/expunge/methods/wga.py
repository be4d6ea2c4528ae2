"""Weighted gradient ascent."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.options import NonNegative, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["WGA"]


@dataclass(frozen=True, kw_only=True)
class WGA(TwoParts):
    """Gradient ascent that weighs each unit by how likely its label still is.

    Formula: ``L = mean over units of p^beta * log p + retain_weight * R``, the weight without a gradient
    (`expunge.token_losses.wga_weights`).

    Source: Wang et al., "Rethinking LLM Unlearning Objectives: A Gradient Perspective and Go Beyond", arXiv 2502.19301.

    Ours: none.

    Failure signs: beta 0 is gradient ascent, without a lower bound; a large beta leaves what was never certain untouched.

    Example:
        >>> WGA(beta=2.0).beta
        2.0
    """

    beta: NonNegative = option(1.0, "power of a label's probability in its weight")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def forgetting(self, step: Step) -> Tensor:
        from expunge.token_losses import wga_weights

        logp = step.forget.logp()
        return (wga_weights(logp, self.beta) * logp).sum() / max(1, len(logp))
