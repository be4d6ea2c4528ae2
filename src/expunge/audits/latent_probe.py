"""Latent probe: do hidden states give the forget records away where outputs no longer do?"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from annotated_types import Ge
from numpy.typing import NDArray
from scipy.stats import norm

from expunge.audits.base import Audit, AuditContext, AuditResult, Tables
from expunge.comparing import Excess, combined_auc, excess
from expunge.options import Positive, PositiveInt, option
from expunge.probe import CROSS_VALIDATION, folds, probe_scores
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
    """The units probed, of both groups: their places in the sample, records and weights."""

    places: list[NDArray[Any]]
    records: list[NDArray[Any]]
    weights: list[NDArray[Any]]

    @property
    def count(self) -> int:
        """Records of both groups."""
        return sum(len(np.unique(own)) for own in self.records)

    def figure(self, *terms: tuple[float, Scores]) -> tuple[float, float]:
        """A sum of AUCs of out-of-fold scores, each times a factor, and its standard error."""
        value, error = combined_auc(
            [(factor, *scores) for factor, scores in terms],
            records=(self.records[0], self.records[1]),
            weights=(self.weights[0], self.weights[1]),
        )
        return value, error * CROSS_VALIDATION


@dataclass(frozen=True, kw_only=True)
class LatentProbe(Audit):
    """A logistic regression per layer that tries to tell forget from evaluation units by their hidden states.

    That methods which only mend the outputs leave traces in latent space is DeepCUT's claim (He et al. 2025, arXiv
    2503.14900); this audit makes a figure of it. The AUC of each layer is cross-validated (a record's units stay in one
    fold) and averaged over several splits. Evaluation units weigh per class what the forget units do, so that a class
    erased whole is not told by its class. 0.5 means that the layer does not tell them apart.

    Forget and evaluation records may differ by nature, and then every model's layers tell them apart. So the right value
    is not 0.5 but the same probe's on retrained models: a finding ("trace") is a layer where the unlearned model's AUC
    lies above the retrained models' mean, at a level shared among the layers, with the spread between retrained
    models in it. Without retrained models the unlearned model's own embeddings (layer 0), which see the records' words
    but hardly anything learnt by heart, take their place; that is weaker: a layer may see more of a natural difference
    than words show.

    Intervals: DeLong's, clustered by record and widened by sqrt 2 for cross-validation, see `expunge.probe`.
    """

    strength: Positive = option(0.01, "C of the logistic regression: small is strongly regularised")
    folds: Folds = option(5, "folds of the cross-validation")
    repeats: PositiveInt = option(2, "random splits into folds that are averaged")

    needs: ClassVar[frozenset[str]] = frozenset({"layers"})

    def run(self, context: AuditContext) -> AuditResult:
        units, reason = _units(context)
        if units is None:
            return AuditResult(not_measured=reason)
        rng = np.random.default_rng([context.seed, 7])
        splits = [folds(units.records, self.folds, rng) for _ in range(self.repeats)]
        found: dict[str, list[list[Scores]]] = {  # model -> each of that name -> layer -> scores
            model: [
                [probe_scores(states, units.weights, splits, self.strength) for states in _states(tables, units)]
                for tables in several
            ]
            for model, several in context.models.items()
            if several
        }
        layers = len(found["original"][0])
        names = [f"layer {layer}" for layer in range(layers)]
        if context.models["original"][0]["forget"].hidden.shape[1]:
            names[-1] = _HEAD
        measurements = [m for layer in range(layers) for m in _measured(context, units, found, layer, names[layer])]
        compared = "retrained" if "retrained" in found else "layer 0"
        above = {
            model: [self._excess(context, units, found, model, layer, layers) for layer in range(layers)]
            for model in ("original", "unlearned")
        }
        figure = {"layers": names, "compared": compared, "auc": {}, "above": {}}
        for model in found:
            own = [m for m in measurements if m.model == model]
            figure["auc"][model] = [_rounded(m.value, m.low, m.high) for m in own]
        for model, several in above.items():
            figure["above"][model] = [_rounded(e.value, e.low, e.high) for e in several]
        if compared == "retrained":
            figure["like_retrained"] = [_like(context, e) for e in above["unlearned"]]
        findings = _finding(context, names, above["unlearned"], figure["auc"], compared)
        return AuditResult(measurements, figure={"latent_probe": figure}, findings=findings)

    def _excess(
        self, context: AuditContext, units: _Units, found: Mapping[str, list[list[Scores]]], model: str, layer: int,
        layers: int,
    ) -> Excess:  # fmt: skip
        own = found[model][0][layer]
        if others := found.get("retrained"):
            terms = [(-1.0 / len(others), other[layer]) for other in others]
            retrained = [units.figure((1.0, other[layer]))[0] for other in others]
        else:
            terms, retrained = [(-1.0, found[model][0][0])], []
        value, error = units.figure((1.0, own), *terms)
        return excess(value, error, retrained, confidence=context.confidence, figures=layers)


def _units(context: AuditContext) -> tuple[_Units | None, str | None]:
    """What is probed; None and the reason where there is nothing to probe."""
    shapes = set()
    for model, several in context.models.items():
        for tables in several:
            for group in _GROUPS:
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
    size = int(shared.max()) + 1
    ratio = np.bincount(forget, minlength=size) / np.maximum(1, np.bincount(evaluation, minlength=size))
    return _Units(places, records, [np.ones(len(forget)), ratio[evaluation]]), None


def _sampled(table: ScoreTable) -> tuple[NDArray[Any], NDArray[Any]]:
    """Class and record of each sampled unit."""
    units = table.layer_units
    assert units is not None
    return table.labels[units], np.searchsorted(table.offsets, units, side="right") - 1


def _states(tables: Tables, units: _Units) -> list[list[NDArray[Any]]]:
    """For each layer, and last for the input of the head where it was kept, the states of both groups' units."""
    found: list[list[NDArray[Any]]] = []
    for group, place in zip(_GROUPS, units.places, strict=True):
        table = tables[group]
        assert table.layers is not None
        own = [table.layers[place, layer] for layer in range(table.layers.shape[1])]
        if table.hidden.shape[1]:
            assert table.layer_units is not None
            own.append(table.hidden[table.layer_units[place]])
        found.append(own)
    return [list(pair) for pair in zip(*found, strict=True)]


