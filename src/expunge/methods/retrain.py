"""Retraining from the base model: exact, dear, and what every other method is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from expunge.errors import RunError
from expunge.methods.base import Procedure, ProcedureContext
from expunge.options import Seed, option

__all__ = ["Retrain"]


@dataclass(frozen=True, kw_only=True)
class Retrain(Procedure):
    """Train a new model from the base on the retained records alone.

    Formula: the recipe's own loss (cross-entropy) on retained records; needs `retrain.base` and `retrain.recipe`.

    Source: the gold standard of exact unlearning (Bourtoule et al., arXiv 1912.03817, section III).

    Ours: none. `seed` should differ from the seeds of retrained models it is compared with.

    Failure signs: none of its own; its cost is the reason for every other method.

    Example:
        >>> Retrain(seed=7).seed
        7
    """

    needs_base: ClassVar[bool] = True

    seed: Seed = option(1000, "seed of head initialisation, order and dropout")

    def run(self, context: ProcedureContext) -> Any:
        if context.fit is None:
            raise RunError("retrain: no base model and recipe; give retrain.base and retrain.recipe.")
        return context.fit(context.retain, self.seed)
