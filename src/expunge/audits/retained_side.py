"""The retained side: what unlearning did to records that were to stay."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from expunge.attacks import least_unseen, unseen_bounds
from expunge.audits.base import Audit, AuditContext, AuditResult, Tables, clipped_margins
from expunge.options import Fraction, Probability, option
from expunge.record import Finding, Measurement
from expunge.scoring import ScoreTable
from expunge.stats import Interval, auc, clopper_pearson, mean_interval, share_difference

__all__ = ["RetainedSide"]

Turned = tuple[np.ndarray, np.ndarray]
"""Which records turned wrong, and which right."""

_NAME = "retained-side"
_WAY_OUT = "Fewer passes (training.epochs), a lower training.learning_rate or another method harm less."


@dataclass(frozen=True, kw_only=True)
class RetainedSide(Audit):
    """Retained records that unlearning made wrong, or easier to recognise as trained on.

    All beside the original. *Turned wrong*: a record with fewer units labelled right than before (of a text classifier:
    right before, wrong now); *turned right* likewise. *More exposed*: the margin rose, beside that of records never seen,
    by more than it rose for 95 % of calibration records (`level`); evaluation records pass that bound in about 5 %, and
    more retained ones than that means that unlearning gave others' membership away (the privacy onion effect;
    Carlini et al. 2022, arXiv 2206.10469). The exposure AUC is that of retained over evaluation records; the change
    is what counts. Retrained models show what a change of seed alone does.

    Finding (harm): beyond `tolerance`, and beside retrained models beyond each of theirs, more retained records turned
    wrong than right, or more are more exposed than of evaluation records, or the exposure AUC rose.
    """

    level: Fraction = option(0.95, "share of records never seen that lie within the bound of a rise in margin")
    tolerance: Probability = option(0.01, "share of retained records, or rise of the AUC, that is no finding yet")

    def run(self, context: AuditContext) -> AuditResult:
        before, changed = context.models["original"][0], replace(context, models=_changed(context))
        rows: list[Measurement] = []
        findings: list[Finding] = []
        left_out = {}
        turned = {m: [_turned(t["retain"], before["retain"]) for t in ts] for m, ts in changed.models.items()}
        for place, word in enumerate(("wrong", "right")):
            rows += _shares(
                changed, f"records turned {word}", "retain", {m: [t[place] for t in ts] for m, ts in turned.items()}
            )
        findings += self._net(context, turned)
        needed = least_unseen(self.level)
        if len(before["calibration"]) >= needed:
            risen = {
                group: {m: [self._risen(t, before, group) for t in ts] for m, ts in changed.models.items()}
                for group in ("retain", "evaluation")
            }
            for group, of_models in risen.items():
                rows += _shares(changed, "records more exposed than before", group, of_models)
            findings += self._more(context, risen)
        else:
            left_out["records more exposed than before"] = f"takes {needed} calibration records"
        groups = ["retain", "evaluation"]
        rows += context.measure(
            _NAME, "exposure AUC (margin)", groups, clipped_margins, auc, unit="AUC", direction="as retrained",
            interval=lambda model: context.auc(model, groups, clipped_margins),
        )  # fmt: skip
        findings += self._rise(context)
        return AuditResult(rows, findings=findings, left_out=left_out)

    def _risen(self, now: Tables, before: Tables, group: str) -> np.ndarray:
        """(N,) bool: the margin rose by more than that of `level` of the calibration records."""
        unseen, own = (clipped_margins(now[g]) - clipped_margins(before[g]) for g in ("calibration", group))
        return own > unseen_bounds(unseen, self.level)[1]

    def _harm(self, what: str, apart: Interval, retrained: Sequence[float]) -> list[Finding]:
        if apart.low <= max([self.tolerance, *retrained]):
            return []
        beside = f"; of retrained models at most {max(retrained):+.1%}" if retrained else ""
        sentence = f"{what} ({apart.value:+.1%} [{apart.low:+.1%}, {apart.high:+.1%}]{beside}). {_WAY_OUT}"
        return [Finding(audit=_NAME, kind="harm", sentence=sentence)]

    def _net(self, context: AuditContext, turned: dict[str, list[Turned]]) -> list[Finding]:
        net = {model: [wrong.astype(float) - right for wrong, right in ones] for model, ones in turned.items()}
        apart = mean_interval(net["unlearned"][0], context.confidence)
        wrong, right = (int(side.sum()) for side in turned["unlearned"][0])
        several = context.models["original"][0]["retain"].several_units
        less, more = ("are less right than before", "are more right") if several else ("turned wrong", "turned right")
        what = f"{wrong} of {len(net['unlearned'][0])} retained records scored {less} and {right} {more}, a net loss"
        apart = Interval(apart.value, max(-1.0, apart.low), min(1.0, apart.high))
        return self._harm(what, apart, [float(one.mean()) for one in net["retrained"]])

    def _more(self, context: AuditContext, risen: dict[str, dict[str, list[np.ndarray]]]) -> list[Finding]:
        retain, unseen = (risen[group]["unlearned"][0] for group in ("retain", "evaluation"))
        apart = share_difference(int(retain.sum()), len(retain), int(unseen.sum()), len(unseen), context.confidence)
        theirs = zip(risen["retain"]["retrained"], risen["evaluation"]["retrained"], strict=True)
        what = (
            f"{int(retain.sum())} of {len(retain)} retained records scored are more exposed than before, as a share above "
            "that of evaluation records"
        )
        return self._harm(what, apart, [float(one.mean() - other.mean()) for one, other in theirs])

    def _rise(self, context: AuditContext) -> list[Finding]:
        groups = ["retain", "evaluation"]
        apart = context.auc("unlearned", groups, clipped_margins, minus="original")
        first = context.auc("original", groups, clipped_margins).value
        theirs = [value - first for value in context.values("retrained", groups, clipped_margins, auc)]
        return self._harm("Retained records as a whole are easier to recognise than before, by AUC", apart, theirs)


def _changed(context: AuditContext) -> dict[str, Sequence[Tables]]:
    return {model: tables for model, tables in context.models.items() if model != "original"}


def _turned(now: ScoreTable, before: ScoreTable) -> Turned:
    """Which records have fewer units right than before, and which have more."""
    return now.hits[:, 0] < before.hits[:, 0], now.hits[:, 0] > before.hits[:, 0]


def _shares(context: AuditContext, name: str, group: str, found: dict[str, list[np.ndarray]]) -> list[Measurement]:
    shares = {model: [float(one.mean()) for one in several] for model, several in found.items()}
    n = len(found["unlearned"][0])
    return context.rows(
        _NAME, name, group, lambda model: clopper_pearson(float(np.mean(shares[model])) * n, n, context.confidence),
        shares["retrained"], n=n, unit=f"share of {group} records",
        direction="as retrained" if group == "evaluation" else "lower",
    )  # fmt: skip