def _measured(
    context: AuditContext, units: _Units, found: Mapping[str, list[list[Scores]]], layer: int, name: str
) -> list[Measurement]:
    """The layer's AUC under each model (the mean of the retrained ones)."""
    z = float(norm.ppf((1 + context.confidence) / 2))

    def auc_of(model: str) -> Interval:
        several = found[model]
        value, error = units.figure(*((1.0 / len(several), scores[layer]) for scores in several))
        return Interval(value, max(0.0, value - z * error), min(1.0, value + z * error))

    retrained = [units.figure((1.0, scores[layer]))[0] for scores in found.get("retrained", ())]
    return context.rows(
        "latent-probe", f"probe AUC, {name}", " vs ".join(_GROUPS), auc_of, retrained, n=units.count, unit="AUC",
        direction="as retrained",
    )  # fmt: skip


def _rounded(*values: float) -> list[float]:
    return [round(float(value), 4) for value in values]


def _like(context: AuditContext, found: Excess) -> str:
    """Whether the 90 % interval of the difference lies within 0.03 of 0, outside of it, or across its edge."""
    z = float(norm.ppf((1 + context.confidence) / 2))
    half = (found.high - found.value) / z * float(norm.ppf(0.95))
    low, high = found.value - half, found.value + half
    if low >= -_CLOSE and high <= _CLOSE:
        return "yes"
    return "no" if low > _CLOSE or high < -_CLOSE else "not decided"


def _finding(
    context: AuditContext, names: Sequence[str], above: Sequence[Excess], auc_of: Mapping[str, Any], compared: str
) -> list[Finding]:
    clear = [layer for layer, found in enumerate(above) if found.clear]
    if not clear:
        return []
    worst = max(clear, key=lambda layer: above[layer].value)
    value, low, high = auc_of["unlearned"][worst]
    difference = above[worst]
    if compared == "retrained":
        count = len(context.models["retrained"])
        beside = (
            f"in {count} model{'s' if count > 1 else ''} retrained without them ({auc_of['retrained'][worst][0]:.3f})"
        )
    else:
        beside = f"in its own embeddings ({auc_of['unlearned'][0][0]:.3f}; no retrained model was given)"
    membership = context.auc("unlearned", _GROUPS, lambda table: table.record_margins)
    unseen = ", though its outputs look unseen" if membership.low <= 0.5 else ""
    sentence = (
        f"A linear probe tells forget from held-out records at the {names[worst]} with AUC {value:.3f} [{low:.3f}, "
        f"{high:.3f}], better than {beside}: difference {difference.value:+.3f} [{difference.low:+.3f}, "
        f"{difference.high:+.3f}], clear at {len(clear)} of {len(names)} places{unseen}."
    )
    return [Finding(audit="latent-probe", kind="trace", sentence=sentence)]
