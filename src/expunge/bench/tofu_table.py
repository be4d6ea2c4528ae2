"""The figures of the benchmark on TOFU, from its JSONs alone: every statistic is taken anew from the values there."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.bench.tofu_data import GROUPS
from expunge.errors import Problem, UsageError
from expunge.stats import Interval, auc, auc_interval, bootstrap, ks
from expunge.token_attacks import priv_leak
from expunge.token_metrics import forget_quality, model_utility, truth_ratio, truth_score

__all__ = ["ATTACKS", "LEAST_UTILITY", "LIKE", "POWER", "UTILITY_PARTS", "build_tofu_table"]

Floats = NDArray[np.float64]

ATTACKS = ("loss", "zlib", "Min-K", "Min-K++", "reference")
POWER, LIKE = 0.01, 0.05
"""The original's forget quality must lie below the first, a method's above the second."""
LEAST_UTILITY = 0.95
UTILITY_PARTS = tuple(f"{group}: {what}" for group in GROUPS[1:] for what in ("probability", "ROUGE-L", "truth score"))
"""The nine scores of model utility."""


@dataclass(frozen=True)
class _Model:
    """One measured model, its values as arrays (NaN where there is none).

    Attributes:
        row: Its JSON.
        base: Mean log-probabilities under the base, by group of those attacked.
    """

    row: Mapping[str, Any]
    base: Mapping[str, Floats] | None

    def values(self, group: str, name: str) -> Floats:
        """(N,) values of a group's records."""
        return _array(self.row["measured"]["asked"][group][name])

    def false(self, group: str) -> Floats:
        """(N, K) mean log-probabilities of the false answers."""
        return np.stack([_array(own) for own in self.row["measured"]["asked"][group]["false"]], axis=1)

    def ratios(self, group: str) -> Floats:
        """(N,) truth ratios."""
        return truth_ratio(self.values(group, "true"), self.false(group))

    def attacked(self, attack: str) -> tuple[Floats, Floats] | None:
        """Scores of forget and of evaluation records; None where the attack needs what is not there."""
        own = self.row["measured"]["attacked"]
        if attack != "reference":
            return _array(own["forget"][attack]), _array(own["evaluation"][attack])
        if self.base is None:
            return None
        forget, evaluation = (_array(own[group]["loss"]) - self.base[group] for group in ("forget", "evaluation"))
        return forget, evaluation

    def utility_parts(self) -> list[Floats]:
        """The nine scores of model utility, record by record: probability, ROUGE and truth score of three groups."""
        parts = []
        for group in GROUPS[1:]:
            probability = np.exp(self.values(group, "answer"))
            if group != "retain":  # as a part of all answers offered
                probability = probability / (probability + np.exp(self.false(group)).sum(axis=1))
            parts += [probability, self.values(group, "rouge"), truth_score(self.ratios(group), "true_better")]
        return parts


def build_tofu_table(results: Path, *, resamples: int = 1000) -> dict[str, Any]:
    """Every figure of every kind of model, over its seeds.

    Args:
        results: Folder with ``game.json`` and ``rows/``.
        resamples: Resamples behind each interval.

    Returns:
        ``game``; ``rows``, one a kind (original, retrained, each method) with figures, flags and cost; ``between``, the
        distances between retrained models; ``bars``; ``failed``.

    Raises:
        UsageError: There are no results, or no retrained model among them.
    """
    if not (results / "game.json").is_file():
        what = f'"{results}" holds no results'
        raise UsageError(Problem("results", what, "Give a folder that `expunge bench tofu` filled."))
    game = json.loads((results / "game.json").read_text(encoding="utf-8"))
    stored = [json.loads(file.read_text(encoding="utf-8")) for file in sorted((results / "rows").glob("*.json"))]
    base = next((row for row in stored if row["row"] == "base"), None)
    known = (
        None if base is None else {g: _array(base["measured"]["attacked"][g]["loss"]) for g in ("forget", "evaluation")}
    )
    models = [_Model(row, known) for row in stored if "measured" in row]
    retrained = [model for model in models if model.row.get("kind") == "retrained"]
    if not retrained:
        way_out = "Run `expunge bench tofu` until a retrained model is measured."
        raise UsageError(Problem("results", f'"{results}" holds no retrained model', way_out))
    kinds = dict.fromkeys(model.row["kind"] for model in models if "kind" in model.row)
    rows = [_figures(kind, [m for m in models if m.row.get("kind") == kind], retrained, resamples) for kind in kinds]
    between = [_against(one, other) for i, one in enumerate(retrained) for other in retrained[i + 1 :]]
    whole = next(row["utility"]["value"] for row in rows if row["kind"] == "retrained")
    for row in rows:
        row["utility_share"] = row["utility"]["value"] / whole if whole > 0 else None
    table = {
        "game": game, "rows": sorted(rows, key=_order), "between": between,
        "failed": {row["row"]: row["failed"] for row in stored if "failed" in row},
    }  # fmt: skip
    return {**table, "bars": _bars(table)}


def _array(values: Sequence[float | None]) -> Floats:
    return np.array([np.nan if value is None else value for value in values], float)


def _order(row: dict[str, Any]) -> tuple[int, float]:
    """The original, the methods by their distance from retrained models, these, and the base."""
    place = {"original": 0, "retrained": 2, "base": 3}.get(row["kind"], 1)
    return place, row["distance"]["value"] if row["distance"] else 0.0


