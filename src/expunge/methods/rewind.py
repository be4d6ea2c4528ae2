"""Rewind: move the weights back toward the base, then train on retained records alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from expunge.errors import RunError
from expunge.methods.base import Procedure, ProcedureContext
from expunge.options import Positive, Probability, option

__all__ = ["Rewind"]


@dataclass(frozen=True, kw_only=True)
class Rewind(Procedure):
    """Go back to where the forget records had left little trace, and learn the retained ones from there.

    Nothing is pushed away: what the records put into the weights shrinks with all that fine-tuning changed, and training on
    retained records brings back what they share. What the base could do besides is not touched.

    Formula: ``theta' = base + kept * (theta - base)``, a classifier's head as it is; then `epochs` passes of cross-entropy over
    the retained records from there.

    Source: Mu and Klabjan: "Rewind-to-Delete: Certified Machine Unlearning for Nonconvex Functions", NeurIPS 2025,
    arXiv 2409.09778, algorithm 1, which returns to a checkpoint of the original's own training. The straight way between base
    and fine-tuned weights: Wortsman et al., arXiv 2109.01903.

    Ours: the checkpoint is one on the straight way, since checkpoints of the original's training are seldom kept; no noise is
    added, and nothing is certified. With ``kept = 0`` a language model is retrained, if shortly.

    Failure signs: retained records that the sample of an epoch leaves out are forgotten too (`epochs` below 1); a large `kept`
    leaves the records as remembered as they were. The cost grows with the data set, not with the request.

    Example:
        >>> Rewind(kept=0.25).epochs
        1.0
    """

    rewinds: ClassVar[bool] = True

    kept: Probability = option(0.2, "share of what fine-tuning changed that stays; 0 is the base")
    epochs: Positive = option(1.0, "passes over the retained records from there")
    learning_rate: Positive = option(1e-4, "peak learning rate of that training")

    def expected(
        self, forget: int, retain: int, calibration: int, classes: int, retraining: float | None = None
    ) -> tuple[float, int]:
        del forget, calibration, classes, retraining
        return self.epochs * retain, 2

    def run(self, context: ProcedureContext) -> Any:
        import torch

        rewound = context.prepared().rewound(self.kept)
        if rewound is None:
            raise RunError("rewind: no base model; give retrain.base.")
        context.check(context.model, 0)
        with torch.no_grad():
            for own, back in zip(context.model.parameters(), rewound.parameters(), strict=True):
                own.copy_(back)
        context.tune(context.model, context.retain, self.epochs, self.learning_rate)
        context.check(context.model, 1)
        return context.model
