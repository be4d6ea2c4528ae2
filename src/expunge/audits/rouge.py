"""ROUGE-L: what a language model writes to the prompts, beside the true answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult, of_values
from expunge.record import Measurement

__all__ = ["Rouge"]


@dataclass(frozen=True, kw_only=True)
class Rouge(Audit):
    """How much of the true answers a language model writes by itself.

    ROUGE-L recall (Lin 2004; TOFU, arXiv 2401.06121): the longest common subsequence of words as a share of the true
    answer's, the most probable token taken each time. On forget records the right value is the retrained model's: a model
    that never saw them shares some words as well. Bootstrap intervals resample records. No text written is kept.

    Opt-in: one answer is written a record of the forget, retained and evaluation records (200 of the latter two at most).
    """

    needs: ClassVar[frozenset[str]] = frozenset({"written"})

    def run(self, context: AuditContext) -> AuditResult:
        values = context.stressed.get("written", {})
        lacking = [model for model, several in context.models.items() if len(several) != len(values.get(model, ()))]
        if lacking:
            return AuditResult(not_measured=f"the run has no {' and no '.join(lacking)} model's written answers")
        scores = of_values(context, values)
        rows: list[Measurement] = []
        first = scores.models["original"][0]
        for group in (group for group, own in first.items() if np.isfinite(np.asarray(own)).any()):
            rows += scores.measure(
                "rouge", "ROUGE-L recall", [group], np.asarray, _mean, unit="mean",
                direction="as retrained" if group == "forget" else "higher",
            )  # fmt: skip
        if not rows:
            return AuditResult(not_measured="no true answer has a word that ROUGE counts")
        columns = {
            f"ROUGE-L recall, {model}": [
                round(float(value), 4) if np.isfinite(value) else None for value in values[model][0]["forget"]
            ]
            for model in ("original", "unlearned")
        }
        return AuditResult(rows, per_record=columns)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0
