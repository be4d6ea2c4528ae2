"""What is measured of an unlearned model in a cell: figures beside the original and the retrained models."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from expunge.attacks import standardised_shift
from expunge.bench.assets import Assets, Tables
from expunge.metrics import ACCURACY, ENTITY_F1, macro_f1_over
from expunge.scoring import ScoreTable
from expunge.stats import auc, bootstrap, noise_floor, tpr_at_fpr

__all__ = ["CLIP", "measured", "rounded"]

CLIP = 10.0
"""Margins are clipped here, in nats, before they are compared record by record."""

Figure = tuple[list[str], Callable[[ScoreTable], np.ndarray], Callable[..., float]]


def figures(assets: Assets) -> dict[str, Figure]:
    """Name -> groups, what is read of each record, and the statistic: F1 and accuracy a group, and membership."""
    f1 = ENTITY_F1 if assets.split.task_name == "token-classification" else macro_f1_over(len(assets.split.label_names))
    found: dict[str, Figure] = {}
    for group in ("forget", "retain", "test"):
        for name, metric in (("F1", f1), ("accuracy", ACCURACY)):
            found[f"{group} {name}"] = ([group], metric.read, metric.statistic)
    found["membership AUC"] = (["forget", "unseen"], lambda table: table.record_margins, auc)
    found["TPR at 1% FPR"] = (["forget", "unseen"], lambda table: table.record_margins, _tpr)
    return found


def _tpr(forget: np.ndarray, unseen: np.ndarray) -> float:
    found = tpr_at_fpr(forget, unseen, 0.01)
    return float("nan") if found is None else found.value


def measured(
    assets: Assets, several: Sequence[Tables], original: Tables, retrained: list[Tables], parts: Sequence[np.ndarray]
) -> dict[str, Any]:
    """Every figure of one model, with its interval over records, gap to the retrained mean, and their noise floor.

    The noise floor is the mean over the retrained models of each one's absolute difference to the mean of the others.

    Args:
        assets: What the cells of its data set share.
        several: Scores of the unlearned model; of a pool, of the model of each of its requests.
        original: Scores of the original on all records of the request.
        retrained: Scores of the models retrained without them.
        parts: Places of each request's records among the forget records of `original` and `retrained`.

    Returns:
        Name -> figure. Of a pool, forget records are put together, each scored by the model that forgot it; figures
        of other records, and of membership, are means over its requests.
    """
    rows = {}
    whole = [_of_parts(tables, parts) for tables in (original, *retrained)]
    for name, (groups, read, statistic) in figures(assets).items():
        sizes, figure = _pooled(several, groups, read, statistic)
        interval = bootstrap(sizes, figure, resamples=assets.config.matrix.bootstrap)
        before, *others = [_value(tables, groups, read, statistic) for tables in whole]
        if np.isnan(interval.value):
            continue
        rows[name] = {
            "n": [sum(len(t["forget"]) for t in several) if g == "forget" else len(several[0][g]) for g in groups],
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "original": before,
            "retrained": others,
            "gap": abs(interval.value - float(np.mean(others))),
            "noise_floor": noise_floor(others),
        }
    order = np.concatenate(list(parts))
    margins = np.array([_clipped(tables)[order] for tables in retrained])
    own, before = np.concatenate([_clipped(tables) for tables in several]), _clipped(original)[order]
    rows["per record"] = _apart(own, before, margins)
    if len(retrained) > 2:
        shifts = [float(np.abs(standardised_shift(values, margins)).mean()) for values in (own, before)]
        rows["per record"]["standardised"], rows["per record"]["original_standardised"] = shifts
    unseen = [np.array([_clipped(tables, "test") for tables in models]) for models in (several, retrained)]
    rows["per record, never seen"] = _apart(unseen[0], _clipped(original, "test"), unseen[1])
    rows["membership AUC"]["difference"] = _auc_difference(assets, several, retrained, parts)
    return {name: rounded(row) for name, row in rows.items()}


def _of_parts(tables: Tables, parts: Sequence[np.ndarray]) -> list[Tables]:
    """One model's tables once for each request of a pool, with that request's forget records alone."""
    return [{**tables, "forget": tables["forget"].take(part)} for part in parts]


def _pooled(
    several: Sequence[Tables],
    groups: list[str],
    read: Callable[[ScoreTable], np.ndarray],
    statistic: Callable[..., float],
) -> tuple[list[int], Callable[[list[np.ndarray]], float]]:
    """Sizes of the samples a figure is over, and the figure of positions drawn from them."""
    arrays = [[read(tables[group]) for group in groups] for tables in several]
    if groups == ["forget"]:
        joined = np.concatenate([own for (own,) in arrays])
        return [len(joined)], lambda picked: statistic(joined[picked[0]])
    if "forget" in groups:  # a sample of its own a request, one of the others for all
        sizes = [len(own) for own, _ in arrays]
        return [*sizes, len(arrays[0][1])], lambda picked: float(
            np.mean([statistic(own[p], other[picked[-1]]) for (own, other), p in zip(arrays, picked, strict=False)])
        )
    return [len(arrays[0][0])], lambda picked: float(np.mean([statistic(own[picked[0]]) for (own,) in arrays]))


def _value(
    several: Sequence[Tables],
    groups: list[str],
    read: Callable[[ScoreTable], np.ndarray],
    statistic: Callable[..., float],
) -> float:
    sizes, figure = _pooled(several, groups, read, statistic)
    return figure([np.arange(size) for size in sizes])


def _auc_difference(
    assets: Assets, several: Sequence[Tables], retrained: list[Tables], parts: Sequence[np.ndarray]
) -> dict[str, float]:
    """Membership AUC minus the retrained models' mean, with its paired 90 % interval."""

    def read(table: ScoreTable) -> np.ndarray:
        return table.record_margins

    groups = ["forget", "unseen"]
    sizes, own = _pooled(several, groups, read, auc)
    others = [_pooled(_of_parts(tables, parts), groups, read, auc)[1] for tables in retrained]
    found = bootstrap(
        sizes, lambda picked: own(picked) - float(np.mean([other(picked) for other in others])),
        resamples=assets.config.matrix.bootstrap, confidence=0.9,
    )  # fmt: skip
    return {"value": found.value, "low": found.low, "high": found.high}


def _apart(own: np.ndarray, before: np.ndarray, retrained: np.ndarray) -> dict[str, Any]:
    """Mean absolute difference of clipped margins, record by record, to the retrained models' mean; and their own.

    Args:
        own: (N,) margins of the unlearned model, or (R, N) of several.
        before: (N,) of the original.
        retrained: (M, N) of the retrained models.
    """
    mean = retrained.mean(axis=0)
    return {
        "n": [len(mean)],
        "gap": float(np.abs(own - mean).mean()),
        "original": float(np.abs(before - mean).mean()),
        "noise_floor": noise_floor(list(retrained)),
    }


def _clipped(tables: Tables, group: str = "forget") -> np.ndarray:
    return np.clip(tables[group].record_margins, -CLIP, CLIP)


def rounded(row: dict[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(item) for item in value]
        if isinstance(value, dict):
            return {name: short(item) for name, item in value.items()}
        return round(value, 5) if isinstance(value, float) else value

    return {name: short(value) for name, value in row.items()}
