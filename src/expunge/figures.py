"""The report's figures as inline SVG, from a record alone. Each is drawn with matplotlib, text kept as text."""

from __future__ import annotations

import io
import re
from typing import Any

from expunge.record import RunRecord

__all__ = ["latent_map", "losses", "margins", "roc", "stop_rule"]

# Okabe and Ito's palette: told apart with any colour vision.
COLOURS = {"original": "#0072B2", "unlearned": "#D55E00", "retrained": "#009E73"}
_FORGET, _OTHERS = "#D55E00", "#9AA5B1"
_MODELS = ("original", "unlearned", "retrained")
_STYLE = {
    "svg.fonttype": "none",
    "svg.hashsalt": "expunge",
    "font.family": "sans-serif",
    "font.size": 9,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10,
    "axes.grid": True,
    "grid.color": "#e5e7eb",
    "axes.axisbelow": True,
    "legend.frameon": False,
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

    def svg(self, title: str) -> str:
        buffer = io.StringIO()
        self._figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
        self._style.__exit__(None, None, None)
        text = buffer.getvalue()
        text = text[text.index("<svg") :]
        # Ids must not clash between figures of one page; the hash salt makes them stable.
        prefix = re.sub(r"\W", "", title)[:12]
        text = re.sub(r'id="([^"]+)"', rf'id="{prefix}-\1"', text)
        text = re.sub(r'(xlink:href="#|url\(#)', rf"\1{prefix}-", text)
        return text.replace("<svg", f'<svg role="img" aria-label="{title}"', 1)


def _present(data: dict[str, Any]) -> list[str]:
    return [model for model in _MODELS if model in data]


def latent_map(record: RunRecord) -> str | None:
    """Forget units among retained ones, one panel a model, in one frame of axes."""
    maps = record.figures.get("latent_map")
    if not maps:
        return None
    models = _present(maps)
    sheet = Sheet(3.2 * len(models), 3.1, len(models))
    for axis, model in zip(sheet.axes, models, strict=True):
        retain, forget = maps[model]["retain"], maps[model]["forget"]
        axis.scatter(*zip(*retain, strict=True), s=7, c=_OTHERS, marker="o", linewidths=0, label="retained")
        axis.scatter(*zip(*forget, strict=True), s=14, c=_FORGET, marker="^", linewidths=0, label="to forget")
        axis.set_title(f"{model} ({maps[model]['explained']:.0%} of variance)")
        axis.set_xticks([])
        axis.set_yticks([])
    points = [p for model in models for kind in ("retain", "forget") for p in maps[model][kind]]
    for axis in sheet.axes:
        axis.set_xlim(min(p[0] for p in points), max(p[0] for p in points))
        axis.set_ylim(min(p[1] for p in points), max(p[1] for p in points))
    sheet.axes[0].legend(loc="best", fontsize=8)
    return sheet.svg("Latent map of forget and retained records")


def margins(record: RunRecord) -> str | None:
    """Histograms of margins, forget and evaluation records, one panel a model."""
    data = record.figures.get("margins")
    if not data:
        return None
    models = _present(data)
    sheet = Sheet(3.2 * len(models), 2.6, len(models))
    edges = data["edges"]
    tallest = max(max(data[m][g]) for m in models for g in ("forget", "evaluation"))
    for axis, model in zip(sheet.axes, models, strict=True):
        axis.stairs(data[model]["evaluation"], edges, fill=True, color=_OTHERS, alpha=0.7, label="never seen")
        axis.stairs(data[model]["forget"], edges, color=_FORGET, linewidth=1.5, label="to forget")
        axis.set_title(model)
        axis.set_xlabel("margin (nats)")
        axis.set_ylim(0, tallest * 1.05)
    sheet.axes[0].set_ylabel("share of records")
    sheet.axes[0].legend(loc="upper left", fontsize=8)
    return sheet.svg("Margins of forget records and of records never seen")


def roc(record: RunRecord) -> str | None:
    """ROC curves of the margin attack, one line a model."""
    curves = record.figures.get("roc")
    if not curves:
        return None
    sheet = Sheet(3.6, 3.4)
    axis = sheet.axes[0]
    axis.plot([0, 1], [0, 1], color="#6b7280", linestyle=":", linewidth=1, label="guessing")
    for model, style in zip(_MODELS, ("-", "-", "--"), strict=True):
        if model in curves:
            axis.plot(*zip(*curves[model], strict=True), color=COLOURS[model], linestyle=style, label=model)
    axis.set_xlabel("false positive rate")
    axis.set_ylabel("true positive rate")
    axis.legend(loc="lower right", fontsize=8)
    return sheet.svg("Membership attack on the margin")


def losses(record: RunRecord) -> str | None:
    """Parts of the loss over steps."""
    history = record.training.get("history")
    if not history:
        return None
    sheet = Sheet(4.6, 3.0)
    axis = sheet.axes[0]
    parts = sorted(name for name in history[0] if name not in ("step", "loss") and not name.startswith("anchors"))
    for name, colour in zip(parts, ("#0072B2", "#D55E00", "#009E73", "#CC79A7"), strict=False):
        axis.plot([row["step"] for row in history], [row[name] for row in history], color=colour, label=name)
    axis.set_xlabel("step")
    axis.set_ylabel("nats")
    axis.legend(fontsize=8)
    return sheet.svg("Parts of the loss")


def _tagger(record: RunRecord) -> bool:
    return record.find("entity F1", "original", "retain") is not None


def stop_rule(record: RunRecord) -> str | None:
    """Forget and calibration accuracy at the stop rule's checks."""
    checks = record.training.get("checks")
    if not checks:
        return None
    sheet = Sheet(4.6, 3.0)
    axis = sheet.axes[0]
    steps = [check["step"] for check in checks]
    axis.plot(steps, [c["forget"] for c in checks], color=_FORGET, marker="^", markersize=4, label="forget")
    axis.plot(steps, [c["calibration"] for c in checks], color="#0072B2", marker="o", markersize=4, label="calibration")
    if record.training.get("kept_step") is not None:
        axis.axvline(record.training["kept_step"], color="#6b7280", linestyle=":", label="kept")
    axis.set_xlabel("step" if record.training["steps"] else "candidate (0: the original)")
    axis.set_ylabel("accuracy (taggers: O and the rest weigh the same)" if _tagger(record) else "accuracy")
    axis.legend(fontsize=8)
    return sheet.svg("Checks of the stop rule")
