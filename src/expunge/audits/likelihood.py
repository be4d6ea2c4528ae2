"""Likelihood: for each forget record, how much more likely its score is if the model was trained on it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats as scipy_stats

from expunge.attacks import density_log_ratio, gaussian_log_ratio, least_unseen, pooled_sd, strata, unseen_bounds
from expunge.audits.base import Audit, AuditContext, AuditResult, Tables, classes_of, clipped_margins
from expunge.options import Fraction, PositiveInt, option
from expunge.record import Finding, Measurement
from expunge.stats import Interval, clopper_pearson, share_difference

__all__ = ["Likelihood"]

_NAME = "likelihood"
Passed = tuple[np.ndarray, np.ndarray]
"""Which records lie above an upper bound, and which below a lower one."""

_SIDES = ("above", "below")
_KINDS = ("remembered", "over-forgotten")


@dataclass(frozen=True, kw_only=True)
class Likelihood(Audit):
    """A verdict per record.

    Population form, always: log p(margin | trained on) - log p(margin | never seen), the densities from retained and
    calibration margins under the unlearned model, of the record's class where both have enough of it (records of several
    units: over all). Retrain-compared form, with two or more retrained models: the margin beside a normal distribution
    around the original's margin and one around the retrained models' (LiRA, Carlini et al. 2022, arXiv 2112.03570). Both in
    nats with an interval; above 0 speaks for "trained on".

    A record is *told apart* where its margin passes a bound that a record never seen passes with 5 % probability on
    each side (`level`): from calibration records of its class, or from the retrained models (a normal prediction bound).
    Above: remembered; below: over-forgotten. The original put to the same test says which records it had memorised, so
    whether erasing them was needed. The shares told apart stand beside those of evaluation records (about 5 %), or of
    retrained models judged by the others. A single record told apart proves nothing; more of them than should be do.

    Finding: the share on a side is above that of evaluation records (Newcombe's interval, the error halved for two
    sides), and beside retrained models above each of theirs.
    """

    level: Fraction = option(0.95, "share of records never seen that lie within the bound on one side")
    least: PositiveInt = option(20, "records of a class from which on it is compared with itself alone")

    def run(self, context: AuditContext) -> AuditResult:
        one = context.models["unlearned"][0]
        if len(one["calibration"]) < least_unseen(self.level) or len(one["retain"]) < 2:
            return AuditResult(not_measured=f"takes {least_unseen(self.level)} calibration and 2 retained records")
        forget = {model: [self._passed(t, "forget") for t in tables] for model, tables in context.models.items()}
        unseen = {model: [self._passed(t, "evaluation") for t in tables] for model, tables in context.models.items()}
        rows = _rows(context, "{side} the bound of records never seen", "forget", forget)
        rows += _rows(context, "{side} the bound of records never seen", "evaluation", unseen)
        told, memorised = forget["unlearned"][0], forget["original"][0][0]
        ratio = self._population(context, one)
        columns = _columns("log ratio, population", ratio)
        findings = _population_findings(context, forget, unseen)
        left_out = {}
        if len(context.models["retrained"]) > 1:
            beside = _beside_retrained(context, self.level)
            rows += _rows(context, "{side} the retrained models' bound", "forget", beside)
            told, memorised = beside["unlearned"][0], beside["original"][0][0]
            columns |= _columns("log ratio, retrained", _gaussian(context))
            findings += _retrained_findings(context, beside)
        else:
            left_out["retrain-compared form"] = (
                f"takes 2 retrained models, there are {len(context.models['retrained'])}"
            )
        columns["told apart"] = [
            _KINDS[0] if above else _KINDS[1] if below else "no" for above, below in zip(*told, strict=True)
        ]
        columns["memorised by the original"] = ["yes" if passed else "no" for passed in memorised]
        return AuditResult(rows, findings=findings, per_record=columns, left_out=left_out)

    def _passed(self, tables: Tables, group: str) -> Passed:
        """Which records lie above and which below the bounds of calibration records of their class."""
        margins, unseen = _margins(tables, group), _margins(tables, "calibration")
        above, below = np.zeros(len(margins), bool), np.zeros(len(margins), bool)
        classes = classes_of(tables[group]), classes_of(tables["calibration"])
        for which, (same,) in strata(*classes, least=max(self.least, least_unseen(self.level))):
            low, high = unseen_bounds(unseen[same], self.level)
            above[which], below[which] = margins[which] > high, margins[which] < low
        return above, below

    def _population(self, context: AuditContext, tables: Tables) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        margins = {group: _margins(tables, group) for group in ("forget", "retain", "calibration")}
        classes = [classes_of(tables[group]) for group in margins]
        found = np.zeros((3, len(margins["forget"])))
        for which, (seen, unseen) in strata(*classes, least=self.least):
            found[:, which] = density_log_ratio(
                margins["forget"][which], margins["retain"][seen], margins["calibration"][unseen],
                resamples=context.resamples, confidence=context.confidence, seed=context.seed,
            )  # fmt: skip
        return found[0], found[1], found[2]


def _margins(tables: Tables, group: str) -> np.ndarray:
    return clipped_margins(tables[group])


def _beside_retrained(context: AuditContext, level: float) -> dict[str, list[Passed]]:
    """Which forget records pass the bounds a further retrained model would keep to; each retrained one beside the others."""
    theirs = np.array([_margins(tables, "forget") for tables in context.models["retrained"]])
    sd, quantile = pooled_sd(theirs), float(scipy_stats.norm.ppf(level))

    def passed(margins: np.ndarray, others: np.ndarray) -> Passed:
        apart, reach = margins - others.mean(axis=0), quantile * sd * np.sqrt(1 + 1 / len(others))
        return apart > reach, apart < -reach

    found = {
        model: [passed(_margins(tables, "forget"), theirs) for tables in context.models[model]]
        for model in ("original", "unlearned")
    }
    rest = [np.delete(theirs, place, axis=0) for place in range(len(theirs))]
    return found | {"retrained": [passed(own, others) for own, others in zip(theirs, rest, strict=True)]}


def _gaussian(context: AuditContext) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    seen, unseen = (
        np.array([_margins(tables, "forget") for tables in context.models[model]])
        for model in ("original", "retrained")
    )
    return gaussian_log_ratio(
        _margins(context.models["unlearned"][0], "forget"), seen, unseen, resamples=context.resamples,
        confidence=context.confidence, seed=context.seed,
    )  # fmt: skip


def _rows(context: AuditContext, bound: str, group: str, passed: dict[str, list[Passed]]) -> list[Measurement]:
    """Share of records that pass the bound, on each side, with Clopper-Pearson's interval."""
    rows, n = [], len(context.models["original"][0][group])
    for place, side in enumerate(_SIDES):
        shares = {model: [float(one[place].mean()) for one in found] for model, found in passed.items()}

        def share(model: str, shares: dict[str, list[float]] = shares) -> Interval:
            return clopper_pearson(float(np.mean(shares[model])) * n, n, context.confidence)

        rows += context.rows(
            _NAME, f"records {bound.format(side=side)}", group, share, shares["retrained"], n=n,
            unit=f"share of {group} records", direction="as retrained",
        )  # fmt: skip
    return rows


