"""The benchmark's HTML page: the table, and gap against cost, one point a method. Self-contained."""

from __future__ import annotations

from typing import Any

from expunge.sheet import Sheet

__all__ = ["page"]


def page(table: dict[str, Any]) -> str:
    """The page for what `expunge.bench.table.build_table` gives. Everything shown is escaped."""
    from markdown_it import MarkdownIt
    from markupsafe import Markup

    from expunge.bench.table import markdown

    parts = [_gap_against_cost(block) for block in table["blocks"] if "retrained" in block]
    figures = Markup("").join(Markup("<figure>{}</figure>").format(Markup(svg)) for svg in parts)
    body = MarkdownIt("commonmark", {"html": False}).enable("table").render(markdown(table))
    return (
        "<!doctype html>\n<html lang='en'><head><meta charset='utf-8'><title>Expunge benchmark</title>"
        "<meta name='viewport' content='width=device-width, initial-scale=1'><style>"
        ":root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;margin:2rem auto;max-width:80rem;padding:0 1rem}"
        "table{border-collapse:collapse;font-size:13px;display:block;overflow-x:auto}"
        "td,th{border:1px solid #8886;padding:.25rem .5rem;text-align:left}figure{display:inline-block;margin:.5rem;"
        "background:#fff;padding:.5rem}code{font-family:ui-monospace,monospace}</style></head><body>"
        f"{body}<h2>Gap against cost</h2><p>Lower and further left is better; the line is the noise floor.</p>{figures}"
        "</body></html>\n"
    )


def _gap_against_cost(block: dict[str, Any]) -> str:
    rows = [row for row in block["rows"] if "gap" in row]
    sheet = Sheet(5.2, 3.4)
    axis = sheet.axes[0]
    axis.scatter([100 * row["passes"] for row in rows], [row["gap"] for row in rows], color="#D55E00", zorder=3)
    for row in rows:
        place = (100 * row["passes"], row["gap"])
        axis.annotate(row["method"], place, xytext=(3, 3), textcoords="offset points", fontsize=7)
    floor = block["retrained"]["noise_floor"]
    if floor is not None:
        axis.axhline(floor, color="#009E73", linewidth=1)
    axis.axhline(block["original"]["gap"], color="#0072B2", linewidth=1, linestyle="--")
    axis.set_xscale("log")
    axis.set_xlabel("example-passes, % of retraining")
    axis.set_ylabel("mean gap to retrained (dashed: original)")
    title = f"{block['data']}, {block['request']}"
    axis.set_title(title)
    return sheet.svg(title)
