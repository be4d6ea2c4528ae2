"""A method whose loss has two parts that never meet: one of the records to forget, one that holds the retained ones."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import TYPE_CHECKING

from expunge.methods.base import Method
from expunge.retain_term import Retain, retained

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["TwoParts"]


@dataclass(frozen=True, kw_only=True)
class TwoParts(Method):
    """A method with a field `retain`, and `retain_weight` where it can be weighted.

    The gradient of one part can be taken, and its activations let go, before the records of the other run; with language
    models the trainer does so (`expunge.in_turns`).
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
