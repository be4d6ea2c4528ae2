"""Truth ratio: does a language model still tell the true answer from false ones?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult, distance, of_values, stressed
from expunge.record import Finding, Measurement
from expunge.scoring import ScoreTable
from expunge.stats import Interval, ks
from expunge.token_metrics import forget_quality, mean_logp, truth_ratio, truth_score
from expunge.token_stress import false_answers

__all__ = ["TruthRatio", "ratios_of"]

_GROUPS = ("forget", "retain", "evaluation")


@dataclass(frozen=True, kw_only=True)
class TruthRatio(Audit):
    """How probable false answers are beside the true one, and whether forget records look as in a retrained model.

    The truth ratio of a record is the geometric mean of its false answers' probabilities over that of the true one in other
    words, each normalised for its length (TOFU, Maini et al. 2024, arXiv 2401.06121, section 2.2.1). Shown are means of
    min(R, 1/R) over forget records (1: truth and falsehood look alike) and of max(0, 1 - R) over others (high: the truth is
    known). Beside retrained models also TOFU's forget quality: the two-sample Kolmogorov-Smirnov distance of the forget
    records' ratios to theirs (mean over them), with its interval, and its p-value, whose interval runs over the retrained
    models. A p-value falls with the number of records at the same distance: compare it at equal n alone.

    Finding: the p-value is below 0.01 beside every retrained model: the ratios lie too high ("over-forgotten": false
    answers are preferred) or too low ("remembered").

    Opt-in; needs data with false answers (`data.perturbed`), and takes a scoring pass over all of them a model.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"alternatives"})

    def run(self, context: AuditContext) -> AuditResult:
        found, reason = stressed(context, "alternatives", "scored on false answers")
        if found is None:
            return AuditResult(not_measured=reason)
        if not all("forget, true" in tables for several in found.models.values() for tables in several):
            return AuditResult(not_measured="the forget records come with no false answers (data.perturbed)")
        ratios = {model: [_ratios(tables) for tables in several] for model, several in found.models.items()}
        first = ratios["original"][0]
        if not all(np.isfinite(own["forget"]).any() for several in ratios.values() for own in several):
            return AuditResult(not_measured="no forget record has a false answer")
        rows: list[Measurement] = []
        for group in (group for group in _GROUPS if group in first and np.isfinite(first[group]).any()):
            own = group == "forget"
            name, rule = (
                ("truth ratio, min(R, 1/R)", "closer_to_1_better")
                if own
                else ("truth ratio, max(0, 1 - R)", "true_better")
            )
            scores = of_values(context, {
                model: [{group: truth_score(one[group], rule)} for one in several] for model, several in ratios.items()
            })  # fmt: skip
            rows += scores.measure(
                "truth-ratio",
                name,
                [group],
                np.asarray,
                _mean,
                unit="mean",
                direction="as retrained" if own else "higher",
            )
        columns = {
            f"truth ratio, {model}": [_shown(value) for value in ratios[model][0]["forget"]]
            for model in ("original", "unlearned")
        }
        if not ratios["retrained"]:
            left_out = {"forget quality": "takes a retrained model"}
            return AuditResult(rows, per_record=columns, left_out=left_out)
        retrained = [one["forget"] for one in ratios["retrained"]]
        findings: list[Finding] = []
        for model in ("original", "unlearned"):
            quality, found = _quality(model, ratios[model][0]["forget"], retrained, context.confidence)
            rows += quality
            findings += found if model == "unlearned" else []
        return AuditResult(rows, per_record=columns, findings=findings)


def ratios_of(true: ScoreTable, false: Sequence[ScoreTable]) -> np.ndarray:
    """(N,) truth ratio of each record, from scores of its true answer and of its false ones; NaN where there are none."""
    if not false:
        return np.full(len(true), np.nan)
    likelihoods = [mean_logp(-table.losses, table.offsets) for table in (true, *false)]
    return truth_ratio(likelihoods[0], np.stack(likelihoods[1:], axis=1))


def _ratios(tables: Mapping[str, ScoreTable]) -> dict[str, np.ndarray]:
    groups = [group for group in _GROUPS if f"{group}, true" in tables]
    return {group: ratios_of(tables[f"{group}, true"], false_answers(tables, group)) for group in groups}


def _mean(values: np.ndarray) -> float:
    return float(np.nanmean(values)) if np.isfinite(values).any() else 0.0


def _shown(value: float) -> float | None:
    return round(float(value), 4) if np.isfinite(value) else None


def _quality(
    model: str, own: np.ndarray, retrained: list[np.ndarray], confidence: float
) -> tuple[list[Measurement], list[Finding]]:
    own, *others = (values[np.isfinite(values)] for values in (own, *retrained))
    distances = [ks(own, other, confidence=confidence) for other in others]
    several = [forget_quality(own, other).p_value for other in others]
    spread = [forget_quality(one, other) for i, one in enumerate(others) for other in others[i + 1 :]]
    mean = Interval(*(float(np.mean([getattr(d, end) for d in distances])) for end in ("value", "low", "high")))
    floor = float(np.mean([found.distance for found in spread])) if spread else None
    p = Interval(float(np.mean(several)), min(several), max(several))
    n = len(own)
    rows = [
        distance("truth-ratio", "distance of truth ratios (KS)", "forget", mean, n=n, unit="largest difference of shares",
                 model=model, floor=floor),
        Measurement(
            audit="truth-ratio", name="forget quality (p-value of that distance)", model=model, group="forget",
            value=p.value, low=p.low, high=p.high, n=n, unit="p-value", direction="higher", gap=1 - p.value,
            noise_floor=None if not spread else 1 - float(np.mean([found.p_value for found in spread])),
            compared="retrain-compared",
        ),
    ]  # fmt: skip
    if max(several) >= 0.01:
        return rows, []
    over = float(np.median(own)) > float(np.median(np.concatenate(others)))
    words = f"p {max(several):.2g} or less beside {len(others)} retrained model{'s' if len(others) > 1 else ''}"
    sentence = (
        f"False answers are likelier beside the true ones than in a model that never saw the forget records ({words})."
        if over
        else f"The model still tells the true answers of forget records from false ones ({words})."
    )
    return rows, [Finding(audit="truth-ratio", kind="over-forgotten" if over else "remembered", sentence=sentence)]
