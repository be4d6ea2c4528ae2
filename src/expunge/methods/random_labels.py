"""Random labels: teach the forget records wrong classes (amnesiac unlearning by relabelling)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import Method, MethodContext, State
from expunge.options import NonNegative, PositiveInt, option

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["RandomLabels"]


@dataclass(frozen=True, kw_only=True)
class RandomLabels(Method):
    """Fine-tune with every forget unit relabelled at random, and never rightly.

    Formula: ``L = forget_weight * CE(forget, y') + CE(retain)``, with y' drawn evenly from the other classes, once.

    Source: Graves, Nagisetty, Ganesh: "Amnesiac Machine Learning", AAAI 2021, arXiv 2010.10981, the method it calls
    "Unlearning" (later papers call this one "amnesiac"; the paper's own "Amnesiac Unlearning", which takes back stored
    updates, needs a log of the original training).

    Ours: forget and retained records are averaged apart, where the paper trains on one mixed set; y' hangs on the seed
    and the record's id, not on the order of records.

    Failure signs: forget accuracy far below calibration accuracy: the model learns the wrong labels by heart, which
    gives the records away as surely as the right ones. Stop early or lower the weight.

    Example:
        >>> RandomLabels(forget_weight=0.5).retain_ratio
        2
    """

    forget_weight: NonNegative = option(1.0, "weight of cross-entropy on the wrong labels")
    retain_ratio: PositiveInt = option(2, "retained records drawn for each forget record")

    units: ClassVar[frozenset[str]] = frozenset({"classes"})
    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits", "retain.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def prepare(self, context: MethodContext) -> State:
        import torch

        return {"labels": torch.from_numpy(context.other_classes("random labels"))}

    def loss(self, step: Step) -> dict[str, Tensor]:
        wrong = step.forget.of_units(step.state["labels"])
        return {
            "retain": step.retain.cross_entropy(),
            "forget": self.forget_weight * step.forget.cross_entropy(wrong),
        }
