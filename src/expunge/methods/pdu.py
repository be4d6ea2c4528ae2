"""Primal-dual unlearning."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import MethodContext, State
from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, TwoParts, retained

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["PDU"]


_LEAST = 1e-3
"""Least multiplier: at 0 nothing would tell how large the retained loss is."""


@dataclass(frozen=True, kw_only=True)
class PDU(TwoParts):
    """Flatten the outputs of forget units while the retained loss stays under a limit, its weight found by dual ascent.

    Formula: ``L = mean over units of (max_v l_v - mean_v l_v)^2 + lambda * (R - limit)``, and after every step
    ``lambda <- max(0, lambda + rate * (R - limit))`` (`expunge.token_losses.flatness`, `dual_step`).

    Source: Entesari et al., "Constrained Entropic Unlearning: A Primal-Dual Framework for Large Language Models",
    arXiv 2506.05314.

    Ours: flatness is taken where a unit is read, which is the position that predicts it; the limit on R is the retained loss
    of the first step plus `slack`, since what a model's loss is on its own data differs from model to model.

    Failure signs: lambda grows without end: the limit cannot be held at this learning rate.

    Example:
        >>> PDU(slack=0.1).rate
        0.1
    """

    slack: NonNegative = option(0.05, "by how much the retained loss may rise, in nats")
    rate: Positive = option(0.1, "rate of the dual ascent")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "elsewhere"

    def prepare(self, context: MethodContext) -> State:
        import torch

        del context
        return {"multiplier": torch.tensor(max(_LEAST, self.retain_weight)), "limit": torch.tensor(float("inf"))}

    def forgetting(self, step: Step) -> Tensor:
        from expunge.token_losses import flatness

        return step.forget.total(flatness) / max(1, len(step.forget.labels))

    def retaining(self, step: Step) -> dict[str, Tensor]:
        held = retained(step, self.retain, 1.0)
        return {part: step.state["multiplier"].to(loss.device) * loss for part, loss in held.items()}

    def after_step(self, state: State, parts: Mapping[str, float]) -> State:
        import torch

        from expunge.token_losses import dual_step

        multiplier = state["multiplier"]
        if "retain" not in parts:
            return state
        loss = parts["retain"] / float(multiplier)
        known = float(state["limit"])
        limit = loss + self.slack if known == float("inf") else known
        violation = torch.tensor(loss - limit)
        following = dual_step(multiplier, violation, self.rate).clamp(min=_LEAST)
        return {"multiplier": following, "limit": torch.tensor(limit)}
