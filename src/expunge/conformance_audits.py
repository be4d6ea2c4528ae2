"""What every audit owes its users, checked on made-up scores: `expunge.testing.check_audit`."""

from __future__ import annotations

import copy
import inspect
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult, Tables
from expunge.conformance import check_options, require, rule
from expunge.data.rewording import REWORDINGS
from expunge.record import Measurement
from expunge.scoring import ScoreTable
from expunge.stress import RELEARNING_STEPS

__all__ = ["check_audit"]

_SIZES = {"forget": 24, "retain": 40, "calibration": 30, "evaluation": 36}
_COMPARED = ("retrain-compared", "population-only")
_KINDS = ("remembered", "over-forgotten", "trace", "incomplete", "harm", "came back")
_ROWS = ("labels", "predictions", "margins", "losses", "hidden", "layers", "layer_units")
_BARE = "no layers and nothing stressed"
_DIRECTIONS = ("higher", "lower", "as retrained")


def check_audit(audit: Any) -> None:
    """Check that an audit keeps the rules every audit must keep; for plug-in authors' own tests.

    It can be built without arguments, is frozen, round-trips through plain values and says what it is in its docstring.
    On scores of texts and of tags, beside no, one and two retrained models, it answers the same twice and leaves the
    scores as they were; every figure is finite and has a name, a unit, a direction, an n and an interval, and a gap
    where the retrained models have it too; what it gives the report is plain JSON. On scores that decide nothing (one
    record a group, all records alike, no hidden states) it says "not measured" with its reason, or has a finite figure,
    but does not raise; and where the run has not made what its `needs` name it does say "not measured".

    Args:
        audit: A subclass of `Audit`, or an instance whose settings are to be checked.

    Raises:
        AssertionError: A rule is broken; the message names the audit, the rule and the scores.
    """
    cls = audit if isinstance(audit, type) else type(audit)
    check_options(cls, Audit)
    with rule(cls, "its docstring says what it is"):
        require(bool((inspect.getdoc(cls) or "").strip()), "there is none")
    built = audit if isinstance(audit, Audit) else cls()
    for words, context in _contexts():
        with rule(cls, f"it is pure: same answer twice, scores left as they were ({words})"):
            before = copy.deepcopy(context)
            first = built.run(context)
            require(isinstance(first, AuditResult), f"it answers {first!r}, no AuditResult")
            require(_as_text(context) == _as_text(before), "the scores were changed")
            # As text, in which NaN equals NaN: whether figures are finite is another rule's business.
            require(repr(first) == repr(built.run(context)), "two answers differ")
        with rule(cls, f"it measures, or says why it did not ({words})"):
            if first.not_measured is not None:
                require(bool(first.not_measured.strip()), "not_measured gives no reason")
                require(not first.measurements, "it has figures as well as a reason for having none")
            else:
                require(bool(first.measurements or first.figure), "it has neither a figure nor a reason")
                bare = words == _BARE and built.needs
                require(not bare, f"it has a figure though the run made nothing of its needs: {sorted(built.needs)}")
        with rule(cls, f"every figure is finite and has name, unit, direction, n and interval ({words})"):
            retrained = {(m.name, m.group) for m in first.measurements if m.model == "retrained"}
            for measurement in first.measurements:
                _check(
                    measurement, len(context.models["retrained"]), (measurement.name, measurement.group) in retrained
                )
        with rule(cls, f"what it gives the report is plain JSON ({words})"):
            json.dumps(first.figure, allow_nan=False)
            json.dumps(dict(first.per_record), allow_nan=False)
        with rule(cls, f"values per record are one a forget record ({words})"):
            count = len(context.models["original"][0]["forget"])
            for name, values in first.per_record.items():
                require(len(values) == count, f"{name}: {len(values)} values for {count} records")
        with rule(cls, f"a finding has one of the known kinds and a sentence ({words})"):
            for finding in first.findings:
                require(finding.kind in _KINDS, f"kind is {finding.kind!r}, allowed: {_KINDS}")
                require(bool(finding.sentence.strip()), "a finding without a sentence")


