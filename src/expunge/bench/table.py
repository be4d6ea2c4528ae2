"""The benchmark's table, from its JSONs alone: Markdown, JSON, and an HTML page with plots."""

from __future__ import annotations

import json
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import Problem, UsageError
from expunge.folders import whole_file

__all__ = ["GAPS", "build_table", "markdown", "write_tables"]

GAPS = ("forget F1", "retain F1", "test F1", "membership AUC")
"""Figures whose gaps to the retrained mean are averaged."""

_NOT_RUN = "not run yet"
_SHOWN = ("forget F1", "forget accuracy", "retain F1", "retain accuracy", "test F1", "test accuracy", "membership AUC")


def write_tables(results: Path, out: Path) -> list[Path]:
    """Write ``table.md``, ``table.json`` and ``table.html``; where layers were probed, ``bars.md`` as well.

    Args:
        results: Folder with ``cells/`` and ``data/``.
        out: Where to write.

    Returns:
        The files.

    Raises:
        UsageError: There are no results.
    """
    from expunge.bench.bars import bars_page
    from expunge.bench.page import page

    table = build_table(results)
    out.mkdir(parents=True, exist_ok=True)
    texts = {
        "table.md": markdown(table),
        "table.json": json.dumps(table, indent=1, sort_keys=True) + "\n",
        "table.html": page(table),
    }
    blocks = [[cell for cells in methods.values() for cell in cells] for _, methods in _cells(results)]
    if any("probe" in cell for cells in blocks for cell in cells):
        texts["bars.md"] = bars_page(blocks)
    for name, text in texts.items():
        whole_file(out / name, text)
    return [out / name for name in texts]


def build_table(results: Path) -> dict[str, Any]:
    """All cells put together.

    Returns:
        ``blocks``: one for each data set and request, with rows for the original, the retrained models and each method,
        means over the seeds; ``summary``: one row a method over all blocks; ``data``: how models were trained.

    Raises:
        UsageError: There are no results.
    """
    grouped = _cells(results)
    everything = sorted({method for _, methods in grouped for method in methods})
    blocks = []
    for (data, request), methods in grouped:
        file = results / "data" / f"{data}.json"
        listed = json.loads(file.read_text(encoding="utf-8")) if file.is_file() else {}
        block = _block(data, request, methods)
        left_out = listed.get("left_out", {})
        block["missing"] = {name: left_out.get(name, _NOT_RUN) for name in everything if name not in methods}
        block["seeds"] = listed.get("seeds", sorted({cell["seed"] for cells in methods.values() for cell in cells}))
        blocks.append(block)
    return {"blocks": blocks, "summary": _summary(blocks), "data": _trained(grouped)}


_Grouped = list[tuple[tuple[str, str], dict[str, list[dict[str, Any]]]]]


