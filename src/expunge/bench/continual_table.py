"""The tables of the benchmark of requests in a row: forgetting of all requests so far, the rest, cost, storage, detectors."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import Problem, UsageError
from expunge.folders import whole_file
from expunge.stats import Interval, auc_interval, bootstrap, wilson

__all__ = ["LOSS", "build_continual_table", "continual_markdown", "write_continual_table"]

LOSS = 0.02
"""Fall in accuracy on the rest that O3 may have after the last request."""


def write_continual_table(results: Path, file: Path) -> Path:
    """Write the Markdown tables of a folder that `expunge bench continual` filled.

    Raises:
        UsageError: There are no results.
    """
    text = continual_markdown(build_continual_table(results))
    file.parent.mkdir(parents=True, exist_ok=True)
    whole_file(file, text)
    return file


def build_continual_table(results: Path, *, resamples: int = 1000) -> dict[str, Any]:
    """Figures of every row there is, in plain values.

    Raises:
        UsageError: There are none.
    """
    files = sorted((results / "rows").glob("*.json")) if (results / "rows").is_dir() else []
    rows = [json.loads(file.read_text(encoding="utf-8")) for file in files]
    originals = {row["seed"]: row for row in rows if row["kind"] == "original"}
    if not originals:
        raise UsageError(
            Problem("results", f'"{results}" has no original measured', "Run `expunge bench continual` first.")
        )
    game = json.loads((results / "game.json").read_text(encoding="utf-8"))
    found, detectors, failed = [], [], {}
    for row in sorted(
        rows, key=lambda row: (row["kind"] != "original", row["kind"], row["seed"], row.get("request", 0))
    ):
        if "failed" in row:
            failed[row["row"]] = row["failed"]
            continue
        original, until = originals[row["seed"]], row.get("request", len(game["requests"]))
        rest, before = _bits(row, "rest"), _bits(original, "rest")
        found.append(
            {
                "kind": row["kind"], "seed": row["seed"], "request": row.get("request"),
                "asked": [_share(_bits(row, f"asked {k}")) for k in range(1, until + 1)],
                "like": [_share(_bits(row, f"like {k}")) for k in range(1, until + 1)],
                "rest": _share(rest),
                "fall": _difference(rest, before, resamples) if row is not original else None,
                "cost": row.get("cost"), "storage": row["storage"],
            }
        )  # fmt: skip
        if "detector" in row:
            weights = {group: np.array(values) for group, values in row["detector"].items()}
            detectors.append(
                {
                    "kind": row["kind"], "seed": row["seed"], "request": row["request"],
                    "n": {group: len(values) for group, values in weights.items()},
                    "auroc": {
                        group: asdict(auc_interval([(weights[group], weights["rest"])], [])) for group in ("asked", "like")
                    },
                    "mean": {group: float(values.mean()) for group, values in weights.items()},
                }
            )  # fmt: skip
    last = len(game["requests"])
    bar = [row for row in found if row["kind"] == "o3" and row["request"] == last]
    return {
        "game": game, "rows": found, "detectors": detectors, "failed": failed,
        "bar": [{"seed": row["seed"], "fall": row["fall"], "met": row["fall"]["value"] >= -LOSS} for row in bar],
    }  # fmt: skip


def _bits(row: dict[str, Any], group: str) -> np.ndarray:
    return np.array([int(digit) for digit in row["scores"][group]["right"]])


def _share(bits: np.ndarray) -> dict[str, float]:
    return asdict(wilson(int(bits.sum()), len(bits)))


def _difference(after: np.ndarray, before: np.ndarray, resamples: int) -> dict[str, float]:
    """Accuracy after minus before, the same records resampled in both."""
    found: Interval = bootstrap(
        [len(after)], lambda at: float(after[at[0]].mean() - before[at[0]].mean()), resamples=resamples, seed=0
    )
    return asdict(found)


def continual_markdown(table: dict[str, Any]) -> str:
    """The tables as Markdown."""
    game, n = table["game"], table["game"]["n"]
    asked = "; ".join(
        f"{k}: {', '.join(names)} ({n[f'asked {k}']})" for k, names in enumerate(game["requests"], start=1)
    )
    lines = [
        "# Requests in a row",
        "",
        "Made by `expunge bench continual`; do not edit.",
        "",
        f"{game['data']}, {n['train']} training records. Requests, with the records of each: {asked}. Each is unlearned "
        "from what the method left of the one before; `retrain` and `sisa` train without all requests so far. Accuracy "
        "with 95 % Wilson intervals. **Asked**: on the records of each request so far. **Like them**: on held-out records of "
        f"the same classes. **Rest**: on the {n['rest']} held-out records of all other classes, and its difference to the "
        "original (paired bootstrap). On asked records the right accuracy is the retrained model's, 0: it does not know their "
        "classes. **Cost**: example-passes as a share of retraining's, checks included; a detector's passes are through its "
        "encoder. **Storage**: what must be kept to go on (of SISA computed: a checkpoint a stage, and the base).",
        "",
        "| model | seed | after | asked | like them | rest | rest, difference | cost | seconds | storage |",
        "|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in table["rows"]:
        cost = row["cost"]
        cells = [
            row["kind"], str(row["seed"]), "-" if row["request"] is None else f"request {row['request']}",
            " / ".join(_interval(one) for one in row["asked"]), " / ".join(_interval(one) for one in row["like"]),
            _interval(row["rest"]), "-" if row["fall"] is None else _interval(row["fall"], sign="+"),
            "-" if cost is None else f"{cost['ratio']:.1%}", "-" if cost is None else f"{cost['seconds']:.0f}",
            f"{row['storage'] / 1e6:.0f} MB",
        ]  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    if table["detectors"]:
        lines += [
            "", "## Detectors", "",
            "AUROC of the weight over the held-out records of all other classes (95 %, DeLong): of the request's records, "
            "which the detector was fitted on, and of held-out records of the same classes, which it has never seen; then the "
            "mean weight of each.",
            "",
            "| model | seed | request | AUROC, asked | AUROC, like them | weight, asked | weight, like them | weight, rest |",
            "|---|---|---|---|---|---|---|---|",
        ]  # fmt: skip
        for row in table["detectors"]:
            cells = [row["kind"], str(row["seed"]), str(row["request"])]
            cells += [f"{_interval(row['auroc'][group])}, n = {row['n'][group]}" for group in ("asked", "like")]
            cells += [f"{row['mean'][group]:.2f}" for group in ("asked", "like", "rest")]
            lines.append(f"| {' | '.join(cells)} |")
    if table["bar"]:
        lines += ["", "## Bar", ""]
        for one in table["bar"]:
            lines.append(
                f"- O3, without retained data, loses at most {LOSS:.0%} of accuracy on the rest after the last request: "
                f"{_interval(one['fall'], sign='+')} (seed {one['seed']}), {'met' if one['met'] else 'not met'}."
            )
    if table["failed"]:
        lines += ["", "Failed:", "", *(f"- {name}: {why}" for name, why in table["failed"].items())]
    return "\n".join([*lines, ""])


def _interval(found: dict[str, float], sign: str = "") -> str:
    value, low, high = (f"{found[end]:{sign}.3f}" for end in ("value", "low", "high"))
    return f"{value} [{low}, {high}]"
