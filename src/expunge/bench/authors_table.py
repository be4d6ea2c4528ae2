"""The table of the benchmark of authors forgotten in a row as Markdown, from the values of every record."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import Problem, UsageError
from expunge.folders import whole_file
from expunge.stats import Interval, auc_interval, bootstrap

__all__ = ["LOSS", "authors_markdown", "write_authors_table"]

LOSS = 0.02
"""Fall in the probability of answers that O3 may cause after the last request, on each kind of record that stays."""
_KEPT = ("rest", "real authors", "world facts")
_Rows = Sequence[Mapping[str, Any]]


def write_authors_table(results: Path, file: Path) -> Path:
    """Write the Markdown of a folder that `expunge bench authors` filled.

    Raises:
        UsageError: No original is measured.
    """
    rows = [json.loads(own.read_text(encoding="utf-8")) for own in sorted((results / "rows").glob("*.json"))]
    if not any(row["kind"] == "original" for row in rows):
        what = f'"{results}" has no original measured'
        raise UsageError(Problem("results", what, "Run `expunge bench authors` first."))
    game = json.loads((results / "game.json").read_text(encoding="utf-8"))
    file.parent.mkdir(parents=True, exist_ok=True)
    whole_file(file, authors_markdown(game, rows))
    return file


def authors_markdown(game: Mapping[str, Any], rows: _Rows, *, resamples: int = 1000) -> str:
    """The table.

    Args:
        game: What the results are of.
        rows: The rows there are.
        resamples: Resamples behind each interval.
    """
    n, requests = game["n"], game["authors"]["requests"]
    originals = {row["seed"]: row for row in rows if row["kind"] == "original"}
    known = [row for row in rows if row["seed"] in originals]
    known = sorted(known, key=lambda r: (r["kind"] != "original", r["kind"], r["seed"], r.get("request", 0)))
    done = [row for row in known if "failed" not in row]
    asked = "; ".join(
        f"{k}: {', '.join(map(str, authors))} ({n[f'asked {k}']} records)"
        for k, authors in enumerate(requests, start=1)
    )
    lines = [
        "# Authors in a row",
        "",
        "Made by `expunge bench authors` from the values of every record; do not edit.",
        "",
        f"A language model learnt {n['train']} questions and answers of TOFU's authors. Requests, by number of the author: "
        f"{asked}. Each starts from what the method left of the one before; `retrain` trains the base without all of them. "
        "**Asked**: mean probability of the answers of each request so far (per token, geometric mean within an answer), with "
        f"95 % bootstrap intervals over records; what `retrain` has is right. **Rest**: of {n['rest']} records of authors no "
        f"request names. **Real authors**, **world facts**: {n['real authors']} and {n['world facts']} questions of general "
        "knowledge. Each with its difference to the original's (the same records resampled in both). **Cost**: example-passes "
        "as a share of retraining's, checks included. **Storage**: what must be kept to go on.",
        "",
        "| model | seed | after | asked | rest | difference | real authors | difference | world facts | difference | cost "
        "| seconds | storage |",
        f"|{'---|' * 13}",
    ]
    for row in done:
        until, cost = row.get("request", len(requests)), row.get("cost")
        cells = [
            row["kind"], str(row["seed"]), f"request {row['request']}" if "request" in row else "-",
            " / ".join(_shown(_mean(_values(row, f"asked {k}"), resamples)) for k in range(1, until + 1)),
        ]  # fmt: skip
        for group in _KEPT:
            fall = _fall(row, originals, group, resamples)
            cells += [f"{_values(row, group).mean():.3f}", "-" if fall is None else _shown(fall, sign="+")]
        cells += ["-", "-"] if cost is None else [f"{cost['ratio']:.1%}", f"{cost['seconds']:.0f}"]
        cells.append("not measured" if row["storage"] is None else f"{row['storage'] / 1e6:.0f} MB")
        lines.append(f"| {' | '.join(cells)} |")
    lines += _detectors([row for row in done if "detector" in row])
    last = [row for row in done if row["kind"] == "o3" and row["request"] == len(requests)]
    if last:
        lines += ["", "## Bar", ""]
    for row in last:
        falls = {group: _fall(row, originals, group, resamples) for group in _KEPT}
        kept = all(fall is not None and fall.value >= -LOSS for fall in falls.values())
        said = "; ".join(f"{group} {_shown(fall, sign='+')}" for group, fall in falls.items() if fall is not None)
        lines.append(
            f"- O3, without retained data, loses at most {LOSS:g} of the probability of what it was not asked to forget, after "
            f"the last request: {said} (seed {row['seed']}), {'met' if kept else 'not met'}."
        )
    if failed := [row for row in known if "failed" in row]:
        lines += ["", "Failed:", "", *(f"- {row['row']}: {row['failed']}" for row in failed)]
    return "\n".join([*lines, ""])


def _detectors(rows: _Rows) -> list[str]:
    if not rows:
        return []
    lines = [
        "", "## Detectors", "",
        "AUROC of the weight (95 %, DeLong) of the request's records, which the detector was fitted on, over records of "
        "authors no request names and over general knowledge; then the mean weight of each.", "",
        "| model | seed | request | AUROC over the rest | over real authors | over world facts | weight, asked | rest "
        "| real authors | world facts |",
        f"|{'---|' * 10}",
    ]  # fmt: skip
    for row in rows:
        weights = {group: np.array(values) for group, values in row["detector"].items()}
        cells = [row["kind"], str(row["seed"]), str(row["request"])]
        cells += [_shown(auc_interval([(weights["asked"], weights[group])])) for group in _KEPT]
        cells += [f"{weights[group].mean():.2f}" for group in ("asked", *_KEPT)]
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def _values(row: Mapping[str, Any], group: str) -> np.ndarray:
    return np.exp(row["scores"][group]["logp"])


def _mean(values: np.ndarray, resamples: int) -> Interval:
    return bootstrap([len(values)], lambda at: float(values[at[0]].mean()), resamples=resamples, seed=0)


def _fall(row: Mapping[str, Any], originals: Mapping[int, Any], group: str, resamples: int) -> Interval | None:
    """Difference to the original; None for the original itself."""
    return (
        None
        if row["kind"] == "original"
        else _mean(_values(row, group) - _values(originals[row["seed"]], group), resamples)
    )


def _shown(found: Interval, sign: str = "") -> str:
    return f"{found.value:{sign}.3f} [{found.low:{sign}.3f}, {found.high:{sign}.3f}]"
