"""Does O3's detector know the request's records from the rest?"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult
from expunge.record import Measurement
from expunge.stats import Interval, auc_interval, bootstrap

__all__ = ["Detector"]


@dataclass(frozen=True, kw_only=True)
class Detector(Audit):
    """Whether the newest request's detector of an O3 model knows the request's records from held-out ones, and what it does.

    AUROC of the weight w, with which the adapters are loaded, forget over evaluation records (O3, Gao et al. 2025, arXiv
    2407.10223, takes the AUROC of its detectors): 1 is right where the request is of a kind of its own. Of records drawn at
    random from the same distribution 0.5 is all there is to find above chance, unless it knows them by heart. Then the mean
    weight of both groups. Held-out records of a class that is erased whole are left out: they are of the request's kind.

    The detector was fitted on four fifths of the forget records: it is judged on what it has seen, beside what it has not.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"detected"})

    def run(self, context: AuditContext) -> AuditResult:
        found = context.stressed.get("detected", {}).get("unlearned", ())
        if not found or "forget" not in found[0]:
            return AuditResult(not_measured="the model has no detector: it is not one that o3 left")
        forget, evaluation = (np.asarray(found[0][group], dtype=float) for group in ("forget", "evaluation"))
        rest = evaluation[_of_the_rest(context)]
        if not len(rest):
            return AuditResult(not_measured="all held-out records are of classes that are erased whole")

        def row(name: str, group: str, value: Interval, n: int, unit: str, direction: str) -> Measurement:
            return Measurement(
                audit="detector", name=name, model="unlearned", group=group, value=value.value, low=value.low,
                high=value.high, n=n, unit=unit, direction=direction,
            )  # fmt: skip

        both = auc_interval([(forget, rest)], [], context.confidence)
        rows = [row("detector AUROC", "forget vs evaluation", both, len(forget) + len(rest), "AUC", "higher")]
        for group, values, direction in (("forget", forget, "higher"), ("evaluation", rest, "lower")):
            mean = bootstrap(
                [len(values)], lambda at, values=values: float(values[at[0]].mean()), resamples=context.resamples,
                confidence=context.confidence, seed=context.seed,
            )  # fmt: skip
            rows.append(row("mean weight of the adapters", group, mean, len(values), "share loaded", direction))
        return AuditResult(rows, per_record={"detector's weight": [round(float(w), 4) for w in forget]})


def _of_the_rest(context: AuditContext) -> np.ndarray:
    """Which evaluation records are of no class that is erased whole; of units within records all.

    A class that is to forget is taken to be erased whole where no record of the retained sample has it.
    """
    tables = context.models["unlearned"][0]
    if tables["evaluation"].several_units:
        return np.ones(len(tables["evaluation"]), dtype=bool)
    labels = tables["evaluation"].labels
    return ~np.isin(labels, tables["forget"].labels) | np.isin(labels, tables["retain"].labels)
