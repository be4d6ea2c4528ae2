"""What an audit is: a frozen dataclass with one function from scores to figures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, ClassVar

import numpy as np

from expunge.options import Options
from expunge.record import Finding, Measurement
from expunge.scoring import ScoreTable
from expunge.stats import Interval, auc, auc_interval, bootstrap, clopper_pearson, noise_floor, tpr_at_fpr

__all__ = [
    "Audit",
    "AuditContext",
    "AuditResult",
    "Tables",
    "attack",
    "attack_found",
    "attack_tpr",
    "classes_of",
    "clipped_margins",
    "distance",
    "of_values",
    "stressed",
    "told_apart",
]

Tables = dict[str, ScoreTable]
"""Group (``forget``, ``retain``, ``calibration``, ``evaluation``) -> scores under one model."""

Read = Callable[[Any], Any]
Statistic = Callable[..., float]


@dataclass(frozen=True)
class AuditContext:
    """Scores of one shared pass over models and records.

    Attributes:
        models: ``original`` and ``unlearned`` with one table each, ``retrained`` with one a retrained model, or none.
        classes: How many classes the models have.
        stressed: What was done to the models or to their input (as an audit's `needs` names it) -> model -> tables, as
            in `models`, or arrays of one value a record; only what some audit of the run needs.
        resamples: Bootstrap resamples.
        confidence: Confidence level of intervals.
        seed: Seed of the bootstrap.
    """

    models: Mapping[str, Sequence[Tables]]
    classes: int
    resamples: int = 1000
    confidence: float = 0.95
    seed: int = 0
    stressed: Mapping[str, Mapping[str, Sequence[Mapping[str, Any]]]] = field(default_factory=dict)

    def estimate(
        self, model: str, groups: Sequence[str], read: Read, statistic: Statistic, *, minus: str | None = None
    ) -> Interval:
        """A statistic of one model (the mean over them where there are several), with a bootstrap interval.

        An AUC (`expunge.stats.auc`) needs no resampling: its interval is `auc_interval`'s.

        Args:
            model: Which model.
            groups: Groups the statistic takes, in order.
            read: What it takes of each group: an array (N, ...).
            statistic: Arrays, one a group -> the figure.
            minus: Another model whose figure is subtracted; records are resampled jointly, so differences are paired.
        """
        if statistic is auc:
            return self.auc(model, groups, read, minus=minus)
        terms = [(1.0, self._arrays(model, groups, read))]
        if minus is not None:
            terms.append((-1.0, self._arrays(minus, groups, read)))

        def figure(positions: list[np.ndarray]) -> float:
            total = 0.0
            for sign, tables in terms:
                values = [statistic(*(a[p] for a, p in zip(arrays, positions, strict=True))) for arrays in tables]
                total += sign * float(np.mean(values))
            return total

        sizes = [len(array) for array in terms[0][1][0]]
        return bootstrap(sizes, figure, resamples=self.resamples, confidence=self.confidence, seed=self.seed)

    def _arrays(self, model: str, groups: Sequence[str], read: Read) -> list[list[np.ndarray]]:
        return [[read(tables[group]) for group in groups] for tables in self.models[model]]

    def values(self, model: str, groups: Sequence[str], read: Read, statistic: Statistic) -> list[float]:
        """The statistic of each model of that name."""
        return [statistic(*arrays) for arrays in self._arrays(model, groups, read)]

    def measure(
        self, audit: str, name: str, groups: Sequence[str], read: Read, statistic: Statistic, *, unit: str,
        direction: str, interval: Callable[[str], Interval] | None = None,
    ) -> list[Measurement]:  # fmt: skip
        """One measurement a model, with its gap to the retrained models' mean and the noise floor among them."""
        retrained = self.values("retrained", groups, read, statistic) if self.models.get("retrained") else []

        def found(model: str) -> Interval:
            return interval(model) if interval else self.estimate(model, groups, read, statistic)

        n = sum(len(self.models["original"][0][group]) for group in groups)
        return self.rows(audit, name, " vs ".join(groups), found, retrained, n=n, unit=unit, direction=direction)

    def rows(
        self, audit: str, name: str, group: str, found: Callable[[str], Interval], retrained: Sequence[float], *, n: int,
        unit: str, direction: str,
    ) -> list[Measurement]:  # fmt: skip
        """One measurement a model of a figure taken elsewhere.

        Args:
            audit: Which audit took it.
            name: What it is.
            group: Records it is about.
            found: Model -> the figure (the mean over the retrained models).
            retrained: The figure of each retrained model.
            n: Records behind it.
            unit: What a value of 1 means.
            direction: ``higher``, ``lower`` or ``as retrained``.
        """
        floor = noise_floor(retrained)
        rows = []
        for model in (model for model, tables in self.models.items() if tables):
            one = found(model)
            row = Measurement(
                audit=audit, name=name, model=model, group=group, value=one.value, low=one.low, high=one.high, n=n,
                unit=unit, direction=direction,
            )  # fmt: skip
            if retrained and model != "retrained":
                gap = abs(one.value - float(np.mean(retrained)))
                row = replace(row, gap=gap, noise_floor=floor, compared="retrain-compared")
            rows.append(row)
        return rows

    def auc(self, model: str, groups: Sequence[str], read: Read, *, minus: str | None = None) -> Interval:
        """AUC of one group over another (mean over a model's tables), or its difference to another model's."""
        others = self._arrays(minus, groups, read) if minus else []
        pairs = [(one, other) for one, other in self._arrays(model, groups, read)]
        return auc_interval(pairs, [(one, other) for one, other in others], self.confidence)


def distance(
    audit: str, name: str, group: str, found: Interval, *, n: int, unit: str, model: str = "unlearned",
    floor: float | None = None, direction: str = "lower",
) -> Measurement:  # fmt: skip
    """A figure that is itself a distance to the retrained models, so that its size is the gap.

    Args:
        audit: Which audit took it.
        name: What it is.
        group: Records it is about.
        found: The distance.
        n: Records behind it.
        unit: What a value of 1 means.
        model: Whose distance; of ``retrained`` that among them, which has no gap.
        floor: The same distance among the retrained models.
        direction: ``lower``, or ``as retrained`` where sides differ.
    """
    beside = model != "retrained"
    return Measurement(
        audit=audit, name=name, model=model, group=group, value=found.value, low=found.low, high=found.high, n=n, unit=unit,
        direction=direction, gap=abs(found.value) if beside else None, noise_floor=floor if beside else None,
        compared="retrain-compared",
    )  # fmt: skip


def classes_of(table: ScoreTable) -> np.ndarray:
    """(N,) class of each record; a record of several units has no one class, and all such records count as one class."""
    return np.zeros(len(table), int) if table.several_units else table.labels


def clipped_margins(table: ScoreTable) -> np.ndarray:
    """(N,) margins within +-20 nats: beyond, log-odds of a label next to certain, they are all the same."""
    return np.clip(table.record_margins, -20.0, 20.0)


def told_apart(audit: str, what: str, apart: Interval, unlearned: float, retrained: Sequence[float]) -> list[Finding]:
    """A finding where forget records score otherwise than they should, in either direction.

    Args:
        audit: Which audit found it.
        what: The figure with its values, for the sentence.
        apart: How far the unlearned model's figure lies above the right value, with its interval.
        unlearned: The unlearned model's figure.
        retrained: That of each retrained model: within their range nothing is found, whatever the interval over
            records says, as seeds differ as well.
    """
    if apart.low > 0 and unlearned > max(retrained, default=-np.inf):
        return [Finding(audit=audit, kind="remembered", sentence=f"Forget records still look trained on: {what}.")]
    if apart.high < 0 and unlearned < min(retrained, default=np.inf):
        sentence = f"Forget records look worse than records never seen, which gives them away as well: {what}."
        return [Finding(audit=audit, kind="over-forgotten", sentence=sentence)]
    return []


def attack_found(context: AuditContext, audit: str, name: str, read: Read) -> list[Finding]:
    """`told_apart` for the AUC of an attack's score, forget over evaluation records.

    Args:
        context: The scores.
        audit: Which audit asks.
        name: The attack, for the sentence.
        read: Table -> (N,) its score, higher for records more like members.
    """
    groups = ["forget", "evaluation"]
    found = context.auc("unlearned", groups, read)
    retrained = context.values("retrained", groups, read, auc)
    words = f"{name} AUC {found.value:.3f} [{found.low:.3f}, {found.high:.3f}], "
    if not retrained:
        apart = Interval(found.value - 0.5, found.low - 0.5, found.high - 0.5)
        return told_apart(audit, words + "0.5 would tell nothing", apart, found.value, [])
    apart = context.auc("unlearned", groups, read, minus="retrained")
    words += f"retrained {np.mean(retrained):.3f}, difference {apart.value:+.3f} [{apart.low:+.3f}, {apart.high:+.3f}]"
    return told_apart(audit, words, apart, found.value, retrained)


def attack_tpr(context: AuditContext, audit: str, name: str, read: Read, fpr: float) -> list[Measurement]:
    """True-positive rates of an attack at a false-positive rate, with Clopper-Pearson intervals; none with too few records."""
    groups = ["forget", "evaluation"]

    def share(forget: np.ndarray, evaluation: np.ndarray) -> float:
        found = tpr_at_fpr(forget, evaluation, fpr)
        return float("nan") if found is None else found.value

    values = {model: context.values(model, groups, read, share) for model in context.models}
    if np.isnan(values["original"][0]):
        return []
    n = len(context.models["original"][0]["forget"])
    return context.measure(
        audit, name, groups, read, share, unit="share of forget records", direction="as retrained",
        interval=lambda model: clopper_pearson(float(np.mean(values[model])) * n, n, context.confidence),
    )  # fmt: skip


def of_values(context: AuditContext, values: Mapping[str, Sequence[Mapping[str, Any]]]) -> AuditContext:
    """The context with values of records (model -> group -> (N,), one mapping a model) in the place of its tables."""
    models: Any = {model: values.get(model, ()) for model in context.models}
    return replace(context, models=models)


@dataclass(frozen=True)
class AuditResult:
    """What an audit found.

    Attributes:
        measurements: Its figures.
        figure: Data for a figure of the report, in plain values.
        not_measured: Why there is nothing, where there is nothing.
        left_out: Figure -> why this one is not measured, where others are.
        findings: What the audit holds against the unlearned model.
        per_record: Name -> one value a forget record (a number, a short text or None): columns of the table of records.
    """

    measurements: Sequence[Measurement] = ()
    figure: dict[str, Any] = field(default_factory=dict)
    findings: Sequence[Finding] = ()
    per_record: Mapping[str, Sequence[Any]] = field(default_factory=dict)
    not_measured: str | None = None
    left_out: Mapping[str, str] = field(default_factory=dict)


def stressed(context: AuditContext, need: str, what: str) -> tuple[AuditContext, None] | tuple[None, str]:
    """The context with what was done to the models in the place of its own tables, or why there is none.

    Args:
        context: The scores.
        need: What, as an audit's `needs` names it.
        what: The same in words, behind "no original model": ``rounded to 8 bits``.
    """
    found = context.stressed.get(need, {})
    lacking = [model for model, several in context.models.items() if len(several) != len(found.get(model, ()))]
    if lacking:
        return None, f"the run has no {' and no '.join(lacking)} model {what}"
    return of_values(context, found), None


def attack(context: AuditContext, audit: str, name: str, read: Read) -> AuditResult:
    """An attack's AUC of forget over evaluation records, its TPR at 1 % FPR, and what is found.

    Args:
        context: The scores.
        audit: Which audit attacks.
        name: The attack.
        read: Table -> (N,) its score, higher for records more like members.
    """
    groups = ["forget", "evaluation"]
    rows = context.measure(
        audit, f"{name} AUC", groups, read, auc, unit="AUC", direction="as retrained",
        interval=lambda model: context.auc(model, groups, read),
    )  # fmt: skip
    rate = f"{name} TPR at 1 % FPR"
    rates = attack_tpr(context, audit, rate, read, 0.01)
    lacking = f"takes 100 evaluation records, there are {len(context.models['original'][0]['evaluation'])}"
    return AuditResult(
        [*rows, *rates], findings=attack_found(context, audit, name, read), left_out={} if rates else {rate: lacking}
    )


@dataclass(frozen=True, kw_only=True)
class Audit(Options):
    """Base of audits: fields are settings, `run` is pure.

    Attributes:
        needs: What the run must carry beyond the scores of every group: ``layers`` (hidden states of every layer), and
            names of what `AuditContext.stressed` holds.
    """

    needs: ClassVar[frozenset[str]] = frozenset()

    @classmethod
    def section(cls) -> str:
        return "audit"

    @abstractmethod
    def run(self, context: AuditContext) -> AuditResult:
        """The audit's figures, from scores alone."""
