"""Unlearning by self-distillation with lowered logits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["UNDIAL"]


@dataclass(frozen=True, kw_only=True)
class UNDIAL(TwoParts):
    """Distil the original into itself with the logits of the forget units' own labels lowered: a goal that stands still.

    Formula: ``L = mean over units of CE(softmax(l_ref - strength * onehot(y)), softmax(l)) + retain_weight * R``, with l_ref
    the original's logits (`expunge.token_losses.undial`).

    Source: Dong et al., "UNDIAL: Self-Distillation with Adjusted Logits for Robust Unlearning in Large Language Models",
    arXiv 2402.10052; strength 10 is the authors' default.

    Ours: the original's last hidden states are kept and give its logits exactly, a part of the units at a time; the mean is
    over the units alone (some code averages over prompt and padding too).

    Failure signs: a strong penalty leaves the label far less likely than a model that never saw the record would.

    Example:
        >>> UNDIAL(strength=3.0).retain
        'nll'
    """

    strength: Positive = option(10.0, "by how much the label's logit is lowered")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits", "forget.reference"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "elsewhere"

    def forgetting(self, step: Step) -> Tensor:
        from expunge.token_losses import undial

        def one(logits: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
            return undial(logits, reference, labels, self.strength)

        forget = step.forget
        return forget.total_with_reference(one, forget.labels) / max(1, len(forget.labels))
