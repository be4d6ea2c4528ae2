"""Answers of a causal language model: how likely, how well known by heart."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult
from expunge.scoring import ScoreTable
from expunge.token_metrics import exact_memorisation, extraction_strength, probability

__all__ = ["Answers"]


@dataclass(frozen=True, kw_only=True)
class Answers(Audit):
    """How likely the answers of each group are, and how much of them a model knows by heart.

    Probability is that of the answer, normalised for its length: the exponential of the mean log-probability of its tokens
    (TOFU, Maini et al. 2024, arXiv 2401.06121). Extraction strength is one less the shortest share of an answer behind which
    the rest is right, token by token; exact memorisation the share of tokens that are right; both with the true tokens before
    them given. On forget records the right value is the retrained model's, neither the highest nor the lowest. Bootstrap
    intervals resample records.
    """

    def run(self, context: AuditContext) -> AuditResult:
        first = context.models["original"][0]
        if not first["forget"].of_tokens:
            return AuditResult(not_measured="the model writes no answers")
        found = []
        for group in ("forget", "retain", "evaluation"):
            direction = "as retrained" if group == "forget" else "higher"
            for name, read in _FIGURES.items():
                found += context.measure("answers", name, [group], read, _mean, unit="mean", direction=direction)
        columns = {
            f"{name}, {model}": [round(float(value), 4) for value in read(context.models[model][0]["forget"])]
            for name, read in _FIGURES.items()
            for model in ("original", "unlearned")
        }
        return AuditResult(found, per_record=columns)


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


_FIGURES: dict[str, Callable[[ScoreTable], np.ndarray]] = {
    "answer probability": lambda table: probability(-table.losses, table.offsets),
    "extraction strength": lambda table: extraction_strength(table.predictions, table.labels, table.offsets),
    "exact memorisation": lambda table: exact_memorisation(table.predictions, table.labels, table.offsets),
}
