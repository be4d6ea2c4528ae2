"""Cross-entropy unlearning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.options import NonNegative, NonNegativeInt, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["CEU"]


@dataclass(frozen=True, kw_only=True)
class CEU(TwoParts):
    """Toward the model's own distribution with the forget units' labels taken out.

    Formula: ``L = mean over units of CE(softmax(l with l_y = -inf), softmax(l)) + retain_weight * R``, the target without a
    gradient (`expunge.token_losses.ceu`). Its gradient is that of the unlikelihood loss ``-log(1 - p_y)``.

    Source: "CE-U: Cross Entropy Unlearning", arXiv 2503.01224. Ours: it takes all units of an answer; the paper leaves out the
    first of them, which seldom tell anything (`skip`).

    Ours: `retain`; the paper trains on the forget records alone.

    Failure signs: the gradient does not vanish until the label is impossible, so without a stop rule it over-forgets.

    Example:
        >>> CEU(skip=1).skip
        1
    """

    skip: NonNegativeInt = option(0, "first units of each record that are left alone")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def forgetting(self, step: Step) -> Tensor:
        from expunge.token_losses import ceu

        forget = step.forget
        counted = (forget.place_in_record >= self.skip).float()

        def one(logits: Tensor, labels: Tensor, counted: Tensor) -> Tensor:
            return ceu(logits, labels) * counted.to(logits.dtype)

        return forget.total(one, forget.labels, counted) / counted.sum().clamp(min=1)
