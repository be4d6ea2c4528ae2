"""One cell of the matrix: a method with its chosen hyperparameters on one original, measured beside retrained models."""

from __future__ import annotations

import hashlib
import json
import time
from dataclasses import asdict
from typing import Any

import numpy as np
import torch

from expunge.bench.assets import Assets, Tables
from expunge.bench.config import Trial
from expunge.bench.datasets import Request, random_request
from expunge.bench.measuring import measured, rounded
from expunge.bench.probing import probed
from expunge.errors import DivergedError
from expunge.folders import whole_file
from expunge.methods.sisa import Sisa
from expunge.record import environment
from expunge.stopping import Check, best, distance
from expunge.unlearning import Outcome

__all__ = ["made_on", "run_cell"]


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
        "settings": trial.values(),
        "trials": tried,
        "epochs": recipe.epochs,
        "environment": made_on(),
    }
    if isinstance(trial.method, Sisa):
        return {**cell, **_exact(assets, request, seed, original_tables, retrained, retraining, trainings)}
    outcomes, tables, seconds = [], [], 0.0
    for number, part in enumerate(request.each()):
        start = time.perf_counter()
        try:
            outcomes.append(_unlearn(assets, part, trial, seed))
        except DivergedError as error:
            return {**cell, "failed": f"request {number + 1}: {error}" if request.parts else str(error)}
        seconds += time.perf_counter() - start
        groups = {**assets.groups(request), "forget": assets.encoded("train", part.forget)}
        tables.append(assets.scored(outcomes[-1].model, groups))
    count = len(outcomes)
    passes, checks = (sum(getattr(o, name) for o in outcomes) / count for name in ("passes", "check_passes"))
    ended = [
        {**{key: o.log.get(key) for key in ("steps", "kept_step", "reason")}, "checks": len(o.log["checks"])}
        for o in outcomes
    ]
    return {
        **cell,
        "figures": measured(assets, tables, original_tables, retrained, request.places()),
        "probe": [rounded(row) for row in probed(tables, original_tables, retrained, request.places())],
        "cost": _cost(passes, checks, retraining, seconds / count, trainings, len(request.forget) / count),
        "ended": ended[0],
        "ended_each": ended if request.parts else [],
    }


def _cost(
    passes: float, checks: float, retraining: float, seconds: float, trainings: list[float], records: float
) -> dict[str, Any]:
    return {
        "passes": round(passes, 1),
        "checks": round(checks, 1),
        "passes_per_record": round(passes / records, 2),
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
        "figures": measured(assets, [after.tables], original, retrained, request.places()),
        "cost": _cost(after.passes, 0.0, retraining, after.seconds, trainings, len(request.forget)),
        "ended": {
            "steps": None, "kept_step": None, "checks": 0,
            "reason": (
                f"{after.stages} of {after.all_stages} stages trained again, {share:.1%} of the ensemble's training passes"
            ),
        },
    }  # fmt: skip


def _unlearn(assets: Assets, request: Request, trial: Trial, seed: int) -> Outcome:
    scores = assets.first_scores(seed, request.forget)
    return assets.unlearned(assets.original(seed), request.forget, request.retain, trial, seed, scores)


def _chosen(assets: Assets, name: str) -> tuple[Trial, list[dict[str, Any]]]:
    """The best of a method's trials, on dev records and one request that no cell is about, and how each did."""
    trials = assets.config.methods[name]
    if len(trials) == 1:
        return trials[0], []
    settings = json.dumps([trial.values() for trial in trials], sort_keys=True)
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
    except DivergedError as error:
        return {**trial.values(), "distance": None, "failed": str(error)}
    checks = [Check(**check) for check in outcome.log["checks"]]
    kept = best(checks)
    found = {"distance": distance(kept, checks[0]), "first": asdict(checks[0]), "kept": asdict(kept)}
    return {**trial.values(), **rounded(found)}


def made_on() -> dict[str, Any]:
    """Versions and machine behind a row: the GPU's name, or CPU, and the threads it had."""
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    return {**environment(), "device": device, "threads": torch.get_num_threads()}
