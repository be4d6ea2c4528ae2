"""Agreement: forget records beside records never seen, and each record beside what retrained models say of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np

from expunge.attacks import MODELS_A_SIDE, churn, klom, standardised_shift
from expunge.audits.base import Audit, AuditContext, AuditResult, Tables, classes_of, distance, told_apart
from expunge.options import Positive, option
from expunge.record import Finding, Measurement
from expunge.stats import Interval, clopper_pearson, ks, matched_difference, matched_weights, mean_interval

__all__ = ["Agreement"]

_NAME = "agreement"
_BOTH = "forget vs evaluation"


@dataclass(frozen=True, kw_only=True)
class Agreement(Audit):
    """Whether forget records look like records never seen, and each as under retrained models.

    Beside records never seen (evaluation, weighted to the classes of the forget records; records of several units all
    count as one class): the largest distance between the two distributions of margins (Kolmogorov-Smirnov; its interval
    holds 0 just where the test does not reject) and the difference of their means.

    Beside retrained models, record by record: the mean absolute difference of the margin (clipped) to the mean of the
    retrained models, with one of them left out at a time, and the same of each left-out one (the noise floor), and the
    ratio of the two: 1 is as good as retraining again. Churn: share of units labelled otherwise, pair by pair. With three
    or more the standardised shift, (margin - their mean) / their standard deviation; above 0 remembered. With 32
    unlearned and 32 retrained models KLoM (arXiv 2410.23232).

    Finding: the interval of the mean difference lies off 0 (beside retrained models: off theirs).
    """

    clip: Positive = option(10.0, "margins are clipped at plus and minus this (nats) for means and differences")

    def run(self, context: AuditContext) -> AuditResult:
        if not _common(context):
            return AuditResult(not_measured="no forget record has a class of which there are evaluation records")
        rows = _population(self.clip, context)
        left_out, columns = {}, {}
        retrained = context.models["retrained"]
        if retrained:
            rows += self._per_record(context)
            rows += _churn(context)
            apart = self._margins(context, "unlearned")[0] - self._margins(context, "retrained").mean(axis=0)
            columns["difference to retrained"] = [round(float(x), 4) for x in apart]
        else:
            left_out["per record"] = "there is no retrained model to compare each record with"
        if len(retrained) >= 3:
            shifts, column = self._shift(context)
            rows += shifts
            columns["standardised shift"] = column
        elif retrained:
            left_out["standardised shift"] = f"takes 3 retrained models, there are {len(retrained)}"
        rows += self._klom(context, left_out)
        return AuditResult(rows, findings=_findings(self.clip, context), per_record=columns, left_out=left_out)

    def _margins(self, context: AuditContext, model: str) -> np.ndarray:
        """(models, N) clipped margins of the forget records."""
        return np.clip([t["forget"].record_margins for t in context.models[model]], -self.clip, self.clip)

    def _per_record(self, context: AuditContext) -> list[Measurement]:
        """Differences to every mean of the retrained models that leaves one of them out, averaged: as the floor is taken."""
        theirs = self._margins(context, "retrained")
        means = _left_out_means(theirs)
        floors = np.abs(theirs - means).mean(axis=0) if len(theirs) > 1 else None
        floor = None if floors is None else float(floors.mean())
        name, rows = "margin difference to retrained, per record", []
        for model in ("original", "unlearned"):
            apart = np.abs(self._margins(context, model) - means).mean(axis=0)
            rows.append(distance(
                _NAME, name, "forget", mean_interval(apart, context.confidence), n=len(apart), unit="nats", model=model,
                floor=floor,
            ))  # fmt: skip
            if floors is not None and floor:
                low, high = _ratio_interval(apart, floors, context)
                value = float(apart.mean()) / floor
                times = distance(
                    _NAME, "margin difference over its noise floor", "forget", Interval(value, low, high), n=len(apart),
                    unit="times the floor", model=model,
                )  # fmt: skip
                rows.append(replace(times, gap=abs(value - 1)))  # of a retrained model it is 1
        if floors is not None:
            rows.append(distance(
                _NAME, name, "forget", mean_interval(floors, context.confidence), n=len(floors), unit="nats",
                model="retrained",
            ))  # fmt: skip
        return rows

    def _shift(self, context: AuditContext) -> tuple[list[Measurement], list[float]]:
        theirs = self._margins(context, "retrained")
        rows, columns = [], {}
        rest = [np.delete(theirs, i, axis=0) for i in range(len(theirs))]
        left_out = [float(standardised_shift(own, others).mean()) for own, others in zip(theirs, rest, strict=True)]
        for model in ("original", "unlearned"):
            shift = columns[model] = standardised_shift(self._margins(context, model)[0], theirs)
            rows.append(distance(
                _NAME, "mean standardised shift", "forget", mean_interval(shift, context.confidence), n=len(shift),
                unit="standard deviations", model=model, floor=float(np.abs(left_out).mean()), direction="as retrained",
            ))  # fmt: skip
        return rows, [round(float(x), 3) for x in columns["unlearned"]]

    def _klom(self, context: AuditContext, left_out: dict[str, str]) -> list[Measurement]:
        ours, theirs = (
            [t["forget"].record_margins for t in context.models[model]] for model in ("unlearned", "retrained")
        )
        if min(len(ours), len(theirs)) < MODELS_A_SIDE:
            there = f"there are {len(ours)} unlearned and {len(theirs)} retrained"
            left_out["KLoM"] = f"takes {MODELS_A_SIDE} models a side, {there}"
            return []
        found = klom(np.array(ours), np.array(theirs))
        assert found is not None
        interval = mean_interval(found, context.confidence)
        return [distance(_NAME, "mean KLoM", "forget", interval, n=len(found), unit="nats")]


def _left_out_means(values: np.ndarray) -> np.ndarray:
    """(R, N) mean of the others for each of R models; of one model itself."""
    return values if len(values) < 2 else (values.sum(axis=0) - values) / (len(values) - 1)


def _ratio_interval(above: np.ndarray, below: np.ndarray, context: AuditContext) -> tuple[float, float]:
    """Of a ratio of means over the same records: normal, on the log scale (delta method)."""
    if len(above) < 2 or not above.mean():
        return 0.0, max(1.0, 2 * float(above.mean() / below.mean()))
    parts = above / above.mean() - below / below.mean()
    interval = mean_interval(parts, context.confidence)
    ratio = above.mean() / below.mean()
    return float(ratio * np.exp(interval.low)), float(ratio * np.exp(interval.high))


def _common(context: AuditContext) -> bool:
    tables = context.models["original"][0]
    return bool(matched_weights(classes_of(tables["forget"]), classes_of(tables["evaluation"]))[0].any())


def _matched(tables: Tables) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Margins of the forget records that have a match, of the evaluation records, and the latter's weights."""
    kept, weights = matched_weights(classes_of(tables["forget"]), classes_of(tables["evaluation"]))
    return tables["forget"].record_margins[kept], tables["evaluation"].record_margins, weights


