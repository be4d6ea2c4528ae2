"""The verdict: what the audits allow to be said, by stated criteria, and with the untouched original put to the same test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from expunge.audits.base import AuditContext
from expunge.metrics import Metric, headline
from expunge.scoring import ScoreTable
from expunge.stats import Interval, auc

__all__ = ["LEAST_RECORDS", "incomplete", "original_passes", "reached", "verdict"]

LEAST_RECORDS = 20
"""Forget records below which figures over them decide nothing."""


def incomplete(left: Mapping[str, int]) -> str | None:
    """What to say of duplicates that were retained, with the way out; None where none were.

    Args:
        left: How many were, by kind: ``identical``, ``near``, ``neighbour``.
    """
    said = {
        "identical": "identical to a requested one (--with-duplicates forgets them too)",
        "near": "nearly the same as one (--with-near-duplicates forgets them too; --near-duplicates sets how near is near)",
        "neighbour": "close to one in the base model's space (--with-near-duplicates and --neighbours likewise)",
    }
    parts = [
        f"{left[kind]} {'is' if left[kind] == 1 else 'are'} {words}" for kind, words in said.items() if left.get(kind)
    ]
    return f"Of the retained records {', '.join(parts)}." if parts else None


def verdict(context: AuditContext, max_utility_loss: float, left: Mapping[str, int] | None = None) -> dict[str, Any]:
    """Judge the unlearned model.

    Against retrained models (evidence class ``retrain-compared``) where there are any, and in any case against
    held-out records (``population``). A class is

    * ``reached`` when every criterion holds;
    * ``not reached`` when one does not;
    * ``no power`` when all hold but the untouched original passes the forgetting criteria as well (it was never
      memorised, or the request is too small to tell), and with fewer than 20 forget records unless utility fell too far: a
      bootstrap of so few knows nothing.

    Criteria of forgetting are intervals of differences that must contain zero (of the AUC: 0.5); the criterion of
    utility is a point estimate. Duplicates of forget records among the retained ones make any class ``not reached``.

    Args:
        context: Scores of all models.
        max_utility_loss: Fall of the evaluation figure that is still allowed.
        left: Duplicates that were retained, by kind, as `incomplete` takes them.

    Returns:
        ``evidence`` (the strongest class judged), ``outcome`` (of that class), ``classes`` (class -> outcome and
        criteria), and ``sentence``.
    """
    left = left or {}
    classes = {"population": _judge(context, _population, max_utility_loss)}
    if context.models.get("retrained"):
        classes["retrain-compared"] = _judge(context, _retrain_compared, max_utility_loss)
    evidence = "retrain-compared" if "retrain-compared" in classes else "population"
    sentence = _sentence(context, evidence, classes[evidence]["outcome"], classes[evidence]["criteria"])
    stays = incomplete(left)
    for judged in classes.values():
        judged["criteria"].append(_completeness(sum(left.values())))
        if stays:
            judged["outcome"] = "not reached"
    outcome = classes[evidence]["outcome"]
    return {
        "evidence": evidence,
        "outcome": outcome,
        "classes": classes,
        "sentence": f"Incomplete: {stays} {sentence}" if stays else sentence,
    }


def reached(judged: dict[str, Any], required: str) -> bool:
    """Whether the verdict of a required evidence class (``population`` or ``retrain-compared``) was reached."""
    return judged["classes"].get(required, {}).get("outcome") == "reached"


def original_passes(context: AuditContext) -> bool:
    """Whether the untouched original passes the forgetting criteria of the population class."""
    return all(criterion["holds"] for criterion in _population(context, "original"))


def _judge(context: AuditContext, forgetting: Any, max_utility_loss: float) -> dict[str, Any]:
    criteria = forgetting(context, "unlearned")
    original_passes = all(criterion["holds"] for criterion in forgetting(context, "original"))
    criteria.append(_utility(context, max_utility_loss))
    if _too_few(context) and criteria[-1]["holds"]:
        outcome = "no power"
    elif not all(criterion["holds"] for criterion in criteria):
        outcome = "not reached"
    else:
        outcome = "no power" if original_passes else "reached"
    return {"outcome": outcome, "criteria": criteria, "original_passes": original_passes}


def _too_few(context: AuditContext) -> bool:
    return len(context.models["original"][0]["forget"]) < LEAST_RECORDS


def _criterion(name: str, interval: Interval, target: float) -> dict[str, Any]:
    return {
        "name": name,
        "value": interval.value,
        "low": interval.low,
        "high": interval.high,
        "target": target,
        "holds": bool(interval.low <= target <= interval.high),
        "side": "low" if interval.high < target else "high" if interval.low > target else "within",
    }


def _margins(table: ScoreTable) -> np.ndarray:
    return table.record_margins


def _metric(context: AuditContext) -> Metric:
    return headline(context.models["original"][0]["evaluation"])


def _population(context: AuditContext, model: str) -> list[dict[str, Any]]:
    metric = _metric(context)

    def difference(forget: np.ndarray, evaluation: np.ndarray) -> float:
        return metric.statistic(forget) - metric.statistic(evaluation)

    groups = ["forget", "evaluation"]
    return [
        _criterion("membership AUC", context.estimate(model, groups, _margins, auc), 0.5),
        _criterion(
            f"forget {metric.name} minus evaluation {metric.name}",
            context.estimate(model, groups, metric.read, difference),
            0,
        ),
    ]


def _retrain_compared(context: AuditContext, model: str) -> list[dict[str, Any]]:
    metric = _metric(context)
    difference = context.estimate(model, ["forget"], metric.read, metric.statistic, minus="retrained")
    attack = context.estimate(model, ["forget", "evaluation"], _margins, auc, minus="retrained")
    return [
        _criterion(f"forget {metric.name} minus the retrained models'", difference, 0),
        _criterion("membership AUC minus the retrained models'", attack, 0),
    ]


def _utility(context: AuditContext, max_utility_loss: float) -> dict[str, Any]:
    metric = _metric(context)
    loss = context.estimate("unlearned", ["evaluation"], metric.read, metric.statistic, minus="original")
    return {
        "name": f"evaluation {metric.name} minus the original's",
        "value": loss.value,
        "low": loss.low,
        "high": loss.high,
        "target": -max_utility_loss,
        "holds": loss.value >= -max_utility_loss,
        "side": "within" if loss.value >= -max_utility_loss else "low",
    }


def _completeness(left: int) -> dict[str, Any]:
    return {
        "name": "duplicates of forget records left in the retained data",
        "value": left,
        "low": left,
        "high": left,
        "target": 0,
        "holds": not left,
        "side": "incomplete" if left else "within",
    }


def _sentence(context: AuditContext, evidence: str, outcome: str, criteria: list[dict[str, Any]]) -> str:
    count = len(context.models.get("retrained", ()))
    beside = (
        f"{count} model{'s' if count > 1 else ''} retrained without the records"
        if evidence == "retrain-compared"
        else "records the model never saw (no retrained model was given)"
    )
    if outcome == "reached":
        return (
            f"Measured beside {beside}, these figures can no longer tell the forget records apart, and "
            f"evaluation {_metric(context).name} changed by {criteria[-1]['value']:+.3f} "
            f"(allowed is {criteria[-1]['target']:+.3f})."
        )
    if outcome == "no power" and _too_few(context):
        return (
            f"Measured beside {beside}: with fewer than {LEAST_RECORDS} forget records these figures decide nothing; look "
            "at each record (`expunge records OUT`; with --show-ids in the run by its own id)."
        )
    if outcome == "no power":
        return (
            f"Measured beside {beside}, nothing gives the forget records away; but the untouched original passes the "
            "same test, so this run cannot show that anything was forgotten."
        )
    reasons = []
    for criterion in criteria[-1:] if _too_few(context) else criteria:
        if not criterion["holds"]:
            if criterion is criteria[-1]:
                allowed = criterion["target"]
                reasons.append(
                    f"evaluation {_metric(context).name} changed by {criterion['value']:+.3f}, allowed is {allowed:+.3f}"
                )
            else:
                kind = "remembered" if criterion["side"] == "high" else "over-forgotten"
                value = f"{criterion['value']:{'+' if ' minus ' in criterion['name'] else ''}.3f}"
                reasons.append(f"forget records are {kind} ({criterion['name']} {value})")
    return f"Not reached, measured beside {beside}: {'; '.join(dict.fromkeys(reasons))}."
