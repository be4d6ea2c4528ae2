"""Membership: can an attacker tell forget records from records never seen?"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from sklearn.metrics import roc_curve

from expunge.audits.base import Audit, AuditContext, AuditResult
from expunge.options import PositiveInt, option
from expunge.stats import auc

__all__ = ["Membership"]


@dataclass(frozen=True, kw_only=True)
class Membership(Audit):
    """Threshold attack on the loss or the margin, forget against evaluation records.

    Loss (-log p) and margin (log-odds of p) put records in the same order, so that one AUC holds for both (of a record
    with several units: the mean loss over them, and the log-odds of their geometric mean probability). It is 0.5
    when forget records look like records never seen; above it they are remembered, below it they are over-forgotten,
    which gives them away as well. Bootstrap interval. One threshold for all records is a weak attack: an AUC near 0.5
    is necessary, not sufficient (Carlini et al. 2022, arXiv 2112.03570; Hayes et al., arXiv 2403.01218).
    """

    points: PositiveInt = option(200, "points of the ROC curve kept for the report, at most")

    def run(self, context: AuditContext) -> AuditResult:
        found = context.measure(
            "membership", "membership AUC (loss or margin)", ["forget", "evaluation"], lambda t: t.record_margins, auc,
            unit="AUC", direction="as retrained",
        )  # fmt: skip
        return AuditResult(found, figure={"roc": self._roc(context), "margins": _histograms(context)})

    def _roc(self, context: AuditContext) -> dict[str, list[list[float]]]:
        curves = {}
        for model, tables in context.models.items():
            if tables:
                forget, evaluation = tables[0]["forget"].record_margins, tables[0]["evaluation"].record_margins
                truth = np.r_[np.ones(len(forget)), np.zeros(len(evaluation))]
                false, true, _ = roc_curve(truth, np.r_[forget, evaluation])
                kept = np.unique(np.linspace(0, len(false) - 1, min(len(false), self.points)).astype(int))
                curves[model] = [[round(float(false[i]), 4), round(float(true[i]), 4)] for i in kept]
        return curves


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
