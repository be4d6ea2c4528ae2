"""From scores to a `RunRecord`: run the audits, judge, and write down counts, hashes and costs."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from expunge import registry
from expunge.audits.base import AuditContext, Tables
from expunge.checks import Prepared
from expunge.config_paths import absolute_paths
from expunge.history.returned import finding as came_back
from expunge.history.section import history_section
from expunge.memorisation import Memory, memorised
from expunge.privacy import pseudonym
from expunge.record import Finding, Measurement, RunRecord, environment
from expunge.verdict import incomplete, verdict

__all__ = ["Evidence", "build_record", "data_hmac", "duplicates_of", "request_hmac", "shown_memory"]


@dataclass(frozen=True)
class Evidence:
    """What a run gathered.

    Attributes:
        prepared: Its data and settings.
        models: Score tables: original, unlearned, retrained.
        hashes: Weights' hashes likewise.
        training: Log of the unlearning.
        passes: Example-passes of the training steps.
        check_passes: Example-passes of the stop rule's checks (a forward pass counts a third).
        retraining_passes: Example-passes of one retraining, where the recipe is known.
        timings: Seconds a stage.
        words_cut: Words of a tagger's sentences behind its length.
        stressed: Score tables of what was done to the models for an audit, see `AuditContext.stressed`.
        scoring_passes: Example-passes of the shared scoring pass, over all models.
        stress_passes: Those of what was done to the models, by name.
    """

    prepared: Prepared
    models: dict[str, list[Tables]]
    hashes: dict[str, Any]
    training: dict[str, Any]
    passes: float
    check_passes: float
    retraining_passes: float | None
    timings: dict[str, float]
    words_cut: int = 0
    stressed: dict[str, dict[str, list[Mapping[str, Any]]]] = field(default_factory=dict)
    scoring_passes: float = 0.0
    stress_passes: dict[str, float] = field(default_factory=dict)


def build_record(evidence: Evidence) -> RunRecord:
    """Audit, judge and write down. Pure but for reading the environment's versions."""
    prepared = evidence.prepared
    settings = prepared.config.audit
    context = AuditContext(
        models=evidence.models,
        classes=len(prepared.task.label_names),
        resamples=settings.bootstrap,
        confidence=settings.confidence,
        seed=prepared.config.seed,
        stressed=evidence.stressed,
    )
    left = prepared.left()
    measurements: list[Measurement] = []
    figures: dict[str, Any] = {}
    not_measured: dict[str, str] = {}
    stays = incomplete(left)
    findings = [Finding(audit="duplicates", kind="incomplete", sentence=stays)] if stays else []
    if "offset" in evidence.training:
        findings.append(_still_there(evidence.training["offset"]))
    columns: dict[str, Sequence[Any]] = {}
    for name, audit in prepared.audits.items():
        result = audit.run(context)
        measurements.extend(result.measurements)
        figures.update(result.figure)
        findings.extend(result.findings)
        columns.update(result.per_record)
        if result.not_measured is not None:
            not_measured[name] = result.not_measured
        not_measured.update({f"{name}, {figure}": reason for figure, reason in result.left_out.items()})
    history = history_section(prepared, evidence.models)
    findings += [found for found in map(came_back, history["earlier"]) if found is not None]
    return RunRecord(
        config=_shown_config(prepared),
        environment=environment(),
        data=_data(prepared, evidence.words_cut),
        request=_request(prepared),
        models=evidence.hashes,
        training=evidence.training,
        cost=_cost(evidence),
        measurements=tuple(measurements),
        not_measured=not_measured,
        verdict=verdict(context, settings.max_utility_loss, left),
        figures=figures,
        findings=tuple(findings),
        history=history,
        records=tuple(_rows(evidence, columns)),
        timings=dict(evidence.timings),
    )


def _still_there(offset: Mapping[str, Any]) -> Finding:
    """What must be known of a model that forgets only together with its small pair."""
    large = "The large model, a black box," if offset["black_box"] else "The large model"
    return Finding(
        audit="offset",
        kind="trace",
        sentence=(
            f"{large} was not changed and still holds the records: whoever has it without the offset can read what it learnt. "
            "All figures are of the model with the offset."
        ),
    )


def _shown_config(prepared: Prepared) -> dict[str, Any]:
    """The configuration, with what names people in the request made a pseudonym."""
    config = prepared.config.as_dict()
    absolute_paths(config)
    if prepared.config.privacy.show_ids:
        return config
    request = config["request"]
    request["ids"] = [pseudonym(prepared.salt, i) for i in request["ids"]]
    for rule in ("where", "mention"):
        if request[rule] is not None:
            request[rule] = pseudonym(prepared.salt, request[rule])
    return config


