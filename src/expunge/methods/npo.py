"""Negative preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["NPO"]


@dataclass(frozen=True, kw_only=True)
class NPO(TwoParts):
    """Treat the forget records as answers that are not preferred: ascent that slows down where a record is already forgotten.

    Formula: ``L = 2/beta * mean over records of log(1 + (pi(y|x) / pi_ref(y|x))^beta) + retain_weight * R``, with pi(y|x) the
    product of a record's unit probabilities, pi_ref the original's (`expunge.token_losses.npo`), and R as `retain` says.

    Source: Zhang, Lin, Bai, Mei: "Negative Preference Optimization: From Catastrophic Collapse to Effective Unlearning",
    arXiv 2404.05868, Eq. 3. With a retain term it is the paper's NPO+RT (``nll``) or NPO+KL (``kl``).

    Ours: the original's log-probabilities are taken once, before the first step; there is no second model.

    Failure signs: with a small beta it is gradient ascent, and outputs break down; with a large one it hardly moves.

    Example:
        >>> NPO(beta=0.5, retain="kl").beta
        0.5
    """

    beta: Positive = option(0.1, "inverse temperature: the larger, the sooner a record counts as forgotten")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits", "forget.reference_logp"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def forgetting(self, step: Step) -> Tensor:
        from expunge.token_losses import npo

        forget = step.forget
        return npo(forget.logp(), forget.reference_logp, forget.record_index, self.beta)
