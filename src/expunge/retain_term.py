"""What holds the retained records while others are forgotten: one choice for all methods that have it."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from expunge.methods.base import Method

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["RETAIN", "Retain", "TwoParts", "retained"]

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


@dataclass(frozen=True, kw_only=True)
class TwoParts(Method):
    """A method whose loss has two parts that never meet: one of the records to forget, one that holds the retained ones.

    It has a field `retain`, and `retain_weight` where that can be weighted. The gradient of one part can be taken, and its
    activations let go, before the records of the other run; with language models the trainer does so (`expunge.in_turns`).
    """

    if TYPE_CHECKING:
        retain: Retain

    @abstractmethod
    def forgetting(self, step: Step) -> Tensor:
        """The part ``forget``, a scalar in nats. It reads nothing of the retained records."""

    def retaining(self, step: Step) -> dict[str, Tensor]:
        """The part ``retain``, a scalar in nats, or nothing. It reads nothing of the records to forget."""
        return retained(step, self.retain, getattr(self, "retain_weight", 1.0))

    def loss(self, step: Step) -> dict[str, Tensor]:
        return {**self.retaining(step), "forget": self.forgetting(step)}
