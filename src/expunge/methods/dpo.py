"""Direct preference optimisation towards "I don't know"."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import MethodContext
from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.preference import PREFERENCE, REFUSALS, preferred, reanswering
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step
    from expunge.tasks.base import Encoded

__all__ = ["DPO"]


@dataclass(frozen=True, kw_only=True)
class DPO(TwoParts):
    """Prefer an answer that says nothing to each forget record's own.

    Formula: ``L = -2/beta * mean over records of log sigmoid(beta * (log pi(a|x)/pi_ref(a|x) - log pi(y|x)/pi_ref(y|x))) +
    retain_weight * R``, with a the answer preferred (`expunge.token_losses.dpo`).

    Source: Rafailov et al., arXiv 2305.18290, Eq. 7; as preference optimisation for forgetting ("IdkDPO") in TOFU, Maini et
    al., arXiv 2401.06121. Factor 2/beta as in the code of NPO's authors, so that NPO is this without the answer preferred.

    Ours: a handful of refusals of our own words; each record gets one by its id and the run's seed.

    Failure signs: the model refuses questions that it should answer, which gives away that something was taken out: a model
    that never saw a record guesses.

    Example:
        >>> DPO(answers=("No idea.",)).beta
        0.1
    """

    beta: Positive = option(0.1, "inverse temperature")
    answers: tuple[str, ...] = option(REFUSALS, "answers that are preferred, one drawn for each record")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = PREFERENCE
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "elsewhere"
    units: ClassVar[frozenset[str]] = frozenset({"tokens"})

    def alternates(self, context: MethodContext) -> Encoded | None:
        drawn = [self.answers[int(u * len(self.answers))] for u in context.uniform_by_record("answer")]
        return reanswering(context, "dpo")(drawn)

    def forgetting(self, step: Step) -> Tensor:
        return preferred(step, self.beta)