def _figures(kind: str, models: list[_Model], retrained: list[_Model], resamples: int) -> dict[str, Any]:
    found: dict[str, Any] = {"kind": kind, "seeds": [m.row["seed"] for m in models if "seed" in m.row]}
    for name, read in {
        "probability": lambda m: np.exp(m.values("forget", "answer")),
        "rouge": lambda m: m.values("forget", "rouge"),
        "truth": lambda m: truth_score(m.ratios("forget"), "closer_to_1_better"),
        "extraction": lambda m: m.values("forget", "extraction"),
        "memorised": lambda m: m.values("forget", "memorised"),
    }.items():
        values = np.nanmean([read(model) for model in models], axis=0)
        found[name] = _shown(
            bootstrap([len(values)], lambda p, v=values: float(np.nanmean(v[p[0]])), resamples=resamples)
        )
    parts = [model.utility_parts() for model in models]
    sizes = [len(part) for part in parts[0][::3]]
    utility = bootstrap(sizes, lambda picked: _utility(parts, picked), resamples=resamples)
    found["utility"] = _shown(utility)
    scores = [_scores(own, [np.arange(size) for size in sizes]) for own in parts]
    found["utility_each"] = [model_utility(own) for own in scores]
    found["utility_parts"] = dict(zip(UTILITY_PARTS, np.mean(scores, axis=0).tolist(), strict=True))
    others = [model for model in retrained if model not in models]
    tested = [[_against(model, other) for other in others] for model in models]
    found["distance"] = found["p"] = None
    if others:
        spans = [ks(m.ratios("forget"), o.ratios("forget")) for m in models for o in others]
        found["distance"] = {end: float(np.mean([getattr(s, end) for s in spans])) for end in ("value", "low", "high")}
        found["p"] = [float(np.mean([own["p"] for own in several])) for several in tested]
        found["distance_each"] = [float(np.mean([own["distance"] for own in several])) for several in tested]
    found["attacks"] = _attacks(models, retrained)
    found["flags"] = [_flags(model, retrained) if kind != "retrained" else [] for model in models]
    costs = [model.row["cost"] for model in models if "cost" in model.row]
    if costs:
        found["cost"] = {
            name: float(np.mean([cost[name] for cost in costs])) for name in ("ratio", "passes", "checks", "seconds")
        }
        found["kept_step"] = [model.row["ended"]["kept_step"] for model in models]
        found["steps"] = [model.row["ended"]["steps"] for model in models]
        found["state"] = [model.row["ended"].get("state") for model in models]
    return found


def _utility(several: Sequence[Sequence[Floats]], picked: Sequence[NDArray[Any]]) -> float:
    """Mean over models of the harmonic mean of their nine scores, at these positions of each group."""
    return float(np.mean([model_utility(_scores(parts, picked)) for parts in several]))


def _scores(parts: Sequence[Floats], picked: Sequence[NDArray[Any]]) -> list[float]:
    """A model's nine scores, at these positions of each group."""
    return [max(0.0, float(np.nanmean(part[picked[i // 3]]))) for i, part in enumerate(parts)]


def _against(one: _Model, other: _Model) -> dict[str, float]:
    found = forget_quality(one.ratios("forget"), other.ratios("forget"))
    return {"p": found.p_value, "distance": found.distance}


def _attacks(models: list[_Model], retrained: list[_Model]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for attack in ATTACKS:
        pairs = [model.attacked(attack) for model in models]
        others = [model.attacked(attack) for model in retrained]
        if any(pair is None for pair in (*pairs, *others)):
            continue
        own = auc_interval([pair for pair in pairs if pair], [])
        found[attack] = _shown(own)
        if attack == "Min-K":
            normal = float(np.mean([auc(*pair) for pair in others if pair]))
            found["PrivLeak"] = {
                "value": priv_leak(own.value, normal), "low": priv_leak(own.high, normal), "high": priv_leak(own.low, normal)
            }  # fmt: skip
    return found


def _flags(model: _Model, retrained: list[_Model]) -> list[str]:
    """Where forget records stand out beside retrained models, in either direction, and by what."""
    flags = []
    for attack in ATTACKS:
        own, pairs = model.attacked(attack), [pair for other in retrained if (pair := other.attacked(attack))]
        if own is None or len(pairs) < len(retrained):
            continue
        value, normal = auc(*own), [auc(*pair) for pair in pairs]
        apart = auc_interval([own], pairs)
        if apart.high < 0 and value < min(normal):
            flags.append(f"over-forgotten ({attack})")
        if apart.low > 0 and value > max(normal):
            flags.append(f"remembered ({attack})")
    several = [_against(model, other)["p"] for other in retrained]
    if max(several) < POWER:
        over = np.nanmedian(model.ratios("forget")) > np.nanmedian([other.ratios("forget") for other in retrained])
        flags.append(f"{'over-forgotten' if over else 'remembered'} (truth ratio)")
    return flags


def _bars(table: dict[str, Any]) -> dict[str, Any]:
    rows = {row["kind"]: row for row in table["rows"]}
    original = rows.get("original")
    widest = max((found["distance"] for found in table["between"]), default=None)
    methods = [row for row in table["rows"] if row["kind"] not in ("original", "retrained", "base")]
    return {
        "power": None if original is None else {"p": original["p"], "met": max(original["p"]) < POWER},
        "between": widest,
        "reached": [
            row["kind"]
            for row in methods
            if min(row["p"]) > LIKE and (widest is not None and row["distance"]["value"] <= widest)
            and row["utility_share"] is not None
            and row["utility_share"] >= LEAST_UTILITY
        ],
    }  # fmt: skip


def _shown(found: Interval) -> dict[str, float]:
    return {"value": found.value, "low": found.low, "high": found.high}
