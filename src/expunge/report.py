"""From a record to one self-contained HTML page. Pure: no model, no network, no torch."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from expunge import figures
from expunge.cost_rows import cost_rows
from expunge.glossary import explained
from expunge.page import as_json, draw
from expunge.record import RunRecord
from expunge.record_rows import record_rows
from expunge.summary import MODELS, facts, limits, table, warnings

__all__ = ["HEADLINES", "render", "write"]

HEADLINES = {"reached": "Verdict reached", "not reached": "Verdict not reached", "no power": "Cannot be decided"}
_MOST_DUPLICATES = 200
_FIRST = ("utility", "answers", "membership", "token-membership", "deep-unlearning")


def render(record: RunRecord, folder: str | None = None) -> str:
    """The report as HTML: inline SVG, style and script, everything escaped, no record text, ids as the record shows them.

    Whole without JavaScript up to `record_rows.AT_ONCE` erased records; further rows of their table are data that the
    script pages through.

    Args:
        record: What was done and measured.
        folder: Where the unlearned model lies, for the reader; the record itself does not depend on it.
    """
    record = RunRecord.from_json(record.to_json())  # the order of keys as written: drawn again, the page is the same
    rows = record_rows(record)
    return draw(
        "report.html.jinja",
        scripts=("records.js",),
        record=record,
        sections=_sections(record),
        rows=rows,
        further=as_json(rows.further),
        duplicates=_duplicates(record),
        most_duplicates=_MOST_DUPLICATES,
        costs=cost_rows(record),
        limits=limits(record),
        models=[model for model in MODELS if any(m.model == model for m in record.measurements)],
        measured={m.name for m in record.measurements},
        facts=facts(record),
        glossary=explained(record),
        headline=HEADLINES[record.verdict["outcome"]],
        drawings=_drawings(record),
        warnings=warnings(record),
        folder=folder,
        began=datetime.fromtimestamp(record.timings["started_unix"], UTC).strftime("%Y-%m-%d %H:%M"),
        settings=_settings(record.config),
    )


def _drawings(record: RunRecord) -> dict[str, Any]:
    from markupsafe import Markup

    drawn = {
        "latent_map": figures.latent_map(record),
        "margins": figures.margins(record),
        "roc": figures.roc(record),
        "layers": figures.layers(record),
        "losses": figures.losses(record),
        "stop_rule": figures.stop_rule(record),
    }
    return {name: None if svg is None else Markup(svg) for name, svg in drawn.items()}  # ours, made from numbers


def _sections(record: RunRecord) -> dict[str, list[tuple[str, list[dict[str, Any]]]]]:
    """Rows of the main table by audit, in the order in which the audits ran: those to look at first, and the others."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, by_model in table(record):
        found.setdefault(next(iter(by_model.values())).audit, []).append({"name": name, "by_model": by_model})
    return {
        "first": [entry for entry in found.items() if entry[0] in _FIRST],
        "further": [entry for entry in found.items() if entry[0] not in _FIRST],
    }


def _duplicates(record: RunRecord) -> list[dict[str, Any]]:
    """Each duplicate of a requested record; what was left first, then the most similar."""
    found = [{"of": row["id"], **entry} for row in record.records for entry in row.get("alike", [])]
    return sorted(found, key=lambda entry: (not entry["left"], -entry["similarity"]))


def write(record: RunRecord, folder: str) -> None:
    """Write record.json and report.html into a new folder, whole or not at all."""
    from expunge.folders import whole_folder

    with whole_folder(folder) as place:
        (place / "record.json").write_text(record.to_json(), encoding="utf-8")
        (place / "report.html").write_text(render(record), encoding="utf-8")


def _settings(config: dict[str, Any]) -> str:
    """The settings as a config that `expunge run` takes; what was left out is left out."""
    import tomli_w

    single = {name: value for name, value in config.items() if not isinstance(value, dict) and value is not None}
    tables = {
        name: {key: setting for key, setting in value.items() if setting is not None}
        for name, value in config.items()
        if isinstance(value, dict)
    }
    return tomli_w.dumps({**single, **tables})
