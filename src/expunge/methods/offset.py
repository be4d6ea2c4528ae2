"""Offset unlearning: the model stays as it is, and a small pair of models corrects what it says."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from expunge.methods.base import MethodContext
from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.preference import reanswering
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step
    from expunge.tasks.base import Encoded

__all__ = ["Offset"]


@dataclass(frozen=True, kw_only=True)
class Offset(TwoParts):
    """Train a small copy beside the frozen model until their sum forgets: for weights that cannot be changed.

    Formula: ``l = l_M + alpha (l_tuned - l_small)``; M and the small model are frozen, the trained copy starts as the small
    model, so that the offset starts at 0. The loss is of softmax(l), and its gradient reaches the trained copy alone:
    ``L = forget_weight * F + retain_weight * R``, with F by `objective` (ascent: -CE(forget); npo: negative preference
    optimisation against the ensemble at its start, `expunge.token_losses.npo`; relabel: CE of another answer or class) and R
    by `retain`. The paper's four: gradient ascent (ascent, none), gradient difference (ascent, nll), KL minimisation (ascent,
    kl), data relabelling (relabel, nll).

    Source: Huang et al.: "Offset Unlearning for Large Language Models" (delta-Unlearning), TMLR 2025, arXiv 2404.11045. Its
    code is not public; alpha, model pair and learning rates could not be read, so what is set here is ours.

    Ours: classifiers and taggers too; the small model may be a copy of M's own first layers, with its norm and head, where the
    paper takes a smaller model of the same family; NPO; M and the small model run once on each record, in eval mode, and their
    last states are kept; the trained copy runs without dropout, so that the offset is 0 at the first step.

    Failure signs: M still holds all that it learnt, and whoever has M alone can read it: this is for a model behind an
    interface that adds the offset, or one that nobody can change. Ascent has no lower bound, and a small model breaks
    sooner than a large one: the offset spills over to what should stay. Answers cost three models in place of one.

    Example:
        >>> Offset(objective="npo", retain="kl", layers=2).alpha
        1.0
    """

    objective: Literal["ascent", "npo", "relabel"] = option(
        "ascent",
        "what forget records get: ascent on their loss; npo, which slows down; relabel, other answers or classes",
    )
    forget_weight: NonNegative = option(1.0, "weight of that")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")
    beta: Positive = option(0.1, "npo's inverse temperature")
    answers: tuple[str, ...] = option(
        (
            "I don't know.",
            "I'm not sure about that.",
            "I have no information about this.",
            "That is not something I know.",
        ),
        "relabel: answers of a language model, one drawn for each record; a classifier's records get another class",
    )
    alpha: Positive = option(1.0, "weight of the offset")
    small: str | None = option(
        None,
        "folder or hub id of the small model, of the same vocabulary or classes; left out: the model's first layers",
    )
    layers: PositiveInt | None = option(None, "how many of them; left out: a fifth")
    copy_large: bool = option(False, "put a copy of the model into the folder; else the folder says where it is")
    dropout: bool = option(False, "whether the trained copy drops out during steps")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    @property
    def reads(self) -> frozenset[str]:
        more = {"npo": {"forget.logits", "forget.reference_logp"}, "relabel": {"alternate.logits"}}
        return (super().reads - self.needs) | more.get(self.objective, {"forget.logits"})

    def equipped(self, model: Any, task: Any, *, trust_remote_code: bool = False) -> Any:
        from expunge.offset.ensemble import with_offset

        return with_offset(
            model, alpha=self.alpha, small=self.small, layers=self.layers, copied=self.copy_large,
            auto_class=task.auto_class, trust_remote_code=trust_remote_code,
        )  # fmt: skip

    def alternates(self, context: MethodContext) -> Encoded | None:
        if self.objective != "relabel":
            return None
        if context.tokens:
            drawn = [self.answers[int(u * len(self.answers))] for u in context.uniform_by_record("answer")]
            return reanswering(context, "offset")(drawn)
        return context.forget.relabelled(context.other_classes("random labels").tolist())

    def forgetting(self, step: Step) -> Tensor:
        from expunge.token_losses import npo

        forget = step.forget
        if self.objective == "relabel":
            assert step.alternate is not None
            part = step.alternate.cross_entropy()
        elif self.objective == "ascent":
            part = -forget.cross_entropy()
        else:
            part = npo(forget.logp(), forget.reference_logp, forget.record_index, self.beta)
        return self.forget_weight * part
