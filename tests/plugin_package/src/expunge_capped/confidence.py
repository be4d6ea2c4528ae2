"""Confidence: the mean probability that each model gives the true labels of each group."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult

__all__ = ["Confidence"]


@dataclass(frozen=True, kw_only=True)
class Confidence(Audit):
    """How sure each model is of the true labels of forget records and of records never seen.

    Mean over records of exp(-loss), a record's loss being that of its log-odds; bootstrap intervals over records. On both
    groups the right value is the retrained model's.
    """

    def run(self, context: AuditContext) -> AuditResult:
        found = []
        for group in ("forget", "evaluation"):
            found += context.measure(
                "confidence", "probability of the true label", [group], _confidence, _mean, unit="probability",
                direction="as retrained",
            )  # fmt: skip
        return AuditResult(found)


def _confidence(table: Any) -> np.ndarray:
    """(N,) probability of each record's labels, of several units their geometric mean."""
    return 1 / (1 + np.exp(-table.record_margins))


def _mean(values: np.ndarray) -> float:
    return float(values.mean())
