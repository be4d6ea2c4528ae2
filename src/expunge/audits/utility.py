"""Utility: how well each model labels forget, retained and evaluation records."""

from __future__ import annotations

from dataclasses import dataclass

from expunge.audits.base import Audit, AuditContext, AuditResult
from expunge.metrics import ACCURACY, ENTITY_F1, macro_f1_over
from expunge.stats import Interval, wilson

__all__ = ["Utility"]


@dataclass(frozen=True, kw_only=True)
class Utility(Audit):
    """How well each model labels each group.

    For a text classifier accuracy (share of correct labels; Wilson interval, or bootstrap for the mean of several
    retrained models) and macro-F1 (mean over the classes present). For a tagger entity F1 (micro-averaged; type and both
    ends must be right) and accuracy over words. Bootstrap intervals resample records. On forget records the right value
    is the retrained model's, neither the highest nor the lowest; elsewhere higher is better.
    """

    def run(self, context: AuditContext) -> AuditResult:
        found = []
        first = context.models["original"][0]["evaluation"]
        one_each = not first.several_units
        for group in ("forget", "retain", "evaluation"):
            direction = "as retrained" if group == "forget" else "higher"

            def share(model: str, group: str = group) -> Interval:
                tables = context.models[model]
                if len(tables) > 1 or not one_each:  # words of one record are no independent draws
                    return context.estimate(model, [group], ACCURACY.read, ACCURACY.statistic)
                correct = tables[0][group].correct
                return wilson(int(correct.sum()), len(correct), context.confidence)

            found += context.measure(
                "utility", ACCURACY.name, [group], ACCURACY.read, ACCURACY.statistic, unit=ACCURACY.unit,
                direction=direction, interval=share,
            )  # fmt: skip
            further = macro_f1_over(context.classes) if one_each else ENTITY_F1
            if one_each or first.entities is not None:
                found += context.measure(
                    "utility", further.name, [group], further.read, further.statistic, unit=further.unit,
                    direction=direction,
                )  # fmt: skip
        return AuditResult(found)