def _check(found: Measurement, retrained: int, shared: bool) -> None:
    """One figure; `shared`: whether the retrained models have it too, so that there is something to take a gap to."""
    where = f"{found.name or 'a figure without name'} of {found.model}, {found.group}"
    for field in ("audit", "name", "model", "group", "unit"):
        require(bool(str(getattr(found, field)).strip()), f"{where}: {field} is empty")
    require(found.direction in _DIRECTIONS, f"{where}: direction is {found.direction!r}, allowed: {_DIRECTIONS}")
    require(found.n > 0, f"{where}: n is {found.n}")
    numbers = [found.value, found.low, found.high]
    numbers += [number for number in (found.gap, found.noise_floor) if number is not None]
    require(all(math.isfinite(number) for number in numbers), f"{where}: not finite: {numbers}")
    require(found.low <= found.high, f"{where}: the interval is [{found.low}, {found.high}]")
    require(found.compared in _COMPARED, f"{where}: compared is {found.compared!r}, allowed: {_COMPARED}")
    if found.model == "retrained" or not retrained:
        require(found.gap is None, f"{where}: the gap is {found.gap} beside {retrained} retrained models")
    elif shared or found.compared == "retrain-compared":
        require(found.gap is not None, f"{where}: the gap is None beside {retrained} retrained models")


def _contexts() -> Iterator[tuple[str, AuditContext]]:
    for retrained in (0, 1, 2):
        for units in (1, 3):
            kind = "texts" if units == 1 else "tags"
            yield f"{kind}, {retrained} retrained models", _context(retrained, units)
        yield f"tokens, {retrained} retrained models", _changed(_context(retrained, 3), _of_tokens)
    plain = _context(1, 1)
    yield "one record a group", _changed(plain, _first)
    yield "all records alike", _changed(plain, _alike)
    yield "no hidden states", _changed(plain, _without_hidden)
    yield _BARE, replace(_changed(plain, _without_layers), stressed={})


def _context(retrained: int, units: int) -> AuditContext:
    models = {
        "original": [_tables(2.0, units, 1)],
        "unlearned": [_tables(0.5, units, 2)],
        "retrained": [_tables(0.4, units, 3 + seed) for seed in range(retrained)],
    }
    return AuditContext(models=models, classes=3, resamples=20, seed=0, stressed=_stressed(models, units))


def _stressed(models: Mapping[str, Sequence[Tables]], units: int) -> dict[str, dict[str, list[Tables]]]:
    """What a run offers audits that need it, named as `expunge.stress` names it."""
    found: dict[str, dict[str, list[Any]]] = {
        name: {} for name in ("int8", "relearned", "reworded", "alternatives", "written", "gradients")
    }
    found["reference"] = {"base": [_tables(0.0, units, 90)]}
    for place, (model, several) in enumerate(models.items()):
        if not several:  # a run leaves no entry for models that it does not have
            continue
        seeds = [100 * place + 10 * number for number in range(len(several))]
        found["int8"][model] = [_tables(1.0, units, seed) for seed in seeds]
        found["reworded"][model] = [
            {
                f"{group}, {how}": _table(_SIZES[group], units, 0.5, [seed, row, number])
                for row, group in enumerate(("forget", "evaluation"))
                for number, how in enumerate(REWORDINGS)
            }
            for seed in seeds
        ]
        found["relearned"][model] = [
            {
                f"{group} after {step} steps": _table(size, units, 0.5 + 0.1 * step, [seed, row, step])
                for row, (group, size) in enumerate({"part": 12, "new": 12, "rest": 12, "evaluation": 36}.items())
                for step in RELEARNING_STEPS
            }
            for seed in seeds
        ]
        found["alternatives"][model] = [
            {
                f"{group}, {kind}": _table(_SIZES[group], units, 0.5 - 0.4 * number, [seed, row, number])
                for row, group in enumerate(("forget", "retain", "evaluation"))
                for number, kind in enumerate(("true", "false 1", "false 2"))
            }
            for seed in seeds
        ]
        for need in ("written", "gradients"):
            found[need][model] = [
                {
                    g: np.random.default_rng([seed, row]).random(_SIZES[g])
                    for row, g in enumerate(("forget", "evaluation"))
                }
                for seed in seeds
            ]
    return found


