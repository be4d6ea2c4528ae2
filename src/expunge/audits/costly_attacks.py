"""Membership attacks that need more than the shared scoring pass: gradients, or another model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult, attack, of_values, stressed
from expunge.token_attacks import gradient_norm, reference

__all__ = ["GradientNorm", "Reference"]


@dataclass(frozen=True, kw_only=True)
class GradientNorm(Audit):
    """What an attacker with the weights sees: members' losses have small gradients.

    The norm of the gradient of each record's mean loss with respect to all weights, one record at a time
    (Wang et al. 2024, arXiv 2402.17012). AUC of forget over evaluation records (0.5 when they look alike; DeLong's
    interval) and TPR at 1 % FPR (Clopper-Pearson). Finding as in `token-membership`.

    Opt-in: a forward and backward pass over every forget and evaluation record a model.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"gradients"})

    def run(self, context: AuditContext) -> AuditResult:
        norms, reason = stressed(context, "gradients", "whose gradients were taken")
        if norms is None:
            return AuditResult(not_measured=reason)
        return attack(norms, "gradient-norm", "gradient norm", gradient_norm)


@dataclass(frozen=True, kw_only=True)
class Reference(Audit):
    """What an attacker with another model sees: how much likelier a record is than under one that never saw it.

    The other model is the base that the original was fine-tuned from (`retrain.base`): it says how hard each text is by
    itself. Score: difference of the mean log-probabilities of a record's tokens (Carlini et al. 2021, arXiv 2012.07805, as
    MIMIR has it, arXiv 2402.07841). AUC of forget over evaluation records and TPR at 1 % FPR. Finding as in
    `token-membership`.

    Opt-in: one scoring pass of the base over forget and evaluation records.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"reference"})

    def run(self, context: AuditContext) -> AuditResult:
        base = next(iter(context.stressed.get("reference", {}).get("base", ())), None)
        first = context.models["original"][0]
        if not first["forget"].of_tokens:
            return AuditResult(not_measured="the model writes no tokens; audit rmia compares classifiers")
        if base is None:
            return AuditResult(not_measured="there is no base model (retrain.base) to compare with")
        scores = {
            model: [
                {
                    group: reference(-one[group].losses, one[group].offsets, -base[group].record_losses)
                    for group in ("forget", "evaluation")
                }
                for one in several
            ]
            for model, several in context.models.items()
        }
        return attack(of_values(context, scores), "reference", "reference attack", np.asarray)
