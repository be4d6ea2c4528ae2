"""Task-vector negation: learn the forget records harder, then go the opposite way."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from typing import Annotated, Any

from annotated_types import MinLen

from expunge.methods.base import Procedure, ProcedureContext
from expunge.options import Positive, option
from expunge.stopping import best

__all__ = ["TaskVector"]


@dataclass(frozen=True, kw_only=True)
class TaskVector(Procedure):
    """Fine-tune a copy on the forget records alone and subtract what that changed.

    Formula: ``theta - alpha * (theta_ft - theta)``, with theta_ft fine-tuned from theta on the forget records; alpha is
    the one of `alphas` whose model the stop rule's measure likes best (confidence on forget records nearest to the
    original's on calibration records, less what calibration confidence has lost).

    Source: Ilharco et al.: "Editing Models with Task Arithmetic", ICLR 2023, arXiv 2212.04089, section 3 (negation).

    Ours: the paper starts from the pre-trained model and negates a whole task; here theta is the fine-tuned original, as
    in later unlearning work (TV in EDU-RELAT, arXiv 2410.15153, whose grid is ours, but for 2.0). The paper chooses alpha
    as the largest loss on the target that keeps 95 % of the control task; that would over-forget single records.

    Failure signs: the original fits its records already, so the vector is short and nearly noise; large alphas break the
    model before it forgets. More epochs or a higher learning rate make the vector clearer.

    Example:
        >>> TaskVector(alphas=(0.5, 1.0)).epochs
        5.0
    """

    alphas: Annotated[tuple[Positive, ...], MinLen(1)] = option(
        (0.2, 0.5, 1.0, 2.0, 5.0, 10.0), "multiples of the vector to try"
    )
    epochs: Positive = option(5.0, "passes over the forget records when fine-tuning")
    learning_rate: Positive = option(5e-5, "peak learning rate of that fine-tuning")

    def run(self, context: ProcedureContext) -> Any:
        import torch

        start = {name: part.detach().clone() for name, part in context.model.named_parameters()}
        tuned = copy.deepcopy(context.model)
        context.tune(tuned, context.forget, self.epochs, self.learning_rate)
        vector = {name: part.detach() - start[name] for name, part in tuned.named_parameters()}

        def move(alpha: float) -> None:
            with torch.no_grad():
                for name, part in context.model.named_parameters():
                    part.copy_(start[name] - alpha * vector[name])

        checks = [context.check(context.model, 0)]
        for number, alpha in enumerate(self.alphas, start=1):
            move(alpha)
            checks.append(context.check(context.model, number))
        move(self.alphas[best(checks).step - 1])
        return context.model
