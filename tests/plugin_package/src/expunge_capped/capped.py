"""Capped ascent: raise the loss of forget units up to a ceiling and no further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import Method
from expunge.options import Positive, PositiveInt, option

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["Capped"]


@dataclass(frozen=True, kw_only=True)
class Capped(Method):
    """Raise the loss of each forget unit up to a ceiling, and hold retained ones.

    Formula: ``L = CE(retain) + mean over forget units u of max(0, ceiling + log p(y_u))``.

    Source: none; a hinge on the ascent term of gradient difference (Liu et al., arXiv 2203.12817), for docs/plug-in.md.

    Ours: the hinge. The same ceiling for every unit is a guess: records never seen differ in their losses. For classes alone:
    of a vocabulary most tokens are dearer than any one ceiling.

    Failure signs: the forget part is 0 and forget records are still told apart: raise `ceiling`; it never comes down: more
    epochs.

    Example:
        >>> sorted(Capped(ceiling=1.0).needs)
        ['forget.logits', 'retain.logits']
    """

    ceiling: Positive = option(2.0, "loss up to which a forget unit is pushed, in nats")
    retain_ratio: PositiveInt = option(2, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits", "retain.logits"})
    units: ClassVar[frozenset[str]] = frozenset({"classes"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "away"

    def loss(self, step: Step) -> dict[str, Tensor]:
        below = (self.ceiling + step.forget.logp()).clamp(min=0)
        return {"retain": step.retain.cross_entropy(), "forget": below.sum() / max(1, len(below))}
