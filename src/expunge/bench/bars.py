"""Which of a benchmark's bars a method clears in each cell, beside the untouched original, from the results alone."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from expunge.bench.table import GAPS
from expunge.stats import clopper_pearson

__all__ = ["bars_of", "bars_page", "leave_one_out"]

_TEST_LOSS = 0.005
_PER_RECORD = 1.5
_NEAR = 0.03
_COST = {"random-5%": 0.15, "pooled-10x1%": 0.06}

_HEAD = (
    "data, request", "method", "seeds", "gap", "its limit", "test F1 lost", "per record", "never seen", "AUC - retrained",
    "TPR at 1 %", "its limit", "probe - retrained", "cost", "checks", "passes a record", "clears",
)  # fmt: skip
_NOTES = """\
A cell is a data set and a request; figures are means over the seeds named. **gap**: mean over forget F1, retain F1, test F1
and membership AUC, and over every leave-one-out mean of the retrained models, of the absolute difference to that mean; its
limit is the largest such gap of a retrained model. **test F1 lost**: how far the worst seed lies under the lowest retrained
model, in points; half a point is allowed. **per record**: mean absolute difference of forget margins to the retrained
models' mean, as a multiple of a left-out retrained model's; 1.5 is allowed. **never seen**: the same over test records,
where there is nothing to forget: what is above 1 in the row "original" is how one original, trained on all records, differs
from models trained on fewer, and forgetting cannot mend it. **AUC - retrained**: membership AUC minus
the retrained models' mean, the worst seed's, with its paired 90 % interval: "as retrained" within +-.03, "not" where it
lies outside, else "not decided". **TPR at 1 %** of forget against never-seen records, its limit the upper end of the
retrained models' (Clopper-Pearson, 95 %). **probe - retrained**: the same as for the AUC of a linear probe, at the layer and
seed where it is worst. **cost**: example-passes as a share of retraining's; 15 % is allowed at 5 %, 6 % at 1 %; the stop
rule's checks apart. **clears**: of gap, test F1, per record, cost and TPR, the bars cleared. A row "original" is the
untouched model: a bar that it clears has no power in that cell.
"""


def leave_one_out(value: float, retrained: Sequence[float]) -> float:
    """Mean absolute difference of a value to every mean of all retrained values but one."""
    others = np.array(retrained, dtype=float)
    return float(np.abs(value - (others.sum() - others) / (len(others) - 1)).mean())


def bars_of(cells: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for the original and one for each method, of the cells of one data set and request.

    Args:
        cells: What `expunge.bench.cells.run_cell` gives back, of all methods and seeds; failed ones are left out.
    """
    done = [cell for cell in cells if "figures" in cell]
    if not done or len(done[0]["figures"]["forget F1"]["retrained"]) < 3:
        return []
    rows = [_judged("original", done, _original)]
    for method in sorted({cell["method"] for cell in done}):
        rows.append(_judged(method, [cell for cell in done if cell["method"] == method], _own))
    return rows


def _own(figure: Mapping[str, Any]) -> float:
    return figure["value"]


def _original(figure: Mapping[str, Any]) -> float:
    return figure["original"]


def _judged(
    method: str, cells: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], float]
) -> dict[str, Any]:
    untouched = of is _original
    first = cells[0]["figures"]
    retrained = np.array([first[name]["retrained"] for name in GAPS])
    limit = max(
        float(np.abs(own - (retrained.sum(axis=1) - own) / (retrained.shape[1] - 1)).mean()) for own in retrained.T
    )
    gaps = [
        float(np.mean([leave_one_out(of(cell["figures"][name]), cell["figures"][name]["retrained"]) for name in GAPS]))
        for cell in cells
    ]
    lost = max(min(first["test F1"]["retrained"]) - of(cell["figures"]["test F1"]) for cell in cells)
    away = [c["figures"]["per record"] for c in cells]

    def ratio_of(rows: Sequence[Mapping[str, Any]]) -> float:
        return float(np.mean([row["original" if untouched else "gap"] for row in rows])) / rows[0]["noise_floor"]

    ratio = ratio_of(away)
    unseen = [c["figures"].get("per record, never seen") for c in cells]
    tpr, highest = _tpr(cells, of)
    found: dict[str, Any] = {
        "data": cells[0]["data"], "request": cells[0]["request"], "method": method,
        "seeds": sorted({cell["seed"] for cell in cells}), "n": cells[0]["n"]["forget"],
        "retrained": retrained.shape[1], "gap": float(np.mean(gaps)), "gap_limit": limit, "test_lost": lost,
        "per_record": ratio, "never_seen": ratio_of(unseen) if all(unseen) else None,
        "auc": _worst([_auc(cell, untouched) for cell in cells]), "tpr": tpr, "tpr_limit": highest,
        "probe": _worst([row for cell in cells for row in _probe(cell, untouched)]),
    }  # fmt: skip
    clears = {
        "gap": found["gap"] <= limit, "test F1": lost <= _TEST_LOSS, "per record": ratio <= _PER_RECORD,
        "TPR": None if tpr is None or highest is None else tpr <= highest,
    }  # fmt: skip
    if not untouched:
        cost = [cell["cost"] for cell in cells]
        whole = cost[0]["retraining"]
        found["cost"] = float(np.mean([one["passes"] for one in cost])) / whole
        found["checks"] = float(np.mean([one["checks"] for one in cost])) / whole
        found["passes_per_record"] = float(np.mean([one["passes_per_record"] for one in cost]))
        most = _COST.get(cells[0]["request"])
        clears["cost"] = None if most is None else round(found["cost"], 3) <= most
    return {**found, "clears": {name: bool(value) for name, value in clears.items() if value is not None}}


