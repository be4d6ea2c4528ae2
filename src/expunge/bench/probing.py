"""Can a straight cut through a layer's hidden states tell forget records from never-seen ones, as in retrained models?"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri

from expunge.comparing import combined_auc
from expunge.probe import CROSS_VALIDATION, folds, probe_scores
from expunge.scoring import ScoreTable
from expunge.tasks.base import Encoded

__all__ = ["layer_scores", "of_records", "part", "probed", "wanted"]

_MOST = 400
"""Never-seen records whose states are kept."""
_STRENGTH = 0.1
_FOLDS = 5
Scores = tuple[NDArray[np.float64], NDArray[np.float64]]


def wanted(group: str, encoded: Encoded) -> NDArray[np.int64] | None:
    """Units whose states of every layer are kept: of all forget records, and of the first test records; else None."""
    if group not in ("forget", "test"):
        return None
    return np.arange(encoded.offsets[len(encoded) if group == "forget" else min(_MOST, len(encoded))])


def of_records(table: ScoreTable) -> ScoreTable:
    """The table with one row of states a record, the mean over its units, in place of one a unit."""
    if table.layers is None:
        return replace(table, layer_units=None)
    starts = table.offsets[:-1][table.offsets[:-1] < len(table.layers)]
    sums = np.add.reduceat(table.layers.astype(np.float32), starts, axis=0)
    counts = np.diff(np.append(starts, len(table.layers)))
    return replace(table, layers=(sums / counts[:, None, None]).astype(np.float16), layer_units=starts)


def part(table: ScoreTable, records: NDArray[np.int64]) -> ScoreTable:
    """The scores of the records at these positions, their states (as `of_records` leaves them) as well."""
    found = table.take(records)
    return (
        found if table.layers is None else replace(found, layers=table.layers[records], layer_units=found.offsets[:-1])
    )


def layer_scores(forget: NDArray[Any], unseen: NDArray[Any]) -> list[Scores]:
    """For each layer, how much like a forget record each record looks to probes that were fitted without it.

    Args:
        forget: (N, L + 1, H) states of forget records, those of the embeddings first.
        unseen: (M, L + 1, H) states of never-seen records.

    Returns:
        For each of the L + 1 layers (N,) and (M,) scores in (0, 1).
    """
    both = [np.arange(len(forget)), np.arange(len(unseen))]
    splits = [folds(both, _FOLDS, np.random.default_rng(7))]
    weights = [np.ones(len(own)) for own in both]
    return [
        probe_scores([forget[:, layer], unseen[:, layer]], weights, splits, _STRENGTH)
        for layer in range(forget.shape[1])
    ]


def probed(
    several: Sequence[dict[str, ScoreTable]], original: dict[str, ScoreTable], retrained: Sequence[dict[str, ScoreTable]],
    parts: Sequence[NDArray[np.int64]],
) -> list[dict[str, Any]]:  # fmt: skip
    """The AUC of a cross-validated linear probe at each layer, and its difference to that on the retrained models.

    Args:
        several: Scores of the unlearned model; of a pool, of the model of each of its requests.
        original: Scores of the original on all records of the request.
        retrained: Scores of the models retrained without them.
        parts: Places of each request's records among the forget records of `original` and `retrained`.

    Returns:
        A row a layer, that of the embeddings first, beside the retrained models whose states are to be had; empty where none
        has them, or another model's are missing. Of a pool, each request brings its own forget records and its own share
        of the never-seen ones, all under its own model.
    """
    known = [tables for tables in retrained if tables["forget"].layers is not None]
    if not known:
        return []
    whole = [[tables] * len(parts) for tables in (original, *known)]
    tables = [table for model in (several, *whole) for each in model for table in (each["forget"], each["test"])]
    if any(table.layers is None for table in tables):
        return []
    own = _states(several, [np.arange(len(part)) for part in parts])
    own, before, *others = [layer_scores(*own), *(layer_scores(*_states(model, parts)) for model in whole)]
    z = float(ndtri(0.95))
    rows = []
    for layer, scores in enumerate(own):
        beside = [(-1.0 / len(others), *other[layer]) for other in others]
        value, error = combined_auc([(1.0, *scores), *beside])
        half = z * error * CROSS_VALIDATION
        aucs = [combined_auc([(1.0, *model[layer])])[0] for model in (own, before, *others)]
        rows.append(
            {
                "layer": layer, "n": [len(scores[0]), len(scores[1])], "value": aucs[0], "original": aucs[1],
                "retrained": aucs[2:], "difference": {"value": value, "low": value - half, "high": value + half},
            }
        )  # fmt: skip
    return rows


def _states(
    several: Sequence[dict[str, ScoreTable]], parts: Sequence[NDArray[np.int64]]
) -> tuple[NDArray[Any], NDArray[Any]]:
    forget = [tables["forget"].layers[part] for tables, part in zip(several, parts, strict=True)]  # pyright: ignore[reportOptionalSubscript]
    unseen = [tables["test"].layers[number :: len(parts)] for number, tables in enumerate(several)]  # pyright: ignore[reportOptionalSubscript]
    return np.concatenate(forget), np.concatenate(unseen)