def _data(prepared: Prepared, words_cut: int) -> dict[str, Any]:
    request = prepared.request
    return {
        "train": len(prepared.train),
        "forget": len(request.forget),
        "retain": len(request.retain),
        "calibration": len(prepared.calibration),
        "evaluation": len(prepared.evaluation),
        "held_out_halved": prepared.halved,
        "held_out_dropped": prepared.dropped,
        "held_out_unused": prepared.unused,
        "classes": len(prepared.task.label_names),
        "task": registry.name_of("tasks", type(prepared.task)),
        "max_length": prepared.task.max_length,
        "words_cut": words_cut,
        "hmac": data_hmac(prepared),
    }


def _request(prepared: Prepared) -> dict[str, Any]:
    request = prepared.request
    left = prepared.left()
    return {
        "missing": len(request.missing),
        "duplicates": sum(map(len, request.duplicates.values())),
        "duplicates_added": request.duplicates_added,
        "duplicates_left": left["identical"],
        "near_duplicates": len({match.other for match in request.near}),
        "near_duplicates_added": request.near_added,
        "near_duplicates_left": left["near"] + left["neighbour"],
        "near_held_out": prepared.near_held_out,
        "hmac": request_hmac(prepared),
    }


def data_hmac(prepared: Prepared) -> dict[str, str]:
    """HMAC-SHA256 of all records of each part: by a plain hash, whoever has what is left of the data could try out the rest."""
    parts = {"train": prepared.train, "calibration": prepared.calibration, "evaluation": prepared.evaluation}
    return {
        name: hmac.new(prepared.salt, records.sha256().encode(), hashlib.sha256).hexdigest()
        for name, records in parts.items()
    }


def request_hmac(prepared: Prepared) -> str:
    """HMAC-SHA256 of the sorted ids to forget: equal for equal requests under one salt."""
    ids = sorted(prepared.train.ids[i] for i in prepared.request.forget)
    return hmac.new(prepared.salt, "\n".join(ids).encode(), hashlib.sha256).hexdigest()


def _cost(evidence: Evidence) -> dict[str, Any]:
    total = evidence.passes + evidence.check_passes
    whole = evidence.retraining_passes
    return {
        "unit": "example-passes: forward and backward of one record; forward alone counts a third",
        "training": round(evidence.passes, 2),
        "checks": round(evidence.check_passes, 2),
        "total": round(total, 2),
        "scoring": round(evidence.scoring_passes, 2),
        "stress": {name: round(passes, 2) for name, passes in evidence.stress_passes.items()},
        "retraining": whole,
        "ratio_to_retraining": None if not whole else round(total / whole, 4),
    }


def _rows(evidence: Evidence, columns: Mapping[str, Sequence[Any]]) -> list[dict[str, Any]]:
    """All that is known of each forget record: see `expunge.record_table` for the columns."""
    prepared = evidence.prepared
    request, names = prepared.request, prepared.task.label_names
    original = evidence.models["original"][0]
    memories = memorised(original["forget"], [original["calibration"], original["evaluation"]])
    found = duplicates_of(prepared)
    columns = dict(columns)
    judged = columns.pop("memorised by the original", None)  # beside retrained models it is the better answer
    better = judged if judged is not None and len(evidence.models["retrained"]) > 1 else None
    rows = []
    for place, (position, memory) in enumerate(zip(request.forget, memories, strict=True)):
        record_id = prepared.train.ids[position]
        row: dict[str, Any] = {
            "id": prepared.shown(record_id),
            "named": record_id not in request.added,
            "duplicates": len(request.duplicates.get(record_id, ())),
            "alike": found.get(record_id, []),
            **shown_memory(memory),
        }
        if better is not None:
            row["memorised"] = better[place]
        for model, tables in evidence.models.items():
            if tables:
                row[model] = {
                    "margin": round(float(np.mean([t["forget"].record_margins[place] for t in tables])), 4),
                    "correct": round(float(np.mean([_share(t["forget"].hits[place]) for t in tables])), 4),
                }
                if len(tables) == 1 and not tables[0]["forget"].several_units:
                    row[model]["predicted"] = names[int(tables[0]["forget"].predictions[place])]
        rows.append({**row, **{name: values[place] for name, values in columns.items()}})
    return rows


def shown_memory(memory: Memory) -> dict[str, Any]:
    """Whether the original had memorised a record, as tables hold it."""
    return {"memorised": memory.answer, "percentile": memory.percentile}


def duplicates_of(prepared: Prepared) -> dict[str, list[dict[str, Any]]]:
    """Requested id -> its duplicates: shown id, kind, similarity, and whether each is forgotten too or left."""
    left = prepared.duplicates_left
    found: dict[str, list[dict[str, Any]]] = {}
    pairs = [(i, other, "identical", 1.0) for i, others in prepared.request.duplicates.items() for other in others]
    pairs += [(match.requested, match.other, match.kind, match.similarity) for match in prepared.request.near]
    for requested, other, kind, similarity in pairs:
        entry = {"id": prepared.shown(other), "kind": kind, "similarity": similarity, "left": other in left}
        found.setdefault(requested, []).append(entry)
    return found


def _share(hits: np.ndarray) -> float:
    return float(hits[0] / max(1.0, hits[1]))