def _tpr(
    cells: Sequence[Mapping[str, Any]], of: Callable[[Mapping[str, Any]], float]
) -> tuple[float | None, float | None]:
    figures = [cell["figures"].get("TPR at 1% FPR") for cell in cells]
    if any(figure is None for figure in figures):
        return None, None
    n = figures[0]["n"][0]
    mean = float(np.mean(figures[0]["retrained"]))
    return float(np.mean([of(figure) for figure in figures])), clopper_pearson(round(mean * n), n).high


def _auc(cell: Mapping[str, Any], untouched: bool) -> dict[str, Any]:
    figure = cell["figures"]["membership AUC"]
    if untouched:  # no interval of its own was made: the point alone
        return {"value": figure["original"] - float(np.mean(figure["retrained"]))}
    return figure["difference"]


def _probe(cell: Mapping[str, Any], untouched: bool) -> list[dict[str, Any]]:
    if untouched:
        return [
            {"value": row["original"] - float(np.mean(row["retrained"])), "layer": row["layer"]}
            for row in cell.get("probe", [])
        ]
    return [{**row["difference"], "layer": row["layer"]} for row in cell.get("probe", [])]


def _worst(differences: Sequence[dict[str, Any]]) -> dict[str, Any] | None:
    """The difference furthest from 0, and what can be said of it."""
    if not differences:
        return None
    worst = max(differences, key=lambda one: abs(one["value"]))
    if "low" not in worst:
        return {**worst, "verdict": ""}
    within = worst["low"] >= -_NEAR and worst["high"] <= _NEAR
    outside = worst["low"] > _NEAR or worst["high"] < -_NEAR
    return {**worst, "verdict": "as retrained" if within else "not" if outside else "not decided"}


def bars_page(blocks: Sequence[Sequence[Mapping[str, Any]]]) -> str:
    """The table in Markdown, with what its columns mean, of each data set's and request's cells."""
    rows = [row for cells in blocks for row in bars_of(cells)]
    lines = [_line(_HEAD), _line(["---"] * len(_HEAD)), *(_line(_shown(row)) for row in rows)]
    return "# Bars\n\n" + _NOTES + "\n" + "\n".join(lines) + "\n\n" + _sums(rows)


def _sums(rows: Sequence[Mapping[str, Any]]) -> str:
    """In how many cells each method clears each bar; those that the original clears have no power and are not counted."""
    blind = {
        (row["data"], row["request"], bar)
        for row in rows if row["method"] == "original" for bar, cleared in row["clears"].items() if cleared
    }  # fmt: skip
    bars = ("gap", "per record", "TPR", "test F1", "cost")
    lines = [_line(["method", *bars]), _line(["---"] * (1 + len(bars)))]
    for method in sorted({row["method"] for row in rows} - {"original"}):
        shown = []
        for bar in bars:
            told = [
                row["clears"][bar]
                for row in rows
                if row["method"] == method
                and bar in row["clears"]
                and (bar in ("test F1", "cost") or (row["data"], row["request"], bar) not in blind)
            ]
            shown.append(f"{sum(told)} of {len(told)}")
        lines.append(_line([method, *shown]))
    return "Cells in which a method clears a bar, of those with power:\n\n" + "\n".join(lines) + "\n"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _shown(row: Mapping[str, Any]) -> list[str]:
    def difference(found: Mapping[str, Any] | None) -> str:
        if found is None:
            return "-"
        layer = f"layer {found['layer']}: " if "layer" in found else ""
        ends = f" [{found['low']:+.3f}, {found['high']:+.3f}] {found['verdict']}" if "low" in found else ""
        return f"{layer}{found['value']:+.3f}{ends}"

    def share(name: str) -> str:
        return "-" if row.get(name) is None else f"{row[name]:.1%}"

    cleared = [name for name, value in row["clears"].items() if value]
    return [
        f"{row['data']}, {row['request']} (n = {row['n']}, {row['retrained']} retrained)", row["method"],
        ", ".join(map(str, row["seeds"])), f"{row['gap']:.4f}", f"{row['gap_limit']:.4f}", f"{100 * row['test_lost']:+.1f}",
        f"{row['per_record']:.2f}", "-" if row["never_seen"] is None else f"{row['never_seen']:.2f}",
        difference(row["auc"]), share("tpr"), share("tpr_limit"), difference(row["probe"]),
        share("cost"), share("checks"), "-" if "passes_per_record" not in row else f"{row['passes_per_record']:.1f}",
        ", ".join(cleared) or "none",
    ]  # fmt: skip
