"""SalUn: random labels, on the weights that matter to the forget records alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import Method, MethodContext, State
from expunge.options import NonNegative, Positive, PositiveInt, Probability, option

if TYPE_CHECKING:
    from collections.abc import Mapping

    from torch import Tensor

    from expunge.step import Step

__all__ = ["SalUn"]


def saliency(gradient: Mapping[str, Tensor], share: float) -> dict[str, Tensor]:
    """Name -> boolean mask of the `share` of the weights with any gradient whose gradient is largest in size.

    Ties with the last of them are in as well.
    """
    import torch

    sizes = torch.cat([part.abs().flatten() for part in gradient.values()])
    sizes = sizes[sizes > 0]
    if not len(sizes):
        return {name: torch.zeros_like(part, dtype=torch.bool) for name, part in gradient.items()}
    kept = max(1, round(share * len(sizes)))
    threshold = sizes.kthvalue(len(sizes) - kept + 1).values
    return {name: (part.abs() >= threshold) & (part != 0) for name, part in gradient.items()}


@dataclass(frozen=True, kw_only=True)
class SalUn(Method):
    """Relabel at random, and let only the weights move that the forget records' loss hangs on.

    Formula: ``m = 1[ |grad CE(forget)| >= threshold ]`` at the original's weights, the threshold such that `share` of
    the weights with any gradient are in; then ``L = forget_weight * CE(forget, y') + alpha * CE(retain)`` with y' as in
    `random-labels`, each gradient multiplied by m.

    Source: Fan, Liu, Zhang, Wong, Wei, Liu: "SalUn", ICLR 2024, arXiv 2310.12508; the threshold is the
    median there, hence a share of 0.5.

    Ours: the gradient is taken at the original's weights over all forget records in eval mode (the authors' script takes
    a step after each batch while it adds up); y' is never the true class and stays the same for a record (their code
    draws anew, from all classes); weights without gradient are not counted: half of a small encoder's are
    embeddings of words that no forget record has, and the median over all weights would let every other one
    move. The mask holds the gradient: with `training.weight_decay` above 0 the other
    weights would shrink all the same.

    Failure signs: as for `random-labels`. Where the share hardly matters, the mask does nothing.

    Example:
        >>> import torch
        >>> saliency({"w": torch.tensor([3.0, -4.0, 1.0, 0.0])}, share=0.5)["w"].tolist()
        [True, True, False, False]
    """

    share: Probability = option(0.5, "share of the weights with any gradient that may move")
    forget_weight: NonNegative = option(1.0, "weight of cross-entropy on the wrong labels")
    alpha: Positive = option(1.0, "weight of cross-entropy on retained records")
    retain_ratio: PositiveInt = option(2, "retained records drawn for each forget record")

    units: ClassVar[frozenset[str]] = frozenset({"classes"})
    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits", "retain.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def prepare(self, context: MethodContext) -> State:
        import torch

        masks = {f"mask/{name}": mask for name, mask in saliency(context.gradient(), self.share).items()}
        return {"labels": torch.from_numpy(context.other_classes("random labels")), **masks}

    def loss(self, step: Step) -> dict[str, Tensor]:
        wrong = step.forget.of_units(step.state["labels"])
        return {
            "retain": self.alpha * step.retain.cross_entropy(),
            "forget": self.forget_weight * step.forget.cross_entropy(wrong),
        }
