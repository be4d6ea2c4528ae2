"""Simple negative preference optimisation: without a reference."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["SimNPO"]


@dataclass(frozen=True, kw_only=True)
class SimNPO(TwoParts):
    """Negative preference optimisation of the mean log-probability of a record's units, without the original as a reference.

    Formula: ``L = -2/beta * mean over records of log sigmoid(beta * (-1/|y| log pi(y|x) - delta)) + retain_weight * R``
    (`expunge.token_losses.simnpo`).

    Source: Fan et al., "Simplicity Prevails: Rethinking Negative Preference Optimization for LLM Unlearning", arXiv 2410.07163.
    beta 4.5 is of the range in the authors' TOFU scripts.

    Ours: none. The margin stands inside beta, as in the authors' code (the paper's gamma is beta * delta).

    Failure signs: without a reference it does not know when a record was forgotten: short answers go first and too far.

    Example:
        >>> SimNPO(delta=0.5).delta
        0.5
    """

    beta: Positive = option(4.5, "inverse temperature")
    delta: NonNegative = option(0.0, "margin, in nats a unit")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def forgetting(self, step: Step) -> Tensor:
        from expunge.token_losses import simnpo

        return simnpo(step.forget.logp(), step.forget.record_index, self.beta, self.delta)
