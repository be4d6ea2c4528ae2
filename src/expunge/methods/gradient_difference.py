"""Gradient difference: ascend on the forget records while descending on retained ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.options import NonNegative, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["GradientDifference"]


@dataclass(frozen=True, kw_only=True)
class GradientDifference(TwoParts):
    """Raise the loss of forget records, lower that of retained ones.

    Formula: ``L = -forget_weight * CE(forget) + CE(retain)``; with ``retain="kl"`` KL(original || model) on retained units in
    place of the latter.

    Source: Liu et al., "Continual Learning and Private Unlearning", CoLLAs 2022, arXiv 2203.12817; known as GradDiff in
    TOFU (arXiv 2401.06121). NegGrad+ (Kurmanji et al., arXiv 2302.09880) is the same loss with weights that sum to
    one, ``beta * CE(retain) - (1 - beta) * CE(forget)``: divide by beta, that is `forget_weight` = (1 - beta) / beta.

    With ``kl`` it is TOFU's "KL minimisation", known as GA+KL; without a retain term plain gradient ascent.

    Ours: none. The loss has no lower bound: without a stop rule it goes on until the model is destroyed.

    Failure signs: the forget part grows without end while evaluation accuracy falls.

    Example:
        >>> sorted(GradientDifference(forget_weight=0.5).reads)
        ['forget.logits', 'retain.logits']
    """

    forget_weight: NonNegative = option(1.0, "weight of the ascent on forget records")
    retain: Retain = option("nll", RETAIN)
    retain_ratio: PositiveInt = option(2, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def forgetting(self, step: Step) -> Tensor:
        return -self.forget_weight * step.forget.cross_entropy()
