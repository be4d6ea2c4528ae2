"""Deep unlearning: can a forgotten fact still be deduced from what the model answers?"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult, stressed
from expunge.deep.measures import Depth, depth
from expunge.errors import RunError
from expunge.record import Finding, Measurement
from expunge.stats import Interval, bootstrap, clopper_pearson

__all__ = ["DeepUnlearning"]


@dataclass(frozen=True, kw_only=True)
class DeepUnlearning(Audit):
    """Whether forgotten facts can still be deduced, by rules, from the facts the model answers, and what else it lost.

    EDU-RELAT (Wu et al. 2024, arXiv 2410.15153; later Eval-DU). The model is asked every fact of `data.facts`; those it
    no longer answers are forgotten. Of each forget record that is one of the facts (a target): is it forgotten itself
    (superficial forgetting); can it no longer be deduced by `data.rules` (success); the largest share of a minimal
    deep-unlearning set that is forgotten (recall); and the shares of the other relations, and of all other facts, still
    answered (accuracy). Means over targets. Intervals resample targets; of a single target, and of shares of targets, they
    are Clopper-Pearson's. Where not all minimal sets of a target are known, its recall is a lower bound.

    Finding ("trace"): a target is no longer answered and can be deduced all the same.

    Opt-in; needs `data.facts` with a question each, and asks the model all of them. Forget records that were erased only so
    that another cannot be deduced count as targets too: `expunge deep measure` takes the targets you name.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"facts"})

    def run(self, context: AuditContext) -> AuditResult:
        found, reason = stressed(context, "facts", "asked its facts")
        if found is None:
            return AuditResult(not_measured=reason)
        values: Any = found.models
        first = values["original"][0]
        if "known" not in first:
            return AuditResult(not_measured="no facts are named (data.facts), or the model writes no answers")
        if not first["targets"]:
            return AuditResult(not_measured="no forget record is one of the facts, by question and answer")
        facts, targets = first["facts"], first["targets"]
        try:
            sets = {target: facts.sets(target)[0] for target in targets}
        except RunError as error:  # a target that background facts alone imply
            return AuditResult(not_measured=str(error))
        depths = {
            model: [
                [depth(facts.base, t, np.flatnonzero(~one["known"]).tolist(), sets[t]) for t in targets]
                for one in several
            ]
            for model, several in values.items()
        }
        rows: list[Measurement] = []
        for name, read, unit, behind in _figures(len(facts.ids), len(facts.base.ruled)):
            rows += found.rows(
                "deep-unlearning", name, "forget",
                lambda model, read=read, behind=behind: _interval(depths[model], read, behind, context),
                [float(np.mean([read(own) for own in one])) for one in depths["retrained"]],
                n=len(targets), unit=unit, direction="higher",
            )  # fmt: skip
        left = sum(own.superficial and not own.success for own in depths["unlearned"][0])
        findings = []
        if left:
            share = f"{left} of {len(targets)} targets"
            sentence = f"{share} are no longer answered, and can be deduced by the rules from facts that are."
            findings = [Finding(audit="deep-unlearning", kind="trace", sentence=sentence)]
        return AuditResult(rows, findings=findings)


_Read = Callable[[Depth], float]
_Behind = Callable[[Depth], int]


def _figures(facts: int, ruled: int) -> list[tuple[str, _Read, str, _Behind | None]]:
    """Name, what it reads, unit, and facts behind one target's figure; None where that is yes or no."""
    return [
        ("superficial forgetting", lambda own: float(own.superficial), "share of targets", None),
        ("success: cannot be deduced", lambda own: float(own.success), "share of targets", None),
        ("recall", lambda own: own.recall, "mean share of a minimal set", lambda own: own.minimal),
        ("accuracy, other relations", lambda own: _or_one(own.accuracy), "mean share", lambda own: ruled - own.minimal),
        ("accuracy, all other facts", lambda own: _or_one(own.accuracy_all), "mean share", lambda own: facts - own.minimal),
    ]  # fmt: skip


def _or_one(accuracy: float) -> float:
    """Where no fact lies outside a minimal set, none was lost."""
    return 1.0 if np.isnan(accuracy) else accuracy


def _interval(
    several: Sequence[Sequence[Depth]], read: _Read, behind: _Behind | None, context: AuditContext
) -> Interval:
    values = np.array([[read(own) for own in one] for one in several]).mean(axis=0)
    mean, n = float(values.mean()), len(values)
    if behind is None or n == 1:
        count = n if behind is None else max(1, behind(several[0][0]))
        return clopper_pearson(mean * count, count, context.confidence)
    return bootstrap(
        [n], lambda drawn: float(values[drawn[0]].mean()), resamples=context.resamples, confidence=context.confidence,
        seed=context.seed,
    )  # fmt: skip
