"""RMIA: a membership attack that weighs how hard each record is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import numpy as np

from expunge.attacks import rmia
from expunge.audits.base import Audit, AuditContext, AuditResult, Tables, told_apart
from expunge.options import Positive, PositiveInt, Probability, option
from expunge.record import Finding, Measurement
from expunge.stats import Interval, auc, auc_interval, clopper_pearson, tpr_at_fpr

__all__ = ["RMIA"]

Scores = list[tuple[np.ndarray, np.ndarray]]


@dataclass(frozen=True, kw_only=True)
class RMIA(Audit):
    """Robust membership inference (Zarifzadeh et al. 2024, arXiv 2312.03262), offline.

    A record's score: the share of population records (calibration, seen by no model) that gained less probability than
    it did, from what reference models that never saw it say to what the attacked model says. References are the
    retrained models; one that is attacked itself is scored by the others. Sees single records that the one threshold of
    `membership` cannot: the reference says how hard a record is. Its AUC over forget and evaluation records is 0.5 where
    nothing gives the forget records away; above it remembered, below it over-forgotten. Of a record with several units
    the probability is the geometric mean.

    Finding: beside several retrained models, the AUC lies off all of theirs and the interval of the difference off 0;
    beside one, the interval lies off 0.5.
    """

    references: PositiveInt = option(4, "retrained models taken as references, at most")
    gamma: Positive = option(1.0, "how much more than a population record a record must gain; 1 keeps both sides")
    offline: Probability = option(
        0.3, "a: how far references that saw a record are taken to lie above those that did not"
    )

    def run(self, context: AuditContext) -> AuditResult:
        retrained = list(context.models["retrained"])
        if not retrained:
            reason = "its reference models are models retrained without the forget records, and there is none"
            return AuditResult(not_measured=reason)
        scores = {model: [self._scores(context.models[model][0], retrained)] for model in ("original", "unlearned")}
        if len(retrained) > 1:
            others = [retrained[:i] + retrained[i + 1 :] for i in range(len(retrained))]
            scores["retrained"] = [self._scores(own, rest) for own, rest in zip(retrained, others, strict=True)]
        rows = _rows(context, "RMIA AUC", scores, "AUC", auc, partial(_interval, context))
        left_out = {}
        if len(retrained) < 2:
            left_out["retrained"] = (
                "one retrained model has no other to be attacked with; two would show what is normal"
            )
        for fpr in (0.01, 0.001):
            name = f"RMIA TPR at {fpr * 100:g} % FPR"
            if len(retrained[0]["evaluation"]) * fpr >= 1:
                rows += _rows(
                    context, name, scores, "share of forget records", partial(_tpr, fpr), partial(_exact, context, fpr)
                )
        return AuditResult(rows, findings=_findings(context, scores), left_out=left_out)

    def _scores(self, target: Tables, references: Sequence[Tables]) -> tuple[np.ndarray, np.ndarray]:
        """Scores of the forget and of the evaluation records."""
        used = references[: self.references]

        def logs(group: str) -> tuple[np.ndarray, np.ndarray]:
            return -target[group].record_losses, -np.array([tables[group].record_losses for tables in used])

        forget, evaluation = (
            rmia(*logs(group), *logs("calibration"), gamma=self.gamma, offline=self.offline)
            for group in ("forget", "evaluation")
        )
        return forget, evaluation


def _interval(context: AuditContext, scores: Scores) -> Interval:
    return auc_interval(scores, confidence=context.confidence)


def _tpr(fpr: float, forget: np.ndarray, evaluation: np.ndarray) -> float:
    found = tpr_at_fpr(forget, evaluation, fpr)
    assert found is not None
    return found.value


def _exact(context: AuditContext, fpr: float, scores: Scores) -> Interval:
    n = len(scores[0][0])
    return clopper_pearson(float(np.mean([_tpr(fpr, *pair) for pair in scores])) * n, n, context.confidence)


def _rows(
    context: AuditContext, name: str, scores: dict[str, Scores], unit: str, statistic: Callable[..., float],
    interval: Callable[[Scores], Interval],
) -> list[Measurement]:  # fmt: skip
    n = sum(map(len, scores["original"][0]))
    retrained = [statistic(*pair) for pair in scores.get("retrained", [])]
    shown = replace(context, models={model: context.models[model] for model in scores})
    return shown.rows(
        "rmia", name, "forget vs evaluation", lambda model: interval(scores[model]), retrained, n=n, unit=unit,
        direction="as retrained",
    )  # fmt: skip


def _findings(context: AuditContext, scores: dict[str, Scores]) -> list[Finding]:
    found = auc_interval(scores["unlearned"], confidence=context.confidence)
    words = f"RMIA AUC {found.value:.3f} [{found.low:.3f}, {found.high:.3f}], "
    retrained = [auc(*pair) for pair in scores.get("retrained", [])]
    if not retrained:
        apart = Interval(found.value - 0.5, found.low - 0.5, found.high - 0.5)
        return told_apart("rmia", words + "0.5 would tell nothing", apart, found.value, [])
    apart = auc_interval(scores["unlearned"], scores["retrained"], context.confidence)
    words += f"retrained {np.mean(retrained):.3f}, difference {apart.value:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}]"
    return told_apart("rmia", words, apart, found.value, retrained)