def _population(clip: float, context: AuditContext) -> list[Measurement]:
    n = sum(map(len, _matched(context.models["original"][0])[:2]))

    def distances(model: str) -> list[Interval]:
        return [ks(*_matched(tables), confidence=context.confidence) for tables in context.models[model]]

    rows = context.rows(
        _NAME, "margin distance (KS)", _BOTH, lambda model: _average(distances(model)),
        [found.value for found in distances("retrained")], n=n, unit="share of records", direction="as retrained",
    )  # fmt: skip
    if _contrast(clip, context, context.models["original"]) is None:
        return rows

    def difference(model: str) -> Interval:
        found = _contrast(clip, context, context.models[model])
        assert found is not None
        return found

    single = [_contrast(clip, context, [tables]) for tables in context.models["retrained"]]
    return rows + context.rows(
        _NAME, "mean margin difference", _BOTH, difference, [found.value for found in single if found], n=n, unit="nats",
        direction="as retrained",
    )  # fmt: skip


def _average(intervals: Sequence[Interval]) -> Interval:
    """Of figures on the same records: no narrower than one of them."""
    return Interval(*(float(np.mean([getattr(i, end) for i in intervals])) for end in ("value", "low", "high")))


def _contrast(
    clip: float, context: AuditContext, models: Sequence[Tables], minus: Sequence[Tables] = ()
) -> Interval | None:
    """Mean margin of forget records above that of evaluation records, averaged over models, less that of others."""
    margins = {}
    for group in ("forget", "evaluation"):
        margins[group] = np.mean([np.clip(t[group].record_margins, -clip, clip) for t in models], axis=0)
        if minus:
            margins[group] = margins[group] - np.mean(
                [np.clip(t[group].record_margins, -clip, clip) for t in minus], axis=0
            )
    classes = [classes_of(models[0][group]) for group in ("forget", "evaluation")]
    return matched_difference(margins["forget"], margins["evaluation"], *classes, confidence=context.confidence)


def _findings(clip: float, context: AuditContext) -> list[Finding]:
    unlearned, retrained = context.models["unlearned"], context.models["retrained"]
    found = _contrast(clip, context, unlearned)
    apart = _contrast(clip, context, unlearned, retrained)
    if found is None or apart is None:
        return []
    words = f"their margins lie {found.value:+.2f} [{found.low:+.2f}, {found.high:+.2f}] nats from those of records never seen"
    single = [one.value for tables in retrained if (one := _contrast(clip, context, [tables]))]
    if single:
        words += f"; under retrained models {np.mean(single):+.2f}, difference [{apart.low:+.2f}, {apart.high:+.2f}]"
    return told_apart(_NAME, words, apart, found.value, single)


def _churn(context: AuditContext) -> list[Measurement]:
    name, rows = "prediction churn", []
    retrained = [tables["forget"].predictions for tables in context.models["retrained"]]
    pairs = [(one, other) for i, one in enumerate(retrained) for other in retrained[:i]]
    floor = float(np.mean([churn(*pair) for pair in pairs])) if pairs else None
    offsets = context.models["original"][0]["forget"].offsets
    for model in ("original", "unlearned", "retrained"):
        own = [(tables["forget"].predictions, other) for tables in context.models[model] for other in retrained]
        if model == "retrained":
            own = pairs
        if own:
            apart = np.mean([one != other for one, other in own], axis=0)
            found = _share(apart, offsets, context.confidence)
            rows.append(distance(
                _NAME, name, "forget", found, n=len(offsets) - 1, unit="share of units", model=model, floor=floor,
            ))  # fmt: skip
    return rows


def _share(values: np.ndarray, offsets: np.ndarray, confidence: float) -> Interval:
    """Mean over units; the interval resamples whole records (their sums, linearised)."""
    sizes = np.diff(offsets)
    value = float(values.mean())
    sums = np.array([values[start:end].sum() for start, end in pairwise(offsets)])
    error = mean_interval((sums - value * sizes) / sizes.mean(), confidence)
    if len(set(values.tolist())) == 1 and value in (0.0, 1.0):  # no spread to go by: the exact bound
        exact = clopper_pearson(value * len(sizes), len(sizes), confidence)
        return Interval(value, exact.low, exact.high)
    return Interval(value, max(0.0, value + error.low), min(1.0, value + error.high))
