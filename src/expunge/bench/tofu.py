"""The benchmark on TOFU: originals, retrained models and every method measured alike, one JSON each."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from expunge.bench.cells import made_on
from expunge.bench.kinds import same_kind
from expunge.bench.matrix import weights_hash
from expunge.bench.rows import locked_in, make_rows
from expunge.bench.tofu_config import TofuConfig
from expunge.bench.tofu_data import GROUPS, TofuData, read_tofu
from expunge.bench.tofu_models import TofuModels
from expunge.errors import DivergedError, Problem, UsageError
from expunge.folders import whole_file
from expunge.models import inspect_folder, load_tokenizer
from expunge.scoring import ScoreTable
from expunge.stress import Material
from expunge.token_attacks import loss, min_k, min_k_plus_plus, zlib
from expunge.token_metrics import exact_memorisation, extraction_strength, mean_logp
from expunge.token_stress import alternatives, false_answers, other_answers, written

__all__ = ["likelihoods", "mean_likelihood", "run_tofu"]


def run_tofu(
    config: TofuConfig, folder: Path, base: str, out: Path, work: Path, *, only: str = "*", say: Callable[[str], None]
) -> int:
    """Make and measure every model that has no JSON yet; several workers on one folder share them.

    Rows are named ``base``, ``original-SEED``, ``retrained-SEED`` and ``METHOD-SEED``; first all of one seed, so that what
    is done is a valid subset whenever it is stopped.

    Args:
        config: The benchmark.
        folder: Folder of TOFU's files.
        base: Folder or hub id of the base model.
        out: Where results go: ``game.json`` and ``rows/``.
        work: Where trained models are kept.
        only: Pattern of row names (``npo-*``).
        say: Shows a line of progress.

    Returns:
        How many rows this worker made.

    Raises:
        UsageError: Data or base model cannot be had, or no row has such a name.
    """
    if problems := inspect_folder(base, where="--base"):
        raise UsageError(problems)
    data = read_tofu(config.tofu, folder)
    hashed = weights_hash(base)
    models = TofuModels(config, data, base, hashed, load_tokenizer(base, where="--base"), work, say)
    out.mkdir(parents=True, exist_ok=True)
    _describe(config, data, hashed, out)
    names = ["base"]
    for seed in config.tofu.seeds:
        names += [f"{name}-{seed}" for name in ("original", "retrained", *config.methods)]
    todo = [name for name in names if fnmatch(name, only)]
    if not todo:
        raise UsageError(Problem("--only", f'no row is called "{only}"', "Names are base, original-SEED, METHOD-SEED."))
    return make_rows(todo, out, locked_in(work / f"tofu-{models.key}"), lambda name: _row(models, name), say)


def _describe(config: TofuConfig, data: TofuData, hashed: str, out: Path) -> None:
    """What the results are of; results of another benchmark are not added to them."""
    tofu = asdict(config.tofu)
    listed = {
        "tofu": {name: value for name, value in tofu.items() if name not in ("seeds", "bootstrap", "batch_size")},
        "recipe": asdict(config.recipe),
        "base": hashed,
        "sha256": {
            part: records.sha256()
            for part, records in (("train", data.train), ("calibration", data.calibration), ("evaluation", data.evaluation))
        },
        "n": {
            "train": len(data.train), "forget": len(data.forget), "retain": len(data.retain),
            "asked": {group: len(records) for group, records in data.asked.items()},
            "calibration": len(data.calibration), "evaluation": len(data.evaluation),
        },
    }  # fmt: skip
    file = out / "game.json"
    listed, before = same_kind(file, listed, "results of another kind")
    seeds = sorted({*before.get("seeds", []), *config.tofu.seeds})
    whole_file(file, json.dumps({**listed, "seeds": seeds}, indent=1, sort_keys=True) + "\n")


def _row(models: TofuModels, name: str) -> dict[str, Any]:
    kind, _, seed = name.rpartition("-")
    common = {
        "row": name,
        "environment": made_on(),
    }
    if name == "base":
        return {**common, "kind": "base", "measured": _measured(models, models.load_base())}
    common |= {"kind": kind, "seed": int(seed)}
    if kind == "original":
        return {**common, "measured": _measured(models, models.original(int(seed)))}
    if kind == "retrained":
        return {**common, "measured": _measured(models, models.retrained(int(seed)))}
    try:
        model, more = _unlearned(models, kind, int(seed))
    except DivergedError as error:
        return {**common, "settings": models.config.methods[kind].values(), "failed": str(error)}
    return {**common, **more, "measured": _measured(models, model)}


def _unlearned(models: TofuModels, name: str, seed: int) -> tuple[Any, dict[str, Any]]:
    trial, data = models.config.methods[name], models.data
    found = models.unlearned(models.original(seed), trial, data.forget, data.retain, seed)
    log = found.log
    return found.model, {
        "settings": trial.values(),
        "cost": found.cost(models.config.recipe.epochs * len(data.retain)),
        "ended": {key: log.get(key) for key in ("steps", "kept_step", "reason", "state")},
        **({"offset": log["offset"]} if "offset" in log else {}),
        "checks": [
            {k: round(v, 4) if isinstance(v, float) else v for k, v in check.items()} for check in log["checks"]
        ],
    }


def likelihoods(
    models: TofuModels, model: Any, groups: Sequence[str] = GROUPS
) -> tuple[Material, dict[str, ScoreTable], dict[str, dict[str, Any]]]:
    """What a model makes of groups of records and of their other answers.

    Returns:
        What was scored; tables of these groups and of ``evaluation``; and of each group mean log-probabilities a token, (N,) of
        ``answer`` and of ``true`` (the answer in other words), and ``false``: one such array for each false answer.
    """
    data, task = models.data, models.task
    model.eval()
    encoded = {group: task.encode(data.asked[group]) for group in groups}
    evaluation = task.encode(data.evaluation)
    material = Material(
        task=task, forget=encoded["forget"], calibration=evaluation, evaluation=evaluation,
        batch_size=models.config.tofu.batch_size,
        alternatives={group: other_answers(task, data.asked[group]) for group in groups},
        texts={group: data.asked[group].texts for group in groups},
    )  # fmt: skip
    tables, _ = material.scored(model, {**encoded, "evaluation": evaluation})
    others, _ = alternatives(model, material)
    found = {
        group: {
            "answer": mean_likelihood(tables[group]),
            "true": mean_likelihood(others[f"{group}, true"]),
            "false": [mean_likelihood(table) for table in false_answers(others, group)],
        }
        for group in groups
    }
    return material, tables, found


def _measured(models: TofuModels, model: Any) -> dict[str, Any]:
    """Values of every record asked about: all figures of the table are statistics of these."""
    material, tables, likely = likelihoods(models, model)
    rouge, _ = written(model, material)
    asked = {}
    for group in GROUPS:
        own = tables[group]
        asked[group] = {
            "answer": _short(likely[group]["answer"]),
            "true": _short(likely[group]["true"]),
            "false": [_short(values) for values in likely[group]["false"]],
            "rouge": _short(rouge[group]),
            "extraction": _short(extraction_strength(own.predictions, own.labels, own.offsets)),
            "memorised": _short(exact_memorisation(own.predictions, own.labels, own.offsets)),
        }
    return {"asked": asked, "attacked": {group: _attacked(tables[group]) for group in ("forget", "evaluation")}}


def mean_likelihood(table: ScoreTable) -> np.ndarray:
    """(N,) mean log-probability of a record's tokens, in nats."""
    return mean_logp(-table.losses, table.offsets)


def _attacked(table: ScoreTable) -> dict[str, list[float | None]]:
    """Scores of every attack that needs no other model, higher for members."""
    logp, offsets = -table.losses, table.offsets
    assert table.spread is not None
    assert table.compressed is not None
    scores = {
        "loss": loss(logp, offsets),
        "zlib": zlib(logp, offsets, table.compressed),
        "Min-K": min_k(logp, offsets),
        "Min-K++": min_k_plus_plus(logp, table.spread[:, 0], table.spread[:, 1], offsets),
    }
    return {name: _short(values) for name, values in scores.items()}


def _short(values: Sequence[float] | np.ndarray) -> list[float | None]:
    return [round(float(value), 6) if np.isfinite(value) else None for value in values]
