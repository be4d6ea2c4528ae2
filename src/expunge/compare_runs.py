"""Several runs beside each other: what each is, one row a measure, and what forbids to compare them. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from expunge.record import Measurement, RunRecord
from expunge.summary import stdout

__all__ = ["compare_runs", "print_comparison"]

_READ: dict[str, Callable[[RunRecord], Any]] = {
    "original": lambda record: record.models["original"]["sha256"],
    "evaluation": lambda record: record.data["hmac"]["evaluation"],
    "calibration": lambda record: record.data["hmac"].get("calibration"),
    "train": lambda record: record.data["hmac"]["train"],
    "request": lambda record: record.request["hmac"],
    "evidence": lambda record: record.verdict["evidence"],
    "confidence": lambda record: record.config["audit"]["confidence"],
    "allowed": lambda record: record.config["audit"].get("max_utility_loss"),
    "retained": lambda record: _retained(record),
    "versions": lambda record: record.environment,
}
_SAID = {
    "original": "The runs start from different models.",
    "train": "The training data are not the same, or were hashed with another salt.",
    "evaluation": "The evaluation records are not the same, or were hashed with another salt.",
    "calibration": "The calibration records are not the same, or were hashed with another salt.",
    "retained": "The retained records scored are different samples, and figures of them of different records.",
    "allowed": "Verdicts allow different losses of utility (audit.max_utility_loss).",
    "request": "The runs forget different records, or their ids were salted differently: figures may be of different records.",
    "evidence": "Not every run was measured beside retrained models: verdicts are of different evidence classes.",
    "confidence": "The intervals are not of the same confidence.",
    "versions": "The runs were made with different versions of what a result depends on.",
}


def compare_runs(records: Mapping[str, RunRecord]) -> dict[str, Any]:
    """Put runs beside each other. Nothing is ranked: intervals stand beside figures, and the reader judges.

    Args:
        records: Name -> record, two at least.

    Returns:
        Plain values: ``runs`` (what each is, its verdict, cost and findings), ``rows`` (one a measure: ``unlearned`` with
        one figure a run or None; ``original`` and ``retrained`` where all runs that have them share these models and the
        records they are measured on, else None), and ``warnings`` (what forbids to compare them).
    """
    differ = {name for name, read in _READ.items() if any(read(r) != read(_first(records)) for r in records.values())}
    shared = [] if differ & {"original", "evaluation", "calibration", "train", "request"} else ["original"]
    retrained = {tuple(model["sha256"] for model in record.models["retrained"]) for record in records.values()} - {()}
    if shared and len(retrained) == 1:
        shared.append("retrained")
    return {
        "runs": [_run(name, record) for name, record in records.items()],
        "rows": _rows(records, shared, "retain" if "retained" in differ else None),
        "warnings": [sentence for name, sentence in _SAID.items() if name in differ],
    }


def _retained(record: RunRecord) -> Any:
    """What the sample of retained records that was scored hangs on; None: all were."""
    most = record.config["audit"].get("retain_sample")
    return None if most is None or record.data["retain"] <= most else (record.config["seed"], most)


def _first(records: Mapping[str, RunRecord]) -> RunRecord:
    return next(iter(records.values()))


def _run(name: str, record: RunRecord) -> dict[str, Any]:
    return {
        "name": name,
        "method": record.config["method"]["name"],
        "settings": {key: value for key, value in record.config["method"].items() if key != "name"},
        "forget": record.data["forget"],
        "evidence": record.verdict["evidence"],
        "outcome": record.verdict["outcome"],
        "sentence": record.verdict["sentence"],
        "retrained": len(record.models["retrained"]),
        "passes": record.cost["total"],
        "of_retraining": record.cost["ratio_to_retraining"],
        "seconds": record.timings.get("unlearn"),
        "findings": [f"{finding.kind} ({finding.audit})" for finding in record.findings],
    }


def _rows(records: Mapping[str, RunRecord], shared: list[str], apart: str | None) -> list[dict[str, Any]]:
    """One row a measure; of groups whose name holds `apart` nothing is shared."""
    found: dict[tuple[str, str, str], dict[str, dict[str, Measurement]]] = {}
    for run, record in records.items():
        for m in record.measurements:
            found.setdefault((m.audit, m.name, m.group), {}).setdefault(run, {})[m.model] = m
    rows = []
    for (audit, name, group), by_run in found.items():
        some = next(iter(next(iter(by_run.values())).values()))
        row: dict[str, Any] = {
            "audit": audit,
            "measure": f"{name}, {group}",
            "direction": some.direction,
            "unit": some.unit,
        }
        for model in ("original", "retrained"):
            told = next((models[model] for models in by_run.values() if model in models), None)
            row[model] = _figure(told) if model in shared and not (apart and apart in group) else None
        row["unlearned"] = {run: _figure(by_run.get(run, {}).get("unlearned")) for run in records}
        rows.append(row)
    return rows


def _figure(m: Measurement | None) -> dict[str, Any] | None:
    if m is None:
        return None
    kept = ("value", "low", "high", "n", "gap", "noise_floor", "compared")
    return {name: getattr(m, name) for name in kept}


def print_comparison(found: dict[str, Any]) -> None:
    """Print what `compare_runs` gives as a table to stdout."""
    from rich.table import Table

    console = stdout()
    models = [model for model in ("original", "retrained") if any(row[model] for row in found["rows"])]
    grid = Table(title="Figures of the unlearned models, with intervals", title_justify="left")
    for name in ("measure", "n", *models, *(run["name"] for run in found["runs"])):
        grid.add_column(name, justify="right" if name == "n" else "left")
    for row in found["rows"]:
        figures = [*(row[model] for model in models), *row["unlearned"].values()]
        sizes = list(dict.fromkeys(str(figure["n"]) for figure in figures if figure))
        grid.add_row(row["measure"], ", ".join(sizes), *map(_shown, figures))
    console.print(grid)
    for run in found["runs"]:
        console.print(_line(run))
    for sentence in found["warnings"]:
        console.print(f"Beware: {sentence}")


def _shown(figure: dict[str, Any] | None) -> str:
    return "" if figure is None else f"{figure['value']:.3f} [{figure['low']:.3f}, {figure['high']:.3f}]"


def _line(run: dict[str, Any]) -> str:
    price = f"{run['passes']:.0f} example-passes"
    if run["of_retraining"] is not None:
        price += f" ({run['of_retraining']:.1%} of one retraining's)"
    found = f"; findings: {', '.join(run['findings'])}" if run["findings"] else ""
    return f"{run['name']}: {run['method']}, {run['outcome']} ({run['evidence']}), {price}{found}."
