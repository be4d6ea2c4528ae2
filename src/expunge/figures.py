"""The report's figures as inline SVG, from a record alone. Each is drawn with matplotlib, text kept as text."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from typing import Any

from expunge.record import RunRecord
from expunge.sheet import COLOURS, FORGET, OTHERS, PALETTE, SAME, SOFT, Sheet

__all__ = ["latent_map", "layers", "losses", "margins", "roc", "stop_rule"]

_MODELS = ("original", "unlearned", "retrained")
_MARKERS = {"original": "o", "unlearned": "^", "retrained": "s"}
_LOW_FPR = 0.1
_MOST_STEPS = 400


def _present(data: dict[str, Any]) -> list[str]:
    return [model for model in _MODELS if model in data]


def latent_map(record: RunRecord) -> str | None:
    """Forget units among retained ones, one panel a model, in one frame of axes."""
    maps = record.figures.get("latent_map")
    if not maps:
        return None
    models = _present(maps)
    sheet = Sheet(3.2 * len(models), 3.3, len(models))
    for axis, model in zip(sheet.axes, models, strict=True):
        retain, forget = maps[model]["retain"], maps[model]["forget"]
        same = maps.get("same_class")
        if same is None:
            _dots(axis, retain, "retained", c=OTHERS)
            _dots(axis, forget, "to forget", c=FORGET, marker="^", s=14)
        else:
            _dots(axis, _chosen(retain, same["retain"], 0), "retained, other classes", c=OTHERS)
            _dots(axis, _chosen(retain, same["retain"], 1), "retained, that class", c=SAME, marker="s")
            empty = {"facecolors": "none", "edgecolors": FORGET, "linewidths": 0.7}
            _dots(axis, _chosen(forget, same["forget"], 0), "to forget, other classes", marker="^", s=14, **empty)
            _dots(axis, _chosen(forget, same["forget"], 1), "to forget, that class", c=FORGET, marker="^", s=16)
        axis.set_title(f"{model} ({maps[model]['explained']:.0%} of variance)")
        axis.set_xticks([])
        axis.set_yticks([])
    points = [p for model in models for kind in ("retain", "forget") for p in maps[model][kind]]
    ends = [(min(p[place] for p in points), max(p[place] for p in points)) for place in (0, 1)]
    for axis in sheet.axes:
        for (low, high), limit in zip(ends, (axis.set_xlim, axis.set_ylim), strict=True):
            limit(low - 0.04 * (high - low), high + 0.04 * (high - low))
    sheet.key(4)
    return sheet.svg("Latent map of forget and retained records")


def _dots(axis: Any, points: Sequence[Any], label: str, **look: Any) -> None:
    where = zip(*points, strict=True) if points else ((), ())
    axis.scatter(*where, **{"s": 7, "marker": "o", "linewidths": 0, "label": label, **look})


def _chosen(points: Sequence[Any], flags: Sequence[int], wanted: int) -> list[Any]:
    return [point for point, flag in zip(points, flags, strict=True) if flag == wanted]


def margins(record: RunRecord) -> str | None:
    """Histograms of margins, forget and evaluation records, one panel a model."""
    data = record.figures.get("margins")
    if not data:
        return None
    models = _present(data)
    sheet = Sheet(3.2 * len(models), 2.8, len(models))
    edges = data["edges"]
    tallest = max(max(data[m][g]) for m in models for g in ("forget", "evaluation"))
    for axis, model in zip(sheet.axes, models, strict=True):
        axis.stairs(data[model]["evaluation"], edges, fill=True, color=OTHERS, alpha=0.7, label="never seen")
        axis.stairs(data[model]["forget"], edges, color=FORGET, linewidth=1.5, label="to forget")
        axis.set_title(model)
        axis.set_xlabel("margin (nats)")
        axis.set_ylim(0, tallest * 1.05)
    sheet.axes[0].set_ylabel("share of records")
    sheet.key(2)
    return sheet.svg("Margins of forget records and of records never seen")


def roc(record: RunRecord) -> str | None:
    """ROC curves of the margin attack, one line a model; small false positive rates once more, on a logarithmic axis."""
    curves = record.figures.get("roc")
    if not curves:
        return None
    sheet = Sheet(4.6, 4.4)
    axis = sheet.axes[0]
    axis.plot([0, 1], [0, 1], color=SOFT, linestyle=":", linewidth=1, label="guessing")
    for model in _present(curves):
        axis.plot(*zip(*curves[model], strict=True), color=COLOURS[model], linestyle=_line(model), label=model)
    axis.set_xlabel("false positive rate")
    axis.set_ylabel("true positive rate")
    least = 1 / record.data["evaluation"]  # no threshold can show a smaller rate
    if least <= _LOW_FPR / 5:
        inset = axis.inset_axes((0.5, 0.1, 0.48, 0.42))
        rates = [least * (_LOW_FPR / least) ** (i / 40) for i in range(41)]
        inset.plot(rates, rates, color=SOFT, linestyle=":", linewidth=1)
        for model in _present(curves):
            caught = [_caught(curves[model], rate) for rate in rates]
            inset.plot(rates, caught, color=COLOURS[model], linestyle=_line(model), drawstyle="steps-post")
        inset.set_xscale("log")
        inset.set_xlim(least, _LOW_FPR)
        shown = [rate for rate in (0.001, 0.01, 0.1) if rate >= least]
        inset.set_xticks(shown, [f"{rate:g}" for rate in shown])
        inset.set_ylim(bottom=0)
        inset.tick_params(labelsize=7)
        inset.set_title("few false positives", fontsize=8)
    sheet.key(4)
    return sheet.svg("Membership attack on the margin")


def _line(model: str) -> str:
    return "--" if model == "retrained" else "-"


def _caught(curve: Sequence[Sequence[float]], rate: float) -> float:
    """The largest true positive rate at no more than this false positive rate."""
    return max(true for false, true in curve if false <= rate + 1e-9)


def layers(record: RunRecord) -> str | None:
    """AUC of the linear probes at each layer, with intervals, one panel a kind of probe."""
    data = record.figures.get("latent_probe")
    if not data:
        return None
    kinds = [kind for kind in ("label", "membership") if kind in data]
    sheet = Sheet(4.6 * len(kinds), 3.2, len(kinds))
    for axis, kind in zip(sheet.axes, kinds, strict=True):
        found = data[kind]
        models = _present(found["auc"])
        for place, model in enumerate(models):
            moved = [layer + 0.15 * (place - (len(models) - 1) / 2) for layer in range(len(found["layers"]))]
            values, lows, highs = zip(*found["auc"][model], strict=True)
            ends = [
                [value - low for value, low in zip(values, lows, strict=True)],
                [high - value for value, high in zip(values, highs, strict=True)],
            ]
            axis.errorbar(
                moved, values, yerr=ends, color=COLOURS[model], marker=_MARKERS[model], markersize=4, linewidth=0.8,
                elinewidth=0.8, linestyle=_line(model), label=model,
            )  # fmt: skip
        axis.axhline(0.5, color=SOFT, linestyle=":", linewidth=1, label="guessing")
        names = [name.replace("input of the head", "head").removeprefix("layer ") for name in found["layers"]]
        axis.set_xticks(range(len(names)), names)
        axis.set_xlabel("layer (0: embeddings)")
        axis.set_title(f"{kind} probe")
    sheet.axes[0].set_ylabel("AUC, forget against never seen")
    sheet.key(4)
    return sheet.svg("Linear probes of each layer")


def losses(record: RunRecord) -> str | None:
    """Parts of the loss over steps."""
    history = record.training.get("history")
    if not history:
        return None
    sheet = Sheet(4.6, 3.2)
    axis = sheet.axes[0]
    parts = sorted(name for name in history[0] if name not in ("step", "loss") and not name.startswith("anchors"))
    rows = history[:: -(-len(history) // _MOST_STEPS)]
    for number, (name, colour) in enumerate(zip(parts, cycle(PALETTE), strict=False)):
        style = ("-", "--", "-.")[number % 3]
        axis.plot([row["step"] for row in rows], [row[name] for row in rows], color=colour, linestyle=style, label=name)
    axis.set_xlabel("step")
    axis.set_ylabel("nats")
    sheet.key(4)
    return sheet.svg("Parts of the loss")


def _tagger(record: RunRecord) -> bool:
    return record.find("entity F1", "original", "retain") is not None


def stop_rule(record: RunRecord) -> str | None:
    """Forget and calibration accuracy at the stop rule's checks, and the AUC it decides by, with its interval."""
    checks = record.training.get("checks")
    if not checks:
        return None
    decided = any(check.get("low", 0) > 0 or check.get("high", 1) < 1 for check in checks)
    sheet = Sheet(9.2 if decided else 4.6, 3.2, 1 + decided)
    axis = sheet.axes[0]
    steps = [check["step"] for check in checks]
    axis.plot(steps, [c["forget"] for c in checks], color=FORGET, marker="^", markersize=4, label="forget")
    calibration = [c["calibration"] for c in checks]
    axis.plot(steps, calibration, color=PALETTE[0], marker="o", markersize=4, linestyle="--", label="calibration")
    axis.set_ylabel("accuracy (taggers: O and the rest weigh the same)" if _tagger(record) else "accuracy")
    if decided:
        ends = [[c["auc"] - c["low"] for c in checks], [c["high"] - c["auc"] for c in checks]]
        sheet.axes[1].errorbar(
            steps, [c["auc"] for c in checks], yerr=ends, color=FORGET, marker="^", markersize=4, elinewidth=0.8
        )
        sheet.axes[1].axhline(0.5, color=SOFT, linewidth=1, linestyle="--")
        sheet.axes[1].set_ylabel("AUC, forget against calibration")
    for axis in sheet.axes:
        if record.training.get("kept_step") is not None:
            axis.axvline(record.training["kept_step"], color=SOFT, linestyle=":", label="kept")
        axis.set_xlabel("step" if record.training["steps"] else "candidate (0: the original)")
    sheet.key(3)
    return sheet.svg("Checks of the stop rule")
