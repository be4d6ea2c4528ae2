"""ROUGE-L: what a language model writes to the prompts, beside the true answers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult, stressed
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
        scores, reason = stressed(context, "written", "whose answers were written")
        if scores is None:
            return AuditResult(not_measured=reason)
        values: Any = scores.models
        rows: list[Measurement] = []
        for group in (group for group, own in values["original"][0].items() if np.isfinite(np.asarray(own)).any()):
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
