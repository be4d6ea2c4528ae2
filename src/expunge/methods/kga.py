"""KGA: keep the gap of knowledge that a model has toward records it never saw."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from expunge.errors import Problem, RunError, UsageError
from expunge.methods.base import Method, MethodContext, State
from expunge.options import NonNegative, PositiveInt, option

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["KGA"]


@dataclass(frozen=True, kw_only=True)
class KGA(Method):
    """Make the model as strange to the forget records as it is to records never seen.

    Formula: with A_D the original, A the model, A_f a model trained on the forget records alone and A_n one trained on
    as many unseen records alone (`retrain.base` and `retrain.recipe` say how)::

        gap = KL(A_D || A_n)(unseen)
        L   = | KL(A || A_f)(forget) - gap | + alpha * KL(A_D || A)(retain)

    Source: Wang, Chen, Yuan, Zeng, Wong, Yin: "KGA: A General Machine Unlearning Framework Based on Knowledge Gap
    Alignment", ACL 2023, arXiv 2305.06535; code Lingzhi-WANG/KGAUnlearn.

    Ours: the unseen records are calibration records, where the authors hold some training records out for it; the gap
    is one mean over all of them, theirs over a batch at a time; on forget records the KL has the direction of the gap's,
    so that the two can be compared (their code turns it round there); on retained records it has the direction of
    their code. alpha: their example passes 0.1, and their code weighs the retained term by 1 - 0.1. They take ten
    retained batches a forget batch, we `retain_ratio`.

    Failure signs: where forget records are few, A_f and A_n learn next to nothing from them, the gap is the original's
    own confidence, and the alignment pulls nowhere. Training both models costs passes, which are counted.

    Example:
        >>> KGA(alpha=0.5).needs_base
        True
    """

    alpha: NonNegative = option(0.9, "weight of staying with the original on retained records")
    retain_ratio: PositiveInt = option(4, "retained records drawn for each forget record")

    units: ClassVar[frozenset[str]] = frozenset({"classes"})
    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits", "retain.logits", "retain.reference"})
    needs_base: ClassVar[bool] = True

    def prepare(self, context: MethodContext) -> State:
        from expunge import losses

        if context.fit is None:
            raise RunError("kga: no base model and recipe; give retrain.base and retrain.recipe.")
        if not len(context.unseen):
            way_out = "Give held-out records (data.held_out): half of them are calibration records."
            raise UsageError(Problem("method", "kga needs records that were never trained on", way_out))
        forget_model = context.fit(context.forget, context.seed)
        unseen_model = context.fit(context.unseen, context.seed)
        original, other = (context.logits(model, context.unseen) for model in (context.model, unseen_model))
        return {"gap": losses.kl(original, other), "teacher": context.logits(forget_model, context.forget)}

    def loss(self, step: Step) -> dict[str, Tensor]:
        from expunge import losses

        logits = step.forget.logits
        teacher = step.forget.of_units(step.state["teacher"]).to(logits.dtype)
        gap = losses.kl(logits, teacher) - step.state["gap"].to(logits.device)
        return {"retain": self.alpha * step.retain.kl_from(step.retain.reference), "forget": gap.abs()}