def _columns(name: str, found: tuple[np.ndarray, np.ndarray, np.ndarray]) -> dict[str, Sequence[Any]]:
    ends = (name, f"{name}, low", f"{name}, high")
    return {end: [round(float(x), 3) for x in values] for end, values in zip(ends, found, strict=True)}


def _population_findings(
    context: AuditContext, forget: dict[str, list[Passed]], unseen: dict[str, list[Passed]]
) -> list[Finding]:
    findings = []
    for place, (side, kind) in enumerate(zip(_SIDES, _KINDS, strict=True)):
        (ours,), (control,) = forget["unlearned"], unseen["unlearned"]
        apart = _difference(ours[place], control[place], context)
        theirs = [
            float(one[place].mean() - other[place].mean())
            for one, other in zip(forget["retrained"], unseen["retrained"], strict=True)
        ]
        if apart.low > max([0.0, *theirs]):
            sentence = (
                f"{ours[place].mean():.1%} of the forget records lie {side} the bound that {control[place].mean():.1%} of the "
                f"evaluation records pass (difference {apart.value:+.1%} [{apart.low:+.1%}, {apart.high:+.1%}])."
            )
            findings.append(Finding(audit=_NAME, kind=kind, sentence=sentence))
    return findings


def _retrained_findings(context: AuditContext, beside: dict[str, list[Passed]]) -> list[Finding]:
    findings = []
    for place, (side, kind) in enumerate(zip(_SIDES, _KINDS, strict=True)):
        ours, theirs = beside["unlearned"][0][place], [one[place] for one in beside["retrained"]]
        most = max(float(one.mean()) for one in theirs)
        found = clopper_pearson(int(ours.sum()), len(ours), _two_sided(context))
        if found.low > most:
            sentence = (
                f"{found.value:.1%} [{found.low:.1%}, {found.high:.1%}] of the forget records lie {side} the bound for a model "
                f"retrained without them; of the retrained models judged by the others at most {most:.1%} do."
            )
            findings.append(Finding(audit=_NAME, kind=kind, sentence=sentence))
    return findings


def _two_sided(context: AuditContext) -> float:
    return 1 - (1 - context.confidence) / 2


def _difference(ours: np.ndarray, control: np.ndarray, context: AuditContext) -> Interval:
    return share_difference(int(ours.sum()), len(ours), int(control.sum()), len(control), _two_sided(context))
