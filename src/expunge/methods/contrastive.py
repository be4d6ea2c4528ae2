"""Contrastive Unlearning (Lee et al.)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import Method, MethodContext, State
from expunge.options import NonNegative, Positive, PositiveInt, option

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["ContrastiveUnlearning"]


@dataclass(frozen=True, kw_only=True)
class ContrastiveUnlearning(Method):
    """Contrast each forget record with retained ones only: away from its class, toward the others.

    Formula: ``L = lambda_UL * L_UL + lambda_CE * CE(retain)`` with L_UL as in `expunge.losses.contrastive_unlearning`
    (Eq. 5 for records, Eq. 6 for whole classes).

    Source: Lee, Zhang, Yang, Lou, Xiong: "Contrastive Unlearning: A Contrastive Approach to Machine Unlearning",
    arXiv 2401.10458, IJCAI 2025. Defaults are those of the authors' code (tau 0.7, weights 3 and 1, omega 4).

    Ours: omega retain batches share one forward with the forget batch instead of omega passes over it; partners are
    fresh and class-aware at every step (the authors' code always reads the same first batches); finite where a class
    is absent; embeddings are L2-normalised inputs of the last linear layer, without a projection head.
    Averaged over classes for taggers (`average`). For causal language models as in `deepcut`: tokens are classes, rows of the
    output layer partners, anchors weigh by how much they tell.

    Failure signs: with tau 0.7 and few steps forgetting barely moves; raise the learning rate or the weight.

    Example:
        >>> ContrastiveUnlearning(form="class").temperature
        0.7
    """

    form: Literal["sample", "class"] = option("sample", "erase single records, or a whole class")
    temperature: Positive = option(0.7, "tau of the contrastive term")
    forget_weight: NonNegative = option(3.0, "lambda_UL, weight of the contrastive term")
    retain_weight: NonNegative = option(1.0, "lambda_CE, weight of cross-entropy on retained records")
    retain_ratio: PositiveInt = option(4, "omega: retained partners drawn for each forget record")
    average: Literal["auto", "units", "classes"] = option(
        "auto", "mean of the term over anchors, or over classes of each one's mean; auto: classes for taggers"
    )

    needs: ClassVar[frozenset[str]] = frozenset({"forget.hidden", "retain.hidden", "retain.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def prepare(self, context: MethodContext) -> State:
        from expunge.information import information

        return {"information": information(context)} if context.tokens else {}

    def loss(self, step: Step) -> dict[str, Tensor]:
        from expunge import losses

        partners, labels = step.retain.partners
        same = step.forget.labels[:, None] == labels[None, :]
        similarity = losses.cosine(step.forget.hidden, partners)
        terms, counts = losses.contrastive_unlearning(
            similarity, same, ~same, self.temperature, class_form=self.form == "class"
        )
        classes = step.forget.averaged_over(self.average)
        weights = step.forget.of_units(step.state["information"]) if "information" in step.state else None
        return {
            "retain": self.retain_weight * step.retain.cross_entropy(),
            "forget": self.forget_weight * losses.mean_over(terms, counts, classes, weights),
        }
