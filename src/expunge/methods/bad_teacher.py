"""Bad teacher: imitate an untrained model on forget records, the original on retained ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import Method, MethodContext, State
from expunge.options import NonNegative, Positive, PositiveInt, option

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["BadTeacher"]


@dataclass(frozen=True, kw_only=True)
class BadTeacher(Method):
    """Learn from two teachers: one that knows nothing, for what is to be forgotten, and the original for the rest.

    Formula: ``L = forget_weight * KL(T_d || model)(forget) + KL(T_s || model)(retain)``, both at the temperature; T_d
    is a model of the original's architecture with random weights, T_s the original.

    Source: Chundawat, Tarun, Mandal, Kankanhalli: "Can Bad Teaching Induce Forgetting?", AAAI 2023, arXiv 2205.08096;
    the direction of the KL, temperature 1 and the absence of a factor T^2 are those of the authors' code
    (vikram2000b/bad-teaching-unlearning).

    Ours: forget and retained records are averaged apart, where the authors average over one mixed batch; T_d's outputs
    are taken once, before training.

    Failure signs: an untrained model is near uniform, so confidence on forget records falls below that on records
    never seen: over-forgotten, with a membership AUC below 0.5.

    Example:
        >>> BadTeacher().temperature
        1.0
    """

    temperature: Positive = option(1.0, "divides all logits")
    forget_weight: NonNegative = option(1.0, "weight of the untrained teacher's term")
    retain_ratio: PositiveInt = option(2, "retained records drawn for each forget record")

    units: ClassVar[frozenset[str]] = frozenset({"classes"})
    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits", "retain.logits", "retain.reference"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def prepare(self, context: MethodContext) -> State:
        # A seed of its own: that of the run may be the one that the original's head was drawn from.
        untrained = context.fresh(context.seed + 1_000_003)
        return {"teacher": context.logits(untrained, context.forget)}

    def loss(self, step: Step) -> dict[str, Tensor]:
        teacher = step.forget.of_units(step.state["teacher"])
        return {
            "retain": step.retain.kl_from(step.retain.reference, self.temperature),
            "forget": self.forget_weight * step.forget.kl_from(teacher, self.temperature),
        }
