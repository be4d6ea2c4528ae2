"""A drawing made with matplotlib that becomes inline SVG in the colours of the page it stands on, light or dark."""

from __future__ import annotations

import html
import io
import re
from typing import Any

__all__ = ["COLOURS", "FORGET", "INK", "OTHERS", "PALETTE", "SAME", "SOFT", "Sheet"]

# Okabe and Ito's palette: told apart with any colour vision. A page may set another shade for a dark background.
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
COLOURS = {"original": PALETTE[0], "unlearned": PALETTE[1], "retrained": PALETTE[2]}
FORGET, SAME, OTHERS, INK, SOFT, _GRID = PALETTE[1], PALETTE[0], "#9AA5B1", "#1F2933", "#6B7280", "#E5E7EB"
_OF_PAGE = {
    INK: "ink", SOFT: "soft", _GRID: "grid", OTHERS: "others", **{colour: f"c{n}" for n, colour in enumerate(PALETTE)}
}  # fmt: skip
"""Colour -> the page's variable for it."""
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "expunge",
    "font.family": "sans-serif",
    "font.size": 9,
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": _GRID,
    "axes.axisbelow": True,
    "legend.frameon": False,
    "legend.fontsize": 8,
}


class Sheet:
    """A matplotlib figure that becomes an SVG string without a display."""

    def __init__(self, width: float, height: float, columns: int = 1) -> None:
        from matplotlib import rc_context
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure

        self._style = rc_context(_STYLE)  # pyright: ignore[reportArgumentType]
        self._style.__enter__()
        self._figure = Figure(figsize=(width, height), layout="constrained")
        FigureCanvasSVG(self._figure)
        self.axes: list[Any] = list(self._figure.subplots(1, columns, squeeze=False)[0])

    def key(self, columns: int) -> None:
        """One legend for all axes, below them."""
        handles, labels = self.axes[0].get_legend_handles_labels()
        self._figure.legend(handles, labels, loc="outside lower center", ncols=columns)

    def svg(self, title: str) -> str:
        """The drawing, with this title for those who cannot see it."""
        buffer, layout = io.StringIO(), self._figure.get_layout_engine()
        assert layout is not None
        layout.execute(self._figure)  # once: saving would lay out twice and draw once for nothing
        self._figure.set_layout_engine(None)
        self._figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
        self._style.__exit__(None, None, None)
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        text = re.sub(r'\b(?:x|y|d|transform)="[^"]+"', lambda found: re.sub(r"(\.\d\d)\d+", r"\1", found[0]), text)
        text = re.sub(r"\n\s+", "\n", re.sub(r"<!--.*?-->", "", text))
        text = _short_ids(text, "".join(word[0] for word in re.findall(r"\w+", title)))
        for colour, name in _OF_PAGE.items():
            text = re.sub(rf"(?i)(: ){colour}\b", rf"\1var(--{name}, {colour})", text)
        return text.replace("<svg", f'<svg role="img" aria-label="{html.escape(title)}"', 1)


def _short_ids(svg: str, prefix: str) -> str:
    """Ids that are referred to become short ones that do not clash between figures of one page; others go."""
    wanted = dict.fromkeys(re.findall(r'xlink:href="#([^"]+)"|url\(#([^)]+)\)', svg))
    names = {one or other: f"{prefix}{number}" for number, (one, other) in enumerate(wanted)}
    svg = re.sub(r' id="([^"]+)"', lambda found: f' id="{names[found[1]]}"' if found[1] in names else "", svg)
    return re.sub(r'(xlink:href="#|url\(#)([^")]+)', lambda found: found[1] + names[found[2]], svg)
