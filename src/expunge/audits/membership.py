"""Membership: can an attacker tell forget records from records never seen?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_curve

from expunge.attacks import MODELS_A_SIDE, challenge_epsilon
from expunge.audits.base import Audit, AuditContext, AuditResult, attack_found, attack_tpr, distance
from expunge.options import PositiveInt, option
from expunge.record import Measurement
from expunge.scoring import ScoreTable
from expunge.stats import Interval, auc, best_side, mean_interval

__all__ = ["Membership"]


@dataclass(frozen=True, kw_only=True)
class Membership(Audit):
    """Threshold attack on the loss or the margin, forget against evaluation records.

    Loss (-log p), confidence (p) and margin (log-odds of p) put records in the same order, so that one AUC holds for all
    three (of a record with several units: the mean loss over them, and the log-odds of their geometric mean probability).
    It is 0.5 when forget records look like records never seen; above it they are remembered, below it they are
    over-forgotten, which gives them away as well: max(AUC, 1 - AUC) is what an attacker gets who may turn the score
    round. The TPR at a small FPR tells of the few records most exposed; 0.1 % takes 1,000 evaluation records.
    Intervals: DeLong's, and Clopper-Pearson's. With at least 32 unlearned and 32 retrained models also epsilon as in the
    NeurIPS 2023 unlearning challenge. One threshold for all records is a weak attack: an AUC near 0.5 is necessary, not
    sufficient (Carlini et al. 2022, arXiv 2112.03570; Hayes et al., arXiv 2403.01218).

    Finding: the AUC's interval lies off 0.5; beside retrained models, that of the difference to them off 0.
    """

    points: PositiveInt = option(200, "points of the ROC curve kept for the report, at most")

    def run(self, context: AuditContext) -> AuditResult:
        rows, left_out = list(_auc(context)), {}
        for fpr in (0.01, 0.001):
            name = f"TPR at {fpr * 100:g} % FPR"
            if found := attack_tpr(context, "membership", name, _read, fpr):
                rows += found
            else:
                count = len(context.models["original"][0]["evaluation"])
                left_out[name] = f"takes {round(1 / fpr)} evaluation records, there are {count}"
        unlearned, retrained = (_margins(context, model) for model in ("unlearned", "retrained"))
        epsilon = challenge_epsilon(unlearned, retrained)
        if epsilon is None:
            left_out["epsilon"] = (
                f"takes {MODELS_A_SIDE} models a side, there are {len(unlearned)} unlearned and {len(retrained)} retrained"
            )
        else:
            rows.append(distance(
                "membership", "mean epsilon (NeurIPS 2023 challenge)", "forget",
                mean_interval(epsilon, context.confidence), n=len(epsilon), unit="epsilon",
            ))  # fmt: skip
        return AuditResult(
            rows,
            figure={"roc": self._roc(context), "margins": _histograms(context)},
            findings=attack_found(context, "membership", "membership", _read),
            left_out=left_out,
        )

    def _roc(self, context: AuditContext) -> dict[str, list[list[float]]]:
        curves = {}
        for model, tables in context.models.items():
            if tables:
                forget, evaluation = tables[0]["forget"].record_margins, tables[0]["evaluation"].record_margins
                truth = np.r_[np.ones(len(forget)), np.zeros(len(evaluation))]
                false, true, _ = roc_curve(truth, np.r_[forget, evaluation])
                kept = _spread(false, self.points, 1 / len(evaluation))
                curves[model] = [[round(float(false[i]), 6), round(float(true[i]), 4)] for i in kept]
        return curves


def _spread(false: np.ndarray, points: int, least: float) -> np.ndarray:
    """Which points of a curve to keep: all, or half of them evenly and half by the logarithm of their false positive rate."""
    if len(false) <= points:
        return np.arange(len(false))
    evenly = np.linspace(0, len(false) - 1, points - points // 2).astype(int)
    rates = np.geomspace(least, 1, points // 2)
    return np.union1d(evenly, np.searchsorted(false, rates * (1 + 1e-9), side="right") - 1)


def _auc(context: AuditContext) -> list[Measurement]:
    groups = ["forget", "evaluation"]
    rows = context.measure(
        "membership", "membership AUC (loss or margin)", groups, _read, auc, unit="AUC", direction="as retrained",
        interval=lambda model: context.auc(model, groups, _read),
    )  # fmt: skip

    def side(forget: np.ndarray, evaluation: np.ndarray) -> float:
        return 0.5 + abs(auc(forget, evaluation) - 0.5)

    def best(model: str) -> Interval:
        found = best_side(context.auc(model, groups, _read))
        value = float(np.mean(context.values(model, groups, _read, side)))
        return Interval(value, min(found.low, value), max(found.high, value))

    return rows + context.measure(
        "membership", "max(AUC, 1 - AUC)", groups, _read, side, unit="AUC", direction="as retrained", interval=best
    )


def _read(table: ScoreTable) -> np.ndarray:
    return table.record_margins


def _margins(context: AuditContext, model: str) -> np.ndarray:
    """(models, N) margins of the forget records."""
    records = len(context.models["original"][0]["forget"])
    return np.array([tables["forget"].record_margins for tables in context.models[model]]).reshape(-1, records)


def _histograms(context: AuditContext) -> dict[str, object]:
    """Shares of margins (clipped at +-10 nats) in 40 bins, forget and evaluation, for each model."""
    edges = np.linspace(-10, 10, 41)
    bins: dict[str, object] = {"edges": [round(float(e), 3) for e in edges]}
    for model, tables in context.models.items():
        if tables:
            bins[model] = {group: _shares(tables[0][group].record_margins, edges) for group in ("forget", "evaluation")}
    return bins


def _shares(margins: np.ndarray, edges: np.ndarray) -> list[float]:
    counts, _ = np.histogram(np.clip(margins, edges[0], edges[-1]), edges)
    return [round(float(share), 5) for share in counts / max(1, len(margins))]
