"""The tables of the benchmark on EDU-RELAT as Markdown, from the values of every look."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from expunge.deep.measures import LEAST, summed_up
from expunge.errors import Problem, UsageError
from expunge.folders import whole_file
from expunge.stats import bootstrap

__all__ = ["deep_markdown", "write_deep_table"]

_SCOPES = {"alone": "target alone", "closure": "with its closure"}
_Rows = Sequence[Mapping[str, Any]]


def write_deep_table(results: Path, file: Path) -> Path:
    """Write the Markdown of a folder that `expunge bench deep` filled.

    Raises:
        UsageError: There are no results.
    """
    game = results / "game.json"
    rows = [json.loads(own.read_text(encoding="utf-8")) for own in sorted((results / "rows").glob("*.json"))]
    if not game.is_file() or not any("method" in row for row in rows):
        raise UsageError(Problem("RESULTS", f'"{results}" holds no rows', "Run `expunge bench deep` first."))
    file.parent.mkdir(parents=True, exist_ok=True)
    whole_file(file, deep_markdown(json.loads(game.read_text(encoding="utf-8")), rows))
    return file


def deep_markdown(game: Mapping[str, Any], rows: _Rows) -> str:
    """The tables.

    One look of each run stands for it where one is wanted: the first of recall 0.8 or more, else the last. It is chosen without
    accuracy, as somebody would who asks about the facts to be forgotten and stops. The look of the highest min(recall,
    accuracy), the earliest of equals, is shown beside it: a run at its best, chosen by the figures it is judged by.
    """
    n, others = game["n"], game["deep"]["others"]
    original = next((row for row in rows if "method" not in row), None)
    groups: dict[tuple[str, str], list[Mapping[str, Any]]] = defaultdict(list)
    for row in rows:
        if row.get("points"):
            groups[row["method"], row["scope"]].append(row)
    lines = [
        "# Deep unlearning: can a forgotten fact still be deduced?",
        "",
        "Made by `expunge bench deep` from the facts each model no longer answers; do not edit.",
        "",
        f"A language model learns {n['facts']} facts, {n['of rules']} of them relations that rules connect, and unlearns "
        "one at a time: the **target alone**, or **with its closure**, a smallest set of facts without which it cannot be "
        "deduced. A fact counts as forgotten when ten tokens written to its question do not hold the answer. **Recall**: "
        "largest share of a minimal deep-unlearning set that is forgotten. **Accuracy**: share of the other relations "
        "still answered; **of all**: of all other facts. **Deduced**: targets that still follow from what is answered.",
    ]
    if others:
        lines[-1] += (
            f" After unlearning all facts are asked that the target hangs on, and {others} of the rest, which stand for the "
            "rest in both accuracies."
        )
    if original is not None:
        known = n["facts"] - len(original["gone"])
        lines += ["", f"Before unlearning the model answers {known} of {n['facts']} facts ({known / n['facts']:.1%})."]
    lines += [
        "", "## One look a run", "",
        f"Means over targets, with 95 % intervals over targets (bootstrap), at the first look of each run whose recall is "
        f"{LEAST} or more, else at its last: where somebody stops who asks about the facts to be forgotten alone.", "",
        *_HEADER,
        *(_line(key, own, _first) for key, own in sorted(groups.items())),
        "", f"Bar: mean recall and mean accuracy both {LEAST} or more.", "",
        "At the look of the highest min(recall, accuracy) instead, chosen by these very figures:", "",
        *_HEADER,
        *(_line(key, own, _best) for key, own in sorted(groups.items())),
        "",
        "## Over all looks", "",
        f"Acc@Recall>={LEAST}: highest accuracy among looks of such recall, mean over the targets where there is one; "
        f"Recall@Acc>={LEAST} likewise.", "",
        f"| method | forgotten | Acc@Recall>={LEAST} | targets that reach it | Recall@Acc>={LEAST} | targets that reach it |",
        "|---|---|---|---|---|---|",
    ]  # fmt: skip
    for (method, scope), own in sorted(groups.items()):
        found = summed_up([[(p["recall"], p["accuracy"]) for p in row["points"]] for row in own])
        lines.append(
            f"| {method} | {_SCOPES[scope]} | {_number(found.accuracy_at_recall)} | {found.reached_recall} of {found.targets} "
            f"| {_number(found.recall_at_accuracy)} | {found.reached_accuracy} of {found.targets} |"
        )
    lines += [
        "", "## Curves", "",
        "Recall / accuracy, means over the targets, after so many steps (task vector: at such a multiple). A run that had "
        "ended counts with its last look.", "",
    ]  # fmt: skip
    for (method, scope), own in sorted(groups.items()):
        steps = sorted({p["at"] for row in own for p in row["points"]})
        shown = [f"{at:g}: {_curve(own, at, 'recall')} / {_curve(own, at, 'accuracy')}" for at in steps]
        lines.append(f"- {method}, {_SCOPES[scope]}: {'; '.join(shown)}")
    if failed := [row for row in rows if row.get("failed")]:
        lines += ["", "Failed:", "", *(f"- {row['row']}: {row['failed']}" for row in failed)]
    recipe = game["recipe"]
    named = ", ".join(
        f"{name} {recipe[name]}" for name in ("epochs", "learning_rate", "batch_size", "warmup", "scheduler")
    )
    lines += ["", f"Recipe: {named}.", ""]
    return "\n".join(lines)


_HEADER = (
    "| method | forgotten | targets | recall | accuracy | accuracy of all | target forgotten | deduced | bar |",
    "|---|---|---|---|---|---|---|---|---|",
)
_Point = Mapping[str, Any]


def _first(points: Sequence[_Point]) -> _Point:
    return next((p for p in points if p["recall"] >= LEAST), points[-1])


def _best(points: Sequence[_Point]) -> _Point:
    return max(points, key=lambda p: (min(p["recall"], p["accuracy"]), -p["at"]))


def _line(key: tuple[str, str], own: _Rows, chosen: Callable[[Sequence[_Point]], _Point]) -> str:
    looks = [chosen(row["points"]) for row in own]
    recall, accuracy = (float(np.mean([p[name] for p in looks])) for name in ("recall", "accuracy"))
    cells = [_mean([p[name] for p in looks]) for name in ("recall", "accuracy", "accuracy_all")]
    gone, safe = sum(p["superficial"] for p in looks), sum(p["success"] for p in looks)
    met = "reached" if recall >= LEAST and accuracy >= LEAST else "no"
    n = len(looks)
    return f"| {key[0]} | {_SCOPES[key[1]]} | {n} | {' | '.join(cells)} | {gone} of {n} | {n - safe} of {n} | {met} |"


def _mean(values: Sequence[float]) -> str:
    array = np.array(values)
    found = bootstrap(
        [len(array)], lambda drawn: float(array[drawn[0]].mean()), resamples=1000, confidence=0.95, seed=0
    )
    return f"{found.value:.2f} [{found.low:.2f}, {found.high:.2f}]"


def _curve(own: _Rows, at: float, name: str) -> str:
    """Mean of a figure at a step, each run by its last look up to there, or before unlearning."""
    values = []
    for row in own:
        so_far = [p[name] for p in row["points"] if p["at"] <= at]
        values.append(so_far[-1] if so_far else row["before"][name])
    return f"{float(np.mean(values)):.2f}"


def _number(value: float | None) -> str:
    return "not reached" if value is None else f"{value:.2f}"
