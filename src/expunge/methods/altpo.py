"""Alternate preference optimisation."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

from expunge.methods.base import MethodContext
from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.preference import PREFERENCE, preferred, reanswering
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step
    from expunge.tasks.base import Encoded

__all__ = ["AltPO"]


@dataclass(frozen=True, kw_only=True)
class AltPO(TwoParts):
    """Prefer other answers of the model's own making to each forget record's own: plausible ones, not refusals.

    Formula: that of `dpo`, with answers that the original writes to the same prompt when it is told to invent another one.

    Source: Mekala et al., "Alternate Preference Optimization for Unlearning Factual Knowledge in Large Language Models",
    arXiv 2409.13474.

    Ours: answers are drawn from the original's own distribution at `temperature` and its prompt alone (the paper asks an
    instruction-tuned model for alternatives); one that repeats the record's own is drawn again, three times at most.

    Failure signs: a model that knows its records by heart writes them again: raise the temperature.

    Example:
        >>> AltPO().temperature
        1.5
    """

    beta: Positive = option(0.1, "inverse temperature")
    temperature: Positive = option(1.5, "of the draws that make alternate answers")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = PREFERENCE
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "elsewhere"
    units: ClassVar[frozenset[str]] = frozenset({"tokens"})

    def alternates(self, context: MethodContext) -> Encoded | None:
        reanswered = reanswering(context, "altpo")
        assert context.written is not None  # comes with the other
        return reanswered(context.written(context.seed, self.temperature))

    def forgetting(self, step: Step) -> Tensor:
        return preferred(step, self.beta)
