"""What holds the retained records while others are forgotten: one choice for all methods that have it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["RETAIN", "Retain", "retained"]

Retain = Literal["none", "nll", "kl"]
RETAIN = "what holds the retained records: nll, their own labels; kl, the original's whole distributions; none"
"""The help of a method's field `retain`."""


def retained(step: Step, kind: Retain, weight: float) -> dict[str, Tensor]:
    """The part of a loss that holds the retained units, weighted; empty for ``none``.

    ``nll``: mean negative log-probability of their labels, in nats. ``kl``: mean KL(original || model), in nats.
    """
    if kind == "none":
        return {}
    return {"retain": weight * (step.retain.cross_entropy() if kind == "nll" else step.retain.kl())}
