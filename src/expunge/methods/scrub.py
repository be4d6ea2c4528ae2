"""SCRUB: a student that leaves its teacher on forget records and stays with it on retained ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from expunge.methods.base import Group, Method, MethodContext, State
from expunge.options import NonNegative, Positive, PositiveInt, option

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["Scrub"]


@dataclass(frozen=True, kw_only=True)
class Scrub(Method):
    """Alternate passes that move away from the original on forget records and back to it on retained ones.

    Formula: with d = T^2 KL(teacher || model), both at temperature T, and the original, frozen, as the teacher::

        max steps:  L = -d(forget)
        min steps:  L = alpha * d(retain) + gamma * CE(retain)

    A max pass and `min_passes` min passes follow each other; after `max_passes` max passes only min passes are left. A
    pass is as many steps as it takes to see every forget record once.

    Source: Kurmanji, Triantafillou, Hayes, Triantafillou: "Towards Unbounded Machine Unlearning", NeurIPS 2023,
    arXiv 2302.09880, the alternating form of its objective. Defaults (alpha, gamma, T, max passes) are those of the
    authors' notebook for small data sets (meghdadk/SCRUB).

    Ours: a min pass there sees all retained records, here `retain_ratio` times as many as there are forget records
    (raise `min_passes` for more). The rewinding of SCRUB+R is left to the stop rule, which keeps the best step.

    Failure signs: at the first step the student is the teacher, so the first max pass moves by dropout alone: a model
    without dropout stands still until the first min pass. Ended within a max pass, retained accuracy is low.

    Example:
        >>> [sorted(Scrub().groups(number, steps_per_pass=1)) for number in range(2)]
        [['forget'], ['retain']]
    """

    alpha: NonNegative = option(0.5, "weight of the divergence from the original on retained records")
    gamma: NonNegative = option(1.0, "weight of cross-entropy on retained records")
    temperature: Positive = option(2.0, "divides all logits of the divergence, which is scaled by its square")
    max_passes: PositiveInt = option(3, "passes that move away on forget records")
    min_passes: PositiveInt = option(1, "passes over retained records after each of them")
    retain_ratio: PositiveInt = option(4, "retained records in a min step, as a multiple of the batch size")

    needs: ClassVar[frozenset[str]] = frozenset(
        {"forget.logits", "forget.reference", "retain.logits", "retain.reference"}
    )

    def prepare(self, context: MethodContext) -> State:
        import torch

        return {"steps_per_pass": torch.tensor(context.steps_per_pass)}

    def groups(self, number: int, steps_per_pass: int) -> frozenset[Group]:
        rounds, within = divmod(number // steps_per_pass, 1 + self.min_passes)
        return frozenset({"forget"} if within == 0 and rounds < self.max_passes else {"retain"})

    def loss(self, step: Step) -> dict[str, Tensor]:
        square = self.temperature**2
        # Both parts are there at every step, so that a run's history has the same columns throughout.
        if "forget" in self.groups(step.number, int(step.state["steps_per_pass"])):
            away = -square * step.forget.kl_from(step.forget.reference, self.temperature)
            return {"retain": away.new_zeros(()), "forget": away}
        near = self.alpha * square * step.retain.kl_from(step.retain.reference, self.temperature)
        kept = near + self.gamma * step.retain.cross_entropy()
        return {"retain": kept, "forget": kept.new_zeros(())}
