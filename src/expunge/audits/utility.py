"""Utility: accuracy and macro-F1 on forget, retained and evaluation records."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult
from expunge.stats import Interval, macro_f1, wilson

__all__ = ["Utility"]


@dataclass(frozen=True, kw_only=True)
class Utility(Audit):
    """How well each model labels each group.

    Accuracy (share of correct labels; Wilson interval, or bootstrap for the mean of several retrained models) and
    macro-F1 (mean over the classes present; bootstrap). On forget records the right value is the retrained model's,
    neither the highest nor the lowest; elsewhere higher is better.
    """

    def run(self, context: AuditContext) -> AuditResult:
        found = []
        for group in ("forget", "retain", "evaluation"):
            direction = "as retrained" if group == "forget" else "higher"

            def share(model: str, group: str = group) -> Interval:
                tables = context.models[model]
                if len(tables) > 1:
                    return context.estimate(model, [group], lambda t: t.correct, np.mean)
                correct = tables[0][group].correct
                return wilson(int(correct.sum()), len(correct), context.confidence)

            found += context.measure(
                "utility", "accuracy", [group], lambda t: t.correct, np.mean, unit="share", direction=direction,
                interval=share,
            )  # fmt: skip
            found += context.measure(
                "utility", "macro-F1", [group], lambda t: np.stack([t.labels, t.predictions], axis=1),
                lambda pairs: macro_f1(pairs[:, 0], pairs[:, 1], context.classes), unit="F1", direction=direction,
            )  # fmt: skip
        return AuditResult(found)