def _cells(results: Path) -> _Grouped:
    """(data set, request) -> method -> its cells, in order."""
    files = sorted((results / "cells").rglob("*.json"))
    if not files:
        what = f'"{results}" holds no results'
        raise UsageError(Problem("results", what, "Give a folder that `expunge bench run` filled."))
    grouped: dict[tuple[str, str], dict[str, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for file in files:
        cell = json.loads(file.read_text(encoding="utf-8"))
        grouped[cell["data"], cell["request"]][cell["method"]].append(cell)
    return sorted(grouped.items())


def _block(data: str, request: str, methods: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    measured = [cell for cells in methods.values() for cell in cells if "figures" in cell]
    rows = [_row(name, cells) for name, cells in methods.items()]
    rows.sort(key=lambda row: row.get("gap", float("inf")))
    block: dict[str, Any] = {"data": data, "request": request, "rows": rows}
    if measured:
        first = measured[0]
        block["n"] = {**first["n"], **{name: first["figures"][name]["n"] for name in _SHOWN}}
        block["classes"] = first["n"]["classes"]
        sets = {json.dumps([cell["figures"][name]["retrained"] for name in _SHOWN]) for cell in measured}
        block["retrained"] = {**_retrained(first), "sets": len(sets)}
        block["original"] = _original(measured)
        block["devices"] = sorted({cell["environment"]["device"] for cell in measured})
    return block


def _row(name: str, cells: list[dict[str, Any]]) -> dict[str, Any]:
    done = [cell for cell in cells if "figures" in cell]
    failed = [cell["failed"] for cell in cells if "failed" in cell]
    row: dict[str, Any] = {"method": name, "seeds": sorted(cell["seed"] for cell in done), "failed": failed}
    if not done:
        return row
    figures = {}
    for figure in _SHOWN:
        own = [cell["figures"][figure] for cell in done]
        figures[figure] = {
            **{key: _mean([one[key] for one in own]) for key in ("value", "low", "high", "gap")},
            "seeds": [one["value"] for one in own],
        }
    cost = [cell["cost"] for cell in done]
    row.update(
        figures=figures,
        gap=_mean([figures[name]["gap"] for name in GAPS]),
        per_record=_mean([cell["figures"]["per record"]["gap"] for cell in done]),
        passes=_mean([one["ratio"] for one in cost]),
        seconds=_mean([one["seconds_ratio"] for one in cost]),
        settings=done[0]["settings"],
        trials=max(len(cell["trials"]) for cell in done),
        kept_steps=[cell["ended"]["kept_step"] for cell in done],
    )
    return row


def _retrained(cell: dict[str, Any]) -> dict[str, Any]:
    figures = {
        name: {
            "value": _mean(cell["figures"][name]["retrained"]),
            "low": min(cell["figures"][name]["retrained"]),
            "high": max(cell["figures"][name]["retrained"]),
            "noise_floor": cell["figures"][name]["noise_floor"],
        }
        for name in _SHOWN
    }
    floors = [figures[name]["noise_floor"] for name in GAPS]
    return {
        "models": len(cell["figures"]["forget F1"]["retrained"]),
        "figures": figures,
        "noise_floor": None if None in floors else _mean(floors),
        "per_record": cell["figures"]["per record"]["noise_floor"],
    }


def _original(cells: list[dict[str, Any]]) -> dict[str, Any]:
    by_seed = {cell["seed"]: cell for cell in cells}
    figures = {}
    for name in _SHOWN:
        values = [cell["figures"][name]["original"] for cell in by_seed.values()]
        retrained = _mean(next(iter(by_seed.values()))["figures"][name]["retrained"])
        gaps = [abs(value - retrained) for value in values]
        figures[name] = {"value": _mean(values), "gap": _mean(gaps), "seeds": values}
    return {
        "figures": figures,
        "gap": _mean([figures[name]["gap"] for name in GAPS]),
        "per_record": _mean([cell["figures"]["per record"]["original"] for cell in by_seed.values()]),
        "seeds": sorted(by_seed),
    }


def _summary(blocks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """One row a method: mean over the blocks it has a figure in, apart for random requests, pools and whole classes."""
    found: dict[str, dict[str, Any]] = {}
    counts: dict[str, list[Any]] = defaultdict(lambda: [0, 0])  # cells run, cells planned
    for block in blocks:
        floor = block.get("retrained", {}).get("noise_floor")
        kind = _kind(block["request"])
        first = {"method": "original (nothing done)", "passes": 0.0, "seconds": 0.0}
        originals = [{**first, **block["original"]}] if "original" in block else []
        for name, reason in block["missing"].items():
            counts[name][1] += len(block["seeds"]) if reason == _NOT_RUN else 0
        for row in [*originals, *block["rows"]]:
            if "gap" not in row:
                continue
            count = counts[row["method"]]
            count[0] += len(row["seeds"])
            count[1] += len(block["seeds"])
            own = found.setdefault(row["method"], defaultdict(list))
            for name in ("gap", "per_record", "passes", "seconds"):
                own[f"{kind} {name}"].append(row[name])
            if floor is not None:
                own[f"{kind} within"].append(row["gap"] <= 2 * floor)
    rows = []
    for method, own in found.items():
        run, planned = counts[method]
        row: dict[str, Any] = {"method": method, "cells": run, "planned": planned}
        for key, values in own.items():
            row[key] = int(sum(values)) if key.endswith("within") else _mean(values)
            row[f"{key.split()[0]} blocks"] = len(values)
        rows.append(row)
    most = max((row.get("random blocks", 0) for row in rows), default=0)
    return sorted(rows, key=lambda row: (row.get("random blocks", 0) < most, row.get("random gap", float("inf"))))


def _kind(request: str) -> str:
    """Of what kind a request is: records at ``random``, several requests ``pooled``, or a ``class``."""
    return next((kind for kind in ("random", "pooled") if request.startswith(f"{kind}-")), "class")


def _trained(grouped: _Grouped) -> dict[str, Any]:
    found = {}
    for (data, _), methods in grouped:
        found[data] = next(iter(methods.values()))[0]["recipe"]
    return found


def _mean(values: list[float]) -> float:
    return round(float(np.mean(values)), 5)


def markdown(table: dict[str, Any]) -> str:
    """The table as Markdown."""
    lines = ["# Erasure from encoders: every method beside retraining", "", *_explained(table), ""]
    lines += _summary_lines(table["summary"])
    for block in table["blocks"]:
        lines += ["", *_block_lines(block)]
    return "\n".join(lines) + "\n"


def _explained(table: dict[str, Any]) -> list[str]:
    lines = [
        "Made by `expunge bench table` from the JSON of every cell; do not edit. A **gap** is the absolute difference to the "
        "mean of the models retrained without the records, and the mean gap is over forget, retain and test F1 and "
        "membership AUC. The **noise floor** is the same for the retrained models themselves, each against the mean of the "
        "others: a gap below it cannot be told from the luck of a seed, and where the untouched original is near it there "
        "was nothing to show. **Per record** is the mean absolute difference of forget margins, clipped at 10 nats, to the "
        "retrained mean. Brackets are 95 % bootstrap intervals over records (ends averaged over seeds); for the retrained "
        "models they are the lowest and the highest. **Passes** are example-passes (forward and backward; forward alone "
        "counts a third), stop rule and preparation included, relative to one retraining; **time** is wall-clock relative to "
        "the median retraining beside it, with several workers on one machine. Rows are sorted by their mean gap.",
        "",
        _chosen_how(table),
        "",
        "How long models were trained was chosen on dev records before anything was unlearned:",
        "",
        "| data | epochs | train F1 or accuracy | dev |",
        "|---|---|---|---|",
    ]
    for data, recipe in table["data"].items():
        for row in recipe["tried"] or [{"epochs": recipe["epochs"]}]:
            chosen = f"**{row['epochs']}**" if row["epochs"] == recipe["epochs"] else str(row["epochs"])
            scores = [f"{row[part]:.3f}" if part in row else "set beforehand" for part in ("train", "dev")]
            lines.append(f"| {data} | {chosen} | {scores[0]} | {scores[1]} |")
    return lines


def _chosen_how(table: dict[str, Any]) -> str:
    """How settings were found, and how long methods ran."""
    tried = max((row["trials"] for block in table["blocks"] for row in block["rows"] if "trials" in row), default=0)
    if not tried:
        return "Settings are those of the benchmark's configuration; nothing was chosen among trials."
    return (
        "Hyperparameters were chosen on dev records and one random request that no cell is about, among three trials a method "
        "and data set; whole-class requests use the same. SISA has no trials: it is trained with the plain recipe. All "
        "methods had at most four passes over the forget records (at least 40 steps), also SCRUB, which its paper gives more."
    )


def _summary_lines(summary: list[dict[str, Any]]) -> list[str]:
    second = next((kind for kind in ("class", "pooled") if any(f"{kind} gap" in row for row in summary)), "class")
    shown = {"class": "whole class", "pooled": "several requests pooled"}[second]
    lines = [
        "## Over all data sets",
        "",
        "| method | random requests: mean gap | per record | passes | time | within twice the noise floor | "
        f"{shown}: mean gap | per record | passes | within twice the noise floor | cells run |",
        "|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in summary:
        cells = [row["method"]]
        for kind in ("random", second):
            if f"{kind} gap" not in row:
                cells += ["no cell"] * (5 if kind == "random" else 4)
                continue
            cells += [f"{row[f'{kind} gap']:.3f}", f"{row[f'{kind} per_record']:.2f}", f"{row[f'{kind} passes']:.1%}"]
            if kind == "random":
                cells.append(f"{row[f'{kind} seconds']:.1%}")
            within = row.get(f"{kind} within")
            cells.append("no floor" if within is None else f"{within} of {row[f'{kind} blocks']}")
        cells.append(f"{row['cells']} of {row['planned']}")
        lines.append("| " + " | ".join(cells) + " |")
    if any(row["cells"] < row["planned"] for row in summary):
        lines += [
            "",
            "Not all cells are run: these means are over different requests, so compare methods block by block.",
        ]
    return lines


def _block_lines(block: dict[str, Any]) -> list[str]:
    lines = [f"## {block['data']}, {block['request']}", ""]
    if "retrained" not in block:
        return [*lines, "No cell has a figure: " + "; ".join(r for row in block["rows"] for r in row["failed"])]
    n, retrained, original = block["n"], block["retrained"], block["original"]
    lines += [
        f"{n['forget']} records to forget, {n['retain']} retained ({n['retain F1'][0]} scored), {n['test F1'][0]} test "
        f"records for utility and {n['membership AUC'][1]} beside the forget records for the AUC; "
        f"{retrained['models']} retrained models; on {', '.join(block['devices'])}.",
        "",
        "| model | seeds | forget F1 | (accuracy) | retain F1 | (accuracy) | test F1 | (accuracy) | membership AUC | "
        "mean gap | per record | passes | time |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines.append(_line("retrained", retrained["models"], retrained["figures"], "(0)", "", "100.0%", "100.0%"))
    floors = {name: retrained["figures"][name]["noise_floor"] for name in _SHOWN}
    if None not in floors.values():
        cells = ["noise floor", "", *(f"{floors[name]:.3f}" for name in _SHOWN)]
        lines.append(
            "| "
            + " | ".join([*cells, f"{retrained['noise_floor']:.3f}", f"{retrained['per_record']:.2f}", "", ""])
            + " |"
        )
    lines.append(
        _line(
            "original", len(original["seeds"]), original["figures"], f"{original['gap']:.3f}",
            f"{original['per_record']:.2f}", "", "",
        )
    )  # fmt: skip
    for row in block["rows"]:
        if "figures" in row:
            note = (
                f" ({len(row['failed'])} of {len(row['failed']) + len(row['seeds'])} failed)" if row["failed"] else ""
            )
            lines.append(
                _line(
                    row["method"] + note, len(row["seeds"]), row["figures"], f"{row['gap']:.3f}",
                    f"{row['per_record']:.2f}", f"{row['passes']:.1%}", f"{row['seconds']:.1%}",
                )
            )  # fmt: skip
        else:
            lines.append(_reason(row["method"], f"failed: {row['failed'][0]}"))
    lines += [_reason(name, reason) for name, reason in block["missing"].items()]
    fewer = [row["method"] for row in block["rows"] if len(row["seeds"]) + len(row["failed"]) < len(block["seeds"])]
    if fewer:
        lines += ["", f"Fewer seeds than {len(block['seeds'])} are not run yet: {', '.join(fewer)}."]
    if retrained["sets"] > 1:
        lines += [
            "",
            f"The cells were measured in {retrained['sets']} runs, beside retrained models of the same seeds that differ by a "
            "GPU's rounding; shown are those of the first cell.",
        ]
    return lines


def _reason(method: str, reason: str) -> str:
    """A row without figures: as many cells as the others."""
    return f"| {method} | 0 | {reason.replace('|', '/')} |" + " |" * 10


def _line(name: str, seeds: int, figures: dict[str, Any], gap: str, per_record: str, passes: str, seconds: str) -> str:
    cells = [name, str(seeds)]
    for figure in _SHOWN:
        row = figures[figure]
        interval = f" [{row['low']:.2f}, {row['high']:.2f}]" if "low" in row else ""
        cells.append(f"{row['value']:.3f}{interval}" if not figure.endswith("accuracy") else f"({row['value']:.3f})")
    return "| " + " | ".join([*cells, gap, per_record, passes, seconds]) + " |"
