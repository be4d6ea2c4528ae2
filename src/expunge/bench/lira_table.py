"""The table of a U-LiRA game, from its JSONs alone: every statistic is taken anew from the margins kept there."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.attacks import MODELS_A_SIDE, challenge_epsilon, klom
from expunge.bench.lira_stats import Verdict, judged
from expunge.errors import Problem, UsageError
from expunge.folders import whole_file
from expunge.stats import Interval

__all__ = ["build_lira_table", "lira_markdown", "write_lira_table"]

Floats = NDArray[np.float64]

_LEAST_PAIRS = 3
_SHOWN = {
    "untouched": "untouched original (positive control)",
    "retrained": "retrained without the request (negative control)",
}


def write_lira_table(results: Path, file: Path) -> Path:
    """Write the Markdown table of a folder that `expunge bench lira` filled.

    Raises:
        UsageError: There are no results.
    """
    text = lira_markdown(build_lira_table(results))
    file.parent.mkdir(parents=True, exist_ok=True)
    whole_file(file, text)
    return file


def build_lira_table(results: Path, *, resamples: int = 1000) -> dict[str, Any]:
    """What the attack achieves on every row that has three pairs of shadows or more.

    Args:
        results: Folder with ``game.json`` and ``rows/``.
        resamples: Resamples behind each interval.

    Returns:
        ``game``, and ``rows``: for each the verdicts against shadows that never had the records and against retrained
        ones, KLoM and epsilon where there are models enough, test accuracy and cost.

    Raises:
        UsageError: There are no results.
    """
    if not (results / "game.json").is_file():
        what = f'"{results}" holds no results'
        raise UsageError(Problem("results", what, "Give a folder that `expunge bench lira` filled."))
    game = json.loads((results / "game.json").read_text(encoding="utf-8"))
    stored = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((results / "rows").glob("*.json"))]
    by_name = {row["row"]: row for row in stored}
    retrained = _sides(by_name["retrained"], game)[0] if "retrained" in by_name else None
    cost = _mean(by_name["retrained"]["seconds"]) if "retrained" in by_name else None
    rows = []
    for name, row in by_name.items():
        found: dict[str, Any] = {
            "row": name, "settings": row["settings"], "failed": row["failed"], "device": row["environment"]["device"],
            "made": sum(margins is not None for margins in row["margins"]), "models": len(row["margins"]),
            "test_accuracy": _mean(row["test_accuracy"]),
        }  # fmt: skip
        if row["settings"]:
            found["kept_step"] = _mean([steps and steps[1] for steps in row["steps"]])
            found["passes"] = _ratio(
                _mean(row["passes"]), game["recipe"]["epochs"] * (game["trained"] - game["request"])
            )
            found["seconds"] = _ratio(_mean(row["seconds"]), cost)
        sides = _sides(row, game)
        found["never_seen"] = _verdict(sides, resamples)
        if name != "retrained" and retrained is not None:
            against = (sides[0], retrained)
            found["retrained"] = _verdict(against, resamples)
            found["audits"] = _many_models(*_complete(against))
        rows.append(found)
    return {"game": game, "rows": sorted(rows, key=_order)}


def _order(row: dict[str, Any]) -> tuple[int, float]:
    """Controls first and last; methods by how far from chance the attack gets."""
    place = {"untouched": 0, "retrained": 2}.get(row["row"], 1)
    verdict = row["never_seen"]
    return place, abs(verdict.accuracy.value - 0.5) if verdict else 1.0


def _mean(values: list[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return float(np.mean(known)) if known else None


def _ratio(value: float | None, whole: float | None) -> float | None:
    return value / whole if value is not None and whole else None


def _sides(row: dict[str, Any], game: dict[str, Any]) -> tuple[Floats, Floats]:
    """(P, T) margins under the shadow of each pair that had the record, and under the one that never did."""
    inside = np.array([[own == "1" for own in line] for line in game["inside"]])
    nothing = [np.nan] * len(game["targets"])
    margins = np.array([nothing if own is None else own for own in row["margins"]], dtype=float)
    first, second = margins[0::2], margins[1::2]
    return np.where(inside[0::2], first, second), np.where(inside[0::2], second, first)


def _complete(sides: tuple[Floats, Floats]) -> tuple[Floats, Floats]:
    """The pairs of shadows that both sides have whole."""
    kept = np.isfinite(sides[0]).all(axis=1) & np.isfinite(sides[1]).all(axis=1)
    return sides[0][kept], sides[1][kept]


def _verdict(sides: tuple[Floats, Floats], resamples: int) -> Verdict | None:
    first, second = _complete(sides)
    return judged(first, second, resamples=resamples) if len(first) >= _LEAST_PAIRS else None


def _many_models(unlearned: Floats, retrained: Floats) -> dict[str, Any]:
    """KLoM and epsilon over the records, or how many models there are instead of 32."""
    divergence, epsilon = klom(unlearned, retrained), challenge_epsilon(unlearned, retrained)
    if divergence is None or epsilon is None:
        return {"not_measured": f"{len(unlearned)} models a side, {MODELS_A_SIDE} are needed"}
    return {
        name: {"mean": float(values.mean()), "95th": float(np.quantile(values, 0.95)), "n": len(values)}
        for name, values in (("KLoM", divergence), ("epsilon", epsilon))
    }


def lira_markdown(table: dict[str, Any]) -> str:
    """The table as Markdown."""
    game = table["game"]
    sizes, n = game["sizes"], game["n"]
    pairs = sizes["shadows"] // 2
    lines = [
        f"# Could an attacker tell? U-LiRA on {game['data']}",
        "",
        "Made by `expunge bench lira` from the margins of every model; do not edit.",
        "",
        f"{sizes['shadows']} shadow models ({_encoder(sizes['layers'])}, {sizes['epochs']} epochs{_cut(game)}), each trained "
        f"on {game['trained']} of {n['train']} records, its partner on the others. Of {sizes['targets']} targets each "
        f"shadow has {game['request']}, and they are its request: every target was unlearned by {pairs} shadows, and the other "
        f"{pairs} never had it and ran the same unlearning on a request of the same size. The attacker knows the margins of a "
        "record under all other pairs of shadows, fits a Gaussian to either side (one sd a side) and takes the likelier one. "
        f"**Accuracy** is the share of right decisions; chance is 50 %. Brackets are 95 % bootstrap intervals over the "
        f"{sizes['targets']} records; **chance** is where 95 % of accuracies lie when the two sides are swapped at random, "
        "pair by pair. **Against retrained**: the same attack on unlearned shadows and the same ones retrained without their "
        "requests. **Shift** is the mean difference of margins, in standard deviations: below 0 the records are labelled with "
        "less confidence than by a model that never had them.",
        "",
        "| model | decisions | accuracy | chance | with each record's own sd | AUC | found at 1 % false alarms | "
        "shift | against retrained | test accuracy | passes | time |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    lines += [_line(row) for row in table["rows"]]
    lines += ["", *_notes(table)]
    return "\n".join(lines) + "\n"


def _encoder(layers: int) -> str:
    return f"the base's first {layers} layers" if layers else "the whole base"


def _cut(game: dict[str, Any]) -> str:
    longest = game["recipe"].get("max_length")
    return f", texts cut to {longest} tokens" if longest else ""


def _line(row: dict[str, Any]) -> str:
    name: str = _SHOWN.get(row["row"]) or row["row"]
    if row["made"] < row["models"]:
        name += f" ({row['made']} of {row['models']} models)"
    verdict: Verdict | None = row["never_seen"]
    if verdict is None:
        return f"| {name} | not measured: too few shadows |" + " |" * 10
    against: Verdict | None = row.get("retrained")
    cells = [
        name, f"{verdict.decisions:,}", _percent(verdict.accuracy),
        f"{100 * verdict.chance[0]:.1f} to {100 * verdict.chance[1]:.1f} %",
        _percent(verdict.accuracy_own_sd), _plain(verdict.auc),
        _percent(verdict.hits) if verdict.hits else "not measured", _plain(verdict.shift, 2),
        _against(against) if against else "",
        "" if row["test_accuracy"] is None else f"{100 * row['test_accuracy']:.1f} %",
        *("" if row.get(key) is None else f"{100 * row[key]:.1f} %" for key in ("passes", "seconds")),
    ]  # fmt: skip
    return "| " + " | ".join(cells) + " |"


def _against(found: Verdict) -> str:
    return f"{_percent(found.accuracy)} (chance: {100 * found.chance[0]:.1f} to {100 * found.chance[1]:.1f} %)"


def _percent(found: Interval) -> str:
    return f"{100 * found.value:.1f} % [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _plain(found: Interval, digits: int = 3) -> str:
    return f"{found.value:.{digits}f} [{found.low:.{digits}f}, {found.high:.{digits}f}]"


def _notes(table: dict[str, Any]) -> list[str]:
    game = table["game"]
    lines = [
        f"Passes and time are relative to retraining a shadow; on {', '.join(sorted({r['device'] for r in table['rows']}))}. "
        f"Test accuracy is the models' mean over {game['n']['test']} records."
    ]
    measured = [row for row in table["rows"] if "audits" in row]
    if reasons := sorted({row["audits"]["not_measured"] for row in measured if "not_measured" in row["audits"]}):
        lines.append(f"KLoM and epsilon: not measured ({'; '.join(reasons)}).")
    for row in measured:
        if "KLoM" in row["audits"]:
            shown = [f"{k} mean {v['mean']:.2f}, 95th percentile {v['95th']:.2f}" for k, v in row["audits"].items()]
            lines.append(f"{_SHOWN.get(row['row'], row['row'])}, against retrained: {'; '.join(shown)}.")
    for row in table["rows"]:
        if row["failed"]:
            first = next(iter(row["failed"].values()))
            lines.append(f"{row['row']} failed on {len(row['failed'])} shadows: {first}")
    return lines
