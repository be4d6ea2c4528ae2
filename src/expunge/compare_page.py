"""Several runs in one self-contained HTML page. Pure: no model, no network, no torch."""

from __future__ import annotations

from typing import Any

from expunge.page import draw
from expunge.sheet import COLOURS, FORGET, SOFT, Sheet

__all__ = ["comparison_page"]

_HEADLINES = {"reached": "reached", "not reached": "not reached", "no power": "cannot be decided"}
_DRAWN = ("membership AUC (loss or margin), forget vs evaluation", "accuracy, forget", "accuracy, evaluation")


def comparison_page(found: dict[str, Any]) -> str:
    """The page for what `expunge.compare_runs.compare_runs` gives; everything shown is escaped."""
    from markupsafe import Markup

    drawing = _intervals(found)
    by_audit: dict[str, list[dict[str, Any]]] = {}
    for row in found["rows"]:
        by_audit.setdefault(row["audit"], []).append(row)
    return draw(
        "compare.html.jinja",
        runs=found["runs"],
        sections=by_audit,
        models=[model for model in ("original", "retrained") if any(row[model] for row in found["rows"])],
        warnings=found["warnings"],
        outcomes=_HEADLINES,
        drawing=None if drawing is None else Markup(drawing),  # ours, made from numbers
    )


def _intervals(found: dict[str, Any]) -> str | None:
    """The main figures of each run with intervals, beside the original's and the retrained models'."""
    rows = [row for name in _DRAWN for row in found["rows"] if row["measure"] == name]
    if not rows:
        return None
    names = [run["name"] for run in found["runs"]]
    sheet = Sheet(3.3 * len(rows), 1.3 + 0.3 * len(names), len(rows))
    for axis, row in zip(sheet.axes, rows, strict=True):
        for model, style in (("original", "-"), ("retrained", "--")):
            if row[model]:
                axis.axvline(row[model]["value"], color=COLOURS[model], linestyle=style, linewidth=1, label=model)
        places = [place for place, name in enumerate(names) if row["unlearned"][name]]
        shown = [row["unlearned"][names[place]] for place in places]
        ends = [[one["value"] - one["low"] for one in shown], [one["high"] - one["value"] for one in shown]]
        axis.errorbar(
            [one["value"] for one in shown], places, xerr=ends, color=FORGET, marker="^", markersize=5, linestyle="none",
            elinewidth=1, label="unlearned",
        )  # fmt: skip
        if "AUC" in row["measure"]:
            axis.axvline(0.5, color=SOFT, linestyle=":", linewidth=1)
        axis.set_yticks(range(len(names)), names if axis is sheet.axes[0] else [""] * len(names), parse_math=False)
        axis.set_ylim(len(names) - 0.5, -0.5)
        axis.set_title(row["measure"].replace(" (loss or margin), forget vs evaluation", ""))
    sheet.key(3)
    return sheet.svg("Main figures of each run, with intervals")
