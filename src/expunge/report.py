"""From a record to one self-contained HTML page. Pure: no model, no network, no torch."""

from __future__ import annotations

from datetime import UTC, datetime
from importlib import resources
from typing import Any

from expunge import figures
from expunge.glossary import explained
from expunge.record import RunRecord
from expunge.summary import MODELS, facts, limits, record_columns, table, warnings

__all__ = ["render", "write"]

_OUTCOMES = {"reached": "Verdict reached", "not reached": "Verdict not reached", "no power": "Cannot be decided"}


def render(record: RunRecord, folder: str | None = None) -> str:
    """The report as HTML: inline SVG and CSS, everything escaped, no record text, ids as the record shows them.

    Args:
        record: What was done and measured.
        folder: Where the unlearned model lies, for the reader; the record itself does not depend on it.
    """
    from jinja2 import Environment, StrictUndefined
    from markupsafe import Markup

    record = RunRecord.from_json(record.to_json())  # the order of keys as written: drawn again, the page is the same
    environment = Environment(autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
    environment.filters["figure"] = lambda value: "not measured" if value is None else f"{value:.3f}"
    environment.filters["rounded"] = lambda value, digits: f"{value:.{digits}f}"
    environment.filters["tick"] = lambda share: {0: "✗", 1: "✓"}.get(share) or f"{share:.0%}"
    page = resources.files("expunge").joinpath("page.html.jinja").read_text(encoding="utf-8")
    drawings = {
        name: None if svg is None else Markup(svg)  # our own drawing, made from numbers
        for name, svg in (
            ("latent_map", figures.latent_map(record)),
            ("margins", figures.margins(record)),
            ("roc", figures.roc(record)),
            ("losses", figures.losses(record)),
            ("stop_rule", figures.stop_rule(record)),
        )
    }
    shown = [model for model in MODELS if any(m.model == model for m in record.measurements)]
    return environment.from_string(page).render(
        record=record,
        sections=_sections(record),
        columns=record_columns(record),
        limits=limits(record),
        models=shown,
        measured={m.name for m in record.measurements},
        facts=facts(record),
        glossary=explained(record),
        headline=_OUTCOMES[record.verdict["outcome"]],
        drawings=drawings,
        warnings=warnings(record),
        folder=folder,
        began=datetime.fromtimestamp(record.timings["started_unix"], UTC).strftime("%Y-%m-%d %H:%M"),
        settings=_flat(record.config),
    )


def _sections(record: RunRecord) -> list[tuple[str, list[dict[str, Any]]]]:
    """Rows of the main table by audit, in the order in which the audits ran."""
    found: dict[str, list[dict[str, Any]]] = {}
    for name, by_model in table(record):
        found.setdefault(next(iter(by_model.values())).audit, []).append({"name": name, "by_model": by_model})
    return list(found.items())


def write(record: RunRecord, folder: str) -> None:
    """Write record.json and report.html into a new folder, whole or not at all."""
    from expunge.folders import whole_folder

    with whole_folder(folder) as place:
        (place / "record.json").write_text(record.to_json(), encoding="utf-8")
        (place / "report.html").write_text(render(record), encoding="utf-8")


def _flat(config: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for name, value in config.items():
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for key, setting in inner:
            shown = ", ".join(map(str, setting)) if isinstance(setting, list | tuple) else setting
            rows.append((f"{name}.{key}" if key else name, "" if shown is None else str(shown)))
    return rows
