"""One cell of the matrix: a method with its chosen hyperparameters on one original, measured beside retrained models."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from expunge.bench.assets import Assets, Tables
from expunge.bench.config import Trial
from expunge.bench.datasets import Request, random_request
from expunge.config import StopConfig
from expunge.errors import NonFiniteLossError
from expunge.folders import whole_file
from expunge.methods.sisa import Sisa
from expunge.metrics import ACCURACY, ENTITY_F1, macro_f1_over
from expunge.record import environment
from expunge.scoring import ScoreTable
from expunge.stats import auc, bootstrap, noise_floor
from expunge.stopping import Check, best, distance
from expunge.unlearning import Outcome, Unlearning

__all__ = ["CLIP", "device_name", "measured", "run_cell"]

CLIP = 10.0
"""Margins are clipped here, in nats, before they are compared record by record."""

Figure = tuple[list[str], Callable[[ScoreTable], np.ndarray], Callable[..., float]]


def figures(assets: Assets) -> dict[str, Figure]:
    """Name -> groups, what is read of each record, and the statistic: F1 and accuracy a group, and the membership AUC."""
    f1 = ENTITY_F1 if assets.split.task_name == "token-classification" else macro_f1_over(len(assets.split.label_names))
    found: dict[str, Figure] = {}
    for group in ("forget", "retain", "test"):
        for name, metric in (("F1", f1), ("accuracy", ACCURACY)):
            found[f"{group} {name}"] = ([group], metric.read, metric.statistic)
    found["membership AUC"] = (["forget", "unseen"], lambda table: table.record_margins, auc)
    return found


def measured(assets: Assets, tables: Tables, original: Tables, retrained: list[Tables]) -> dict[str, Any]:
    """Every figure of one model, with its interval over records, gap to the retrained mean, and their noise floor.

    The noise floor is the mean over the retrained models of each one's absolute difference to the mean of the others.
    """
    rows = {}
    for name, (groups, read, statistic) in figures(assets).items():
        arrays = [read(tables[group]) for group in groups]
        interval = bootstrap(
            [len(array) for array in arrays],
            lambda picked, arrays=arrays, statistic=statistic: statistic(
                *(array[p] for array, p in zip(arrays, picked, strict=True))
            ),
            resamples=assets.config.matrix.bootstrap,
        )
        others = [statistic(*(read(t[group]) for group in groups)) for t in retrained]
        rows[name] = {
            "n": [len(array) for array in arrays],
            "value": interval.value,
            "low": interval.low,
            "high": interval.high,
            "original": statistic(*(read(original[group]) for group in groups)),
            "retrained": others,
            "gap": abs(interval.value - float(np.mean(others))),
            "noise_floor": noise_floor(others),
        }
    margins = [_clipped(t) for t in retrained]
    rows["per record"] = {
        "n": [len(margins[0])],
        "gap": float(np.abs(_clipped(tables) - np.mean(margins, axis=0)).mean()),
        "original": float(np.abs(_clipped(original) - np.mean(margins, axis=0)).mean()),
        "noise_floor": noise_floor(margins),
    }
    return {name: _rounded(row) for name, row in rows.items()}


def _clipped(tables: Tables) -> np.ndarray:
    return np.clip(tables["forget"].record_margins, -CLIP, CLIP)


def _rounded(row: dict[str, Any]) -> dict[str, Any]:
    def short(value: Any) -> Any:
        if isinstance(value, list):
            return [short(item) for item in value]
        if isinstance(value, dict):
            return {name: short(item) for name, item in value.items()}
        return round(value, 5) if isinstance(value, float) else value

    return {name: short(value) for name, value in row.items()}


def run_cell(assets: Assets, request: Request, name: str, seed: int) -> dict[str, Any]:
    """Unlearn, measure, and give back what the cell's JSON holds.

    Raises:
        Busy: Another worker is making a model this cell needs.
    """
    retrained, trainings = assets.retrained(request)
    original_tables = assets.original_tables(request, seed)
    trial, tried = _chosen(assets, name)
    recipe, _ = assets.recipe()
    retraining = recipe.epochs * len(request.retain)
    cell: dict[str, Any] = {
        "data": assets.name,
        "request": request.name,
        "method": name,
        "seed": seed,
        "n": {"forget": len(request.forget), "retain": len(request.retain), "classes": len(assets.split.label_names)},
        "settings": _settings(trial),
        "trials": tried,
        "epochs": recipe.epochs,
        "environment": {**environment(), "device": device_name(), "threads": torch.get_num_threads()},
    }
    if isinstance(trial.method, Sisa):
        return {**cell, **_exact(assets, request, seed, original_tables, retrained, retraining, trainings)}
    start = time.perf_counter()
    try:
        outcome = _unlearn(assets, request, trial, seed)
    except NonFiniteLossError as error:
        return {**cell, "failed": str(error)}
    seconds = time.perf_counter() - start
    tables = assets.scored(outcome.model, assets.groups(request))
    return {
        **cell,
        "figures": measured(assets, tables, original_tables, retrained),
        "cost": _cost(outcome.passes, outcome.check_passes, retraining, seconds, trainings),
        "ended": {
            "steps": outcome.log["steps"],
            "kept_step": outcome.log.get("kept_step"),
            "reason": outcome.log["reason"],
            "checks": len(outcome.log["checks"]),
        },
    }


def _cost(passes: float, checks: float, retraining: float, seconds: float, trainings: list[float]) -> dict[str, Any]:
    return {
        "passes": round(passes, 1),
        "checks": round(checks, 1),
        "retraining": retraining,
        "ratio": round((passes + checks) / retraining, 4),
        "seconds": round(seconds, 2),
        "seconds_of_retraining": [round(value, 2) for value in trainings],
        "seconds_ratio": round(seconds / float(np.median(trainings)), 4),
    }


def _exact(
    assets: Assets, request: Request, seed: int, original: Tables, retrained: list[Tables], retraining: float,
    trainings: list[float],
) -> dict[str, Any]:  # fmt: skip
    from expunge.bench.exact import sisa_after

    after = sisa_after(assets, request, seed)
    share = after.passes / after.ensemble_passes
    return {
        "figures": measured(assets, after.tables, original, retrained),
        "cost": _cost(after.passes, 0.0, retraining, after.seconds, trainings),
        "ended": {
            "steps": None, "kept_step": None, "checks": 0,
            "reason": (
                f"{after.stages} of {after.all_stages} stages trained again, {share:.1%} of the ensemble's training passes"
            ),
        },
    }  # fmt: skip


def _unlearn(assets: Assets, request: Request, trial: Trial, seed: int) -> Outcome:
    recipe, _ = assets.recipe()
    ids = assets.split.train.ids
    model = assets.original(seed)
    set_seed(seed)
    return Unlearning(
        method=trial.method, task=assets.task, forget=assets.encoded("train", request.forget),
        retain=assets.encoded("train", request.retain), calibration=assets.encoded("dev"),
        forget_ids=[ids[i] for i in request.forget], retain_ids=[ids[i] for i in request.retain],
        training=trial.training, stop=StopConfig(), seed=seed, label_names=assets.split.label_names, base=assets.base,
        recipe=recipe,
    ).run(model)  # fmt: skip


def _chosen(assets: Assets, name: str) -> tuple[Trial, list[dict[str, Any]]]:
    """The best of a method's trials, on dev records and one request that no cell is about, and how each did."""
    trials = assets.config.methods[name]
    if len(trials) == 1:
        return trials[0], []
    settings = json.dumps([_settings(trial) for trial in trials], sort_keys=True)
    file = assets.once(
        f"tuned-{name}-{hashlib.sha256(settings.encode()).hexdigest()[:10]}.json",
        lambda file: whole_file(file, json.dumps([_tried(assets, trial) for trial in trials], indent=1)),
    )
    tried = json.loads(file.read_text())
    distances = [row["distance"] if row["distance"] is not None else float("inf") for row in tried]
    return trials[int(np.argmin(distances))], tried


def _tried(assets: Assets, trial: Trial) -> dict[str, Any]:
    """How far the kept step of a trial is from what is wanted, by the stop rule's own measure on dev records."""
    matrix = assets.config.matrix
    request = random_request(assets.split, max(matrix.fractions), seed=matrix.tuning_seed, name="tuning")
    try:
        outcome = _unlearn(assets, request, trial, matrix.seeds[0])
    except NonFiniteLossError as error:
        return {**_settings(trial), "distance": None, "failed": str(error)}
    checks = [Check(**check) for check in outcome.log["checks"]]
    kept = best(checks)
    found = {"distance": distance(kept, checks[0]), "first": asdict(checks[0]), "kept": asdict(kept)}
    return {**_settings(trial), **_rounded(found)}


def _settings(trial: Trial) -> dict[str, Any]:
    return {"method": trial.method.values(), "training": trial.training.values()}


def device_name() -> str:
    """The GPU's name, or CPU."""
    return torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
