"""Fine-tune on retained records only: the naive baseline."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import Method
from expunge.options import PositiveInt, option

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["FineTune"]


@dataclass(frozen=True, kw_only=True)
class FineTune(Method):
    """Go on training without the forget records and hope that they fade.

    Formula: ``L = CE(retain)``.

    Source: the "fine-tuning" or "naive unlearning" baseline of most papers, e.g. Golatkar et al., CVPR 2020,
    arXiv 1911.04933.

    Ours: none.

    Failure signs: forget accuracy and membership AUC stay where they were.

    Example:
        >>> sorted(FineTune().needs)
        ['retain.logits']
    """

    retain_ratio: PositiveInt = option(2, "retained records in a step for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"retain.logits"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "nowhere"

    def loss(self, step: Step) -> dict[str, Tensor]:
        return {"retain": step.retain.cross_entropy()}
