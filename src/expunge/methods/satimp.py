"""Saturation and importance reweighting."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.options import NonNegative, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["SatImp"]


@dataclass(frozen=True, kw_only=True)
class SatImp(TwoParts):
    """Gradient ascent that weighs each unit by how far it is from forgotten (saturation) and by its importance.

    Formula: ``L = mean over units of p^beta1 * (1 - p)^beta2 * log p + retain_weight * R``, the weight without a gradient
    (`expunge.token_losses.satimp_weights`).

    Source: Yang et al., "Exploring Criteria of Loss Reweighting to Enhance LLM Unlearning", arXiv 2505.11953; 5 and 0.1 are the
    authors' recommendation.

    Ours: none.

    Failure signs: with these powers units of low probability hardly move, so that uncertain records are left as they are.

    Example:
        >>> SatImp(beta1=4.0).beta2
        0.1
    """

    beta1: NonNegative = option(5.0, "power of a label's probability")
    beta2: NonNegative = option(0.1, "power of the rest")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def forgetting(self, step: Step) -> Tensor:
        from expunge.token_losses import satimp_weights

        logp = step.forget.logp()
        return (satimp_weights(logp, self.beta1, self.beta2) * logp).sum() / max(1, len(logp))
