"""Latent probe: do hidden states give the forget records away where outputs no longer do?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from scipy.stats import norm

from expunge.audits.base import Audit, AuditContext, AuditResult
from expunge.comparing import Excess, combined_auc, excess
from expunge.options import Positive, PositiveInt, option
from expunge.probe import CROSS_VALIDATION, folds, label_margins, probe_scores
from expunge.record import Finding, Measurement
from expunge.scoring import ScoreTable
from expunge.stats import Interval

__all__ = ["LatentProbe"]

_LEAST = 20
_GROUPS = ("forget", "evaluation")
_CLOSE = 0.03  # an AUC this near the retrained models' counts as theirs
_HEAD = "input of the head"
Folds = Annotated[int, Ge(2)]
Scores = tuple[NDArray[np.float64], NDArray[np.float64]]


@dataclass(frozen=True)
class _Units:
    """The units probed, of both groups: their places in the sample, records, classes and weights."""

    places: list[NDArray[Any]]
    records: list[NDArray[Any]]
    labels: list[NDArray[Any]]
    weights: list[NDArray[Any]]

    @property
    def count(self) -> int:
        """Records of both groups."""
        return sum(len(np.unique(own)) for own in self.records)


@dataclass(frozen=True)
class _Probe:
    """One kind of probe at one layer.

    Attributes:
        kind: ``membership`` or ``label``.
        layer: Number of the layer.
        name: What it is called.
        scores: Model -> for each model of that name the scores of forget and of evaluation units.
        units: The units.
    """

    kind: str
    layer: int
    name: str
    scores: Mapping[str, list[Scores]]
    units: _Units

    def figure(self, *terms: tuple[float, Scores]) -> tuple[float, float]:
        """A sum of AUCs of scores, each times a factor, and its standard error."""
        units = self.units
        value, error = combined_auc(
            [(factor, *scores) for factor, scores in terms],
            records=(units.records[0], units.records[1]),
            weights=(units.weights[0], units.weights[1]),
        )
        return value, error * (CROSS_VALIDATION if self.kind == "membership" else 1.0)

    @property
    def retrained(self) -> list[float]:
        """The AUC of each retrained model."""
        return [self.figure((1.0, scores))[0] for scores in self.scores.get("retrained", ())]

    def above(self, model: str, first: _Probe, confidence: float, figures: int) -> Excess:
        """A model's AUC above the retrained models', or without any above that of its own embeddings."""
        others = self.scores.get("retrained") or [first.scores[model][0]]
        terms = [(-1.0 / len(others), other) for other in others]
        value, error = self.figure((1.0, self.scores[model][0]), *terms)
        return excess(value, error, self.retrained, confidence=confidence, figures=figures)

    def measured(self, context: AuditContext) -> list[Measurement]:
        """The AUC under each model (the mean of the retrained ones)."""
        z = float(norm.ppf((1 + context.confidence) / 2))

        def auc_of(model: str) -> Interval:
            several = self.scores[model]
            value, error = self.figure(*((1.0 / len(several), scores) for scores in several))
            return Interval(value, max(0.0, value - z * error), min(1.0, value + z * error))

        return context.rows(
            "latent-probe", f"{self.kind} probe AUC, {self.name}", " vs ".join(_GROUPS), auc_of, self.retrained,
            n=self.units.count, unit="AUC", direction="as retrained",
        )  # fmt: skip


@dataclass(frozen=True, kw_only=True)
class LatentProbe(Audit):
    """Two linear probes of every layer: do hidden states give the forget records away where outputs no longer do?

    That methods which only mend the outputs leave traces in latent space is DeepCUT's claim (He et al. 2025, arXiv
    2503.14900); this audit makes a figure of it, the AUC of forget over evaluation units at each layer.

    * The *label probe* reads the classes linearly from the states of retained units; forget units whose own label it
      reads better than that of evaluation units are remembered there. It is what a new head would find.
    * The *membership probe* is a logistic regression that tries to tell forget from evaluation units outright,
      cross-validated (a record's units stay in one fold) and averaged over splits. It sees whatever a straight cut
      can see, whether it has to do with labels or not, but needs many records.

    Evaluation units weigh per class what the forget units do, so that a class erased whole is not told by its class; of
    words the most common class (O) weighs half, all others the other half.

    Forget and evaluation records may differ by nature, and then every model's layers tell them apart. So the right value
    is not 0.5 but the same probe's on retrained models: a finding ("trace") is a layer where the unlearned model's AUC
    lies above the retrained models' mean, at a level shared among all probes, with the spread between retrained
    models in it. Without retrained models the unlearned model's own embeddings (layer 0), which see the records' words
    but hardly anything learnt by heart, take their place; that is weaker: a layer may see more of a natural difference
    than words show.

    Intervals: DeLong's, clustered by record; of the membership probe widened by sqrt 2, see `expunge.probe`.
    """

    strength: Positive = option(0.1, "C of the membership probe's logistic regression: small is strongly regularised")
    folds: Folds = option(5, "folds of its cross-validation")
    repeats: PositiveInt = option(2, "random splits into folds that are averaged")

    needs: ClassVar[frozenset[str]] = frozenset({"layers"})

    def run(self, context: AuditContext) -> AuditResult:
        units, reason = _units(context)
        if units is None:
            return AuditResult(not_measured=reason)
        probes = self._probes(context, units)
        firsts = {probe.kind: probe for probe in reversed(probes)}
        above = {
            model: [probe.above(model, firsts[probe.kind], context.confidence, len(probes)) for probe in probes]
            for model in ("original", "unlearned")
        }
        measured = [probe.measured(context) for probe in probes]
        compared = "retrained" if context.models.get("retrained") else "layer 0"
        figure: dict[str, Any] = {"compared": compared}
        for kind in firsts:
            own = [place for place, probe in enumerate(probes) if probe.kind == kind]
            figure[kind] = {
                "layers": [probes[place].name for place in own],
                "auc": {
                    model: [_rounded(m) for place in own for m in measured[place] if m.model == model]
                    for model in probes[0].scores
                },
                "above": {model: [_rounded(several[place]) for place in own] for model, several in above.items()},
            }
            if compared == "retrained":
                figure[kind]["like_retrained"] = [_like(context, above["unlearned"][place]) for place in own]
        findings = _finding(context, probes, measured, above["unlearned"])
        return AuditResult([m for rows in measured for m in rows], figure={"latent_probe": figure}, findings=findings)

    def _probes(self, context: AuditContext, units: _Units) -> list[_Probe]:
        rng = np.random.default_rng([context.seed, 7])
        splits = [folds(units.records, self.folds, rng) for _ in range(self.repeats)]
        found: dict[tuple[str, int], dict[str, list[Scores]]] = {}
        for model, several in context.models.items():
            for tables in several:
                retain = tables["retain"]
                assert retain.layer_units is not None
                known = retain.labels[retain.layer_units]
                states = [_states(retain, None)]
                states += [_states(tables[group], own) for group, own in zip(_GROUPS, units.places, strict=True)]
                for layer, (fitted, *both) in enumerate(zip(*states, strict=True)):
                    read = label_margins((fitted, known), list(zip(both, units.labels, strict=True)), context.classes)
                    cut = probe_scores(both, units.weights, splits, self.strength)
                    for kind, scores in (("label", (read[0], read[1])), ("membership", cut)):
                        found.setdefault((kind, layer), {}).setdefault(model, []).append(scores)
        last = max(layer for _, layer in found)
        ends = bool(context.models["original"][0]["forget"].hidden.shape[1])
        return [
            _Probe(kind, layer, _HEAD if ends and layer == last else f"layer {layer}", scores, units)
            for (kind, layer), scores in found.items()
        ]


def _units(context: AuditContext) -> tuple[_Units | None, str | None]:
    """What is probed; None and the reason where there is nothing to probe."""
    shapes = set()
    for model, several in context.models.items():
        for tables in several:
            for group in ("retain", *_GROUPS):
                table = tables[group]
                if table.layers is None or table.layer_units is None:
                    return None, f"no hidden states of every layer of the {model} model were kept"
                shapes.add(table.layers.shape[1:])
    if len(shapes) > 1:
        return None, f"the models have layers of different number or width: {sorted(shapes)}"
    tables = context.models["original"][0]
    labels = [_sampled(tables[group]) for group in _GROUPS]
    shared = np.intersect1d(labels[0][0], labels[1][0])
    places = [np.flatnonzero(np.isin(own, shared)) for own, _ in labels]
    records = [records[place] for (_, records), place in zip(labels, places, strict=True)]
    counts = [len(np.unique(own)) for own in records]
    if min(counts) < _LEAST:
        what = f"{counts[0]} forget and {counts[1]} evaluation records of the same classes"
        return None, f"a probe needs at least {_LEAST} records on either side, and there are {what}"
    forget, evaluation = (own[place] for (own, _), place in zip(labels, places, strict=True))
    counts_of = [np.bincount(own, minlength=int(shared.max()) + 1) for own in (forget, evaluation)]
    weight = np.ones(len(counts_of[0]))
    common = int(counts_of[0].argmax())
    if tables["forget"].several_units and counts_of[0][common] < len(forget):
        weight[common] = (len(forget) - counts_of[0][common]) / counts_of[0][common]
    weights = [weight[forget], (weight * counts_of[0] / np.maximum(1, counts_of[1]))[evaluation]]
    return _Units(places, records, [forget, evaluation], weights), None


def _sampled(table: ScoreTable) -> tuple[NDArray[Any], NDArray[Any]]:
    """Class and record of each sampled unit."""
    units = table.layer_units
    assert units is not None
    return table.labels[units], np.searchsorted(table.offsets, units, side="right") - 1


def _states(table: ScoreTable, places: NDArray[Any] | None) -> list[NDArray[Any]]:
    """The sampled units' states (those at `places`) for each layer, and last the input of the head where it was kept."""
    assert table.layers is not None
    assert table.layer_units is not None
    at = np.arange(len(table.layers)) if places is None else places
    found = [table.layers[at, layer] for layer in range(table.layers.shape[1])]
    return [*found, table.hidden[table.layer_units[at]]] if table.hidden.shape[1] else found


def _rounded(found: Measurement | Excess) -> list[float]:
    return [round(float(number), 4) for number in (found.value, found.low, found.high)]


def _like(context: AuditContext, found: Excess) -> str:
    """Whether the 90 % interval of the difference lies within 0.03 of 0, outside of it, or across its edge."""
    z = float(norm.ppf((1 + context.confidence) / 2))
    half = (found.high - found.value) / z * float(norm.ppf(0.95))
    low, high = found.value - half, found.value + half
    if low >= -_CLOSE and high <= _CLOSE:
        return "yes"
    return "no" if low > _CLOSE or high < -_CLOSE else "not decided"


def _finding(
    context: AuditContext, probes: Sequence[_Probe], measured: Sequence[Sequence[Measurement]], above: Sequence[Excess]
) -> list[Finding]:
    clear = [place for place, found in enumerate(above) if found.clear]
    if not clear:
        return []
    worst = max(clear, key=lambda place: above[place].value)
    probe, difference = probes[worst], above[worst]
    unlearned = next(m for m in measured[worst] if m.model == "unlearned")
    if count := len(context.models.get("retrained", ())):
        mean = float(np.mean(probe.retrained))
        beside = f"in {count} model{'s' if count > 1 else ''} retrained without them ({mean:.3f})"
    else:
        beside = f"in its own embeddings ({unlearned.value - difference.value:.3f}; no retrained model was given)"
    membership = context.auc("unlearned", _GROUPS, lambda table: table.record_margins)
    unseen = ", though its outputs look unseen" if membership.low <= 0.5 else ""
    sentence = (
        f"A linear {probe.kind} probe tells forget from held-out records at the {probe.name} with AUC "
        f"{unlearned.value:.3f} [{unlearned.low:.3f}, {unlearned.high:.3f}], better than {beside}: difference "
        f"{difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}], clear in {len(clear)} of {len(probes)} "
        f"probes{unseen}."
    )
    return [Finding(audit="latent-probe", kind="trace", sentence=sentence)]