def _tables(memory: float, units: int, seed: int) -> Tables:
    """Margins around 0.5 nats, higher by `memory` on records the model was trained on."""
    return {
        group: _table(size, units, 0.5 + (memory if group in ("forget", "retain") else 0.0), [seed, place])
        for place, (group, size) in enumerate(_SIZES.items())
    }


def _table(records: int, units: int, shift: float, seed: list[int]) -> ScoreTable:
    count = records * units
    labels = np.random.default_rng(seed[1]).integers(3, size=count)  # the same under every model
    rng = np.random.default_rng(seed)
    margins = rng.normal(shift, 1.0, count)
    right = (margins > 0).reshape(records, units).sum(axis=1)
    return ScoreTable(
        labels=labels,
        predictions=np.where(margins > 0, labels, (labels + 1) % 3),
        margins=margins,
        losses=np.logaddexp(0.0, -margins),
        hidden=rng.normal(size=(count, 5)).astype(np.float32),
        offsets=np.arange(records + 1) * units,
        several_units=units > 1,
        layers=rng.normal(size=(count, 3, 5)).astype(np.float16),
        layer_units=np.arange(count),
        entities=None if units == 1 else np.stack([right, np.full(records, units), np.full(records, units)], axis=1),
    )


def _of_tokens(table: Any) -> Any:
    """As of a language model: no entities, a spread of log-probabilities, texts that can be compressed."""
    if not isinstance(table, ScoreTable):
        return table
    spread = np.stack([-np.abs(table.margins) - 1, np.full(len(table.labels), 0.5)], axis=1)
    return replace(table, entities=None, spread=spread, compressed=np.arange(len(table)) + 9)


def _first(table: Any) -> Any:
    if not isinstance(table, ScoreTable):
        return table[:1]
    cut = {name: getattr(table, name)[:1] for name in _ROWS}
    return replace(table, offsets=table.offsets[:2], **cut)


def _alike(table: Any) -> Any:
    if not isinstance(table, ScoreTable):
        return np.repeat(table[:1], len(table))
    alike = {name: np.repeat(getattr(table, name)[:1], len(table.labels), axis=0) for name in _ROWS}
    return replace(table, **{**alike, "layer_units": table.layer_units})


def _without_hidden(table: Any) -> Any:
    return replace(table, hidden=table.hidden[:, :0]) if isinstance(table, ScoreTable) else table


def _without_layers(table: Any) -> Any:
    return replace(table, layers=None, layer_units=None) if isinstance(table, ScoreTable) else table


def _changed(context: AuditContext, change: Any) -> AuditContext:
    def changed(models: Mapping[str, Sequence[Mapping[str, Any]]]) -> dict[str, list[Any]]:
        return {
            model: [{group: change(table) for group, table in tables.items()} for tables in several]
            for model, several in models.items()
        }

    stressed = {name: changed(models) for name, models in context.stressed.items()}
    return replace(context, models=changed(context.models), stressed=stressed)


def _as_text(context: AuditContext) -> str:
    fields = (*_ROWS, "offsets", "entities")

    def values(table: Any) -> list[Any]:
        return (
            [np.asarray(getattr(table, name)).tolist() for name in fields]
            if isinstance(table, ScoreTable)
            else [*table]
        )

    return repr([
        (model, group, values(table))
        for models in (context.models, *context.stressed.values())
        for model, several in models.items() for tables in several for group, table in tables.items()
    ])  # fmt: skip
