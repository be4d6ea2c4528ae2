"""Requests in a row: every method forgets one after the other on one model, measured after each; one JSON a step."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from expunge.bench.assets import Assets, Busy
from expunge.bench.cells import made_on
from expunge.bench.continual_config import ContinualConfig
from expunge.bench.datasets import Request, Split, read_split
from expunge.bench.exact import sisa_after
from expunge.bench.in_a_row import before, detected, rows_asked
from expunge.bench.kinds import same_kind
from expunge.bench.matrix import weights_hash
from expunge.bench.rows import cost, make_rows
from expunge.errors import DivergedError, Problem, UsageError
from expunge.folders import size_of, whole_file, whole_folder
from expunge.methods.retrain import Retrain
from expunge.methods.sisa import Sisa
from expunge.models import inspect_folder, load_tokenizer
from expunge.scoring import ScoreTable
from expunge.tasks.base import Encoded

__all__ = ["run_continual"]


@dataclass(frozen=True)
class _Assets(Assets):
    """What the rows share; every model is scored on the same groups.

    Attributes:
        classes: Numbers of the classes of each request, in order.
    """

    classes: tuple[frozenset[int], ...] = ()

    def positions(self, part: str, number: int) -> tuple[int, ...]:
        """Positions of the records of a request's classes, counted from 1, in train or test."""
        labels = getattr(self.split, part).labels
        return tuple(i for i, label in enumerate(labels) if label in self.classes[number - 1])

    @property
    def rest(self) -> tuple[int, ...]:
        """Positions of the test records of classes that no request names."""
        gone = frozenset[int]().union(*self.classes)
        return tuple(i for i, label in enumerate(self.split.test.labels) if label not in gone)

    def request(self, number: int) -> Request:
        """A request; records of the earlier ones are no longer there to be retained."""
        gone = {i for before in range(1, number + 1) for i in self.positions("train", before)}
        retain = tuple(i for i in range(len(self.split.train)) if i not in gone)
        forget, unseen = self.positions("train", number), self.positions("test", number)
        return Request(f"request {number}", forget, retain, self.rest, unseen, by_class=True)

    @cached_property
    def measured(self) -> dict[str, Encoded]:
        """Group -> its records."""
        found = {"rest": self.encoded("test", self.rest)}
        for number in range(1, len(self.classes) + 1):
            found[f"asked {number}"] = self.encoded("train", self.positions("train", number))
            found[f"like {number}"] = self.encoded("test", self.positions("test", number))
        return found

    def groups(self, request: Request) -> dict[str, Encoded]:
        del request
        return self.measured


def run_continual(
    config: ContinualConfig,
    folder: Path,
    base: str,
    out: Path,
    work: Path,
    *,
    only: str = "*",
    say: Callable[[str], None],
) -> int:
    """Make and measure every row that has no JSON yet; several workers on one folder share them.

    Rows are named ``original-SEED`` and ``METHOD-SEED-REQUEST``. A request is unlearned from what the method left of the one
    before, so a worker leaves a row alone whose forerunner is another worker's.

    Args:
        config: The benchmark.
        folder: Folder of the data sets.
        base: Folder or hub id of the base model.
        out: Where results go: ``game.json`` and ``rows/``.
        work: Where models are kept.
        only: Pattern of row names (``o3-*``).
        say: Shows a line of progress.

    Returns:
        How many rows this worker made.

    Raises:
        UsageError: Data or base model cannot be had, a class is unknown, or no row has such a name.
    """
    if problems := inspect_folder(base, where="--base"):
        raise UsageError(problems)
    ((name, data),) = config.bench.data.items()
    split = read_split(name, data, folder, config.bench.matrix)
    assets = _Assets(
        name, split, config.bench, base, weights_hash(base), load_tokenizer(base, where="--base"), work, say,
        classes=_classes(config, split),
    )  # fmt: skip
    _describe(config, assets, out)
    todo = rows_asked(config.continual.seeds, config.bench.methods, len(assets.classes), only)
    # A row that goes on from one that is not there yet is left to whoever makes that one.
    return make_rows(
        todo, out, lambda row: assets.locked(f"{row}.row"), lambda row: _row(assets, row), say,
        passes=(Busy, FileNotFoundError),
    )  # fmt: skip


def _classes(config: ContinualConfig, split: Split) -> tuple[frozenset[int], ...]:
    number = {name: i for i, name in enumerate(split.label_names)}
    named = [name for request in config.continual.requests for name in request]
    problems = [
        Problem("continual.requests", f'"{name}" is no class of the data', "Name classes that are there.")
        for name in named
        if name not in number
    ]
    if len(set(named)) < len(named):
        problems.append(Problem("continual.requests", "a class is named twice", "Name each in one request."))
    if problems:
        raise UsageError(problems)
    return tuple(frozenset(number[name] for name in request) for request in config.continual.requests)


def _describe(config: ContinualConfig, assets: _Assets, out: Path) -> None:
    sizes = {name: len(encoded) for name, encoded in assets.measured.items()}
    listed = {
        "data": assets.name,
        "requests": [list(request) for request in config.continual.requests],
        "recipe": {**asdict(config.bench.recipe), "epochs": config.continual.epochs},
        "base": assets.base_sha256,
        "n": {"train": len(assets.split.train), "dev": len(assets.split.dev), **sizes},
        "sha256": {part: getattr(assets.split, part).sha256() for part in ("train", "dev", "test")},
    }
    listed, earlier = same_kind(out / "game.json", listed, "results of another kind")
    seeds = sorted({*earlier.get("seeds", []), *config.continual.seeds})
    whole_file(out / "game.json", json.dumps({**listed, "seeds": seeds}, indent=1, sort_keys=True) + "\n")


def _row(assets: _Assets, name: str) -> dict[str, Any]:
    common = {
        "row": name,
        "environment": made_on(),
    }
    if name.startswith("original-"):
        seed = int(name.rpartition("-")[2])
        model = assets.original(seed)
        size = size_of(assets.file(f"original-{seed}"))
        return {**common, "kind": "original", "seed": seed, "storage": size, **_scored(assets, model)}
    method, seed, number = name.rsplit("-", 2)
    trial = assets.config.methods[method][0]
    request = assets.request(int(number))
    common |= {"kind": method, "seed": int(seed), "request": int(number), "settings": trial.values()}
    recipe, _ = assets.recipe()
    retraining = recipe.epochs * len(request.retain)
    if isinstance(trial.method, Sisa):
        return {**common, **_sisa(assets, request, int(seed), retraining)}
    start = time.perf_counter()
    if isinstance(trial.method, Retrain):
        records = assets.encoded("train", request.retain)
        model = assets.trained(records, recipe, seed=trial.method.seed + int(seed), name=name)
        log: Mapping[str, Any] = {"reason": "retrained"}
        passes, checks = retraining, 0.0
    else:
        try:
            start_from = before(
                int(number), lambda: assets.original(int(seed)), lambda k: assets.file(f"{method}-{seed}-{k}"),
                assets.task.auto_class,
            )  # fmt: skip
            outcome = assets.unlearned(start_from, request.forget, request.retain, trial, int(seed))
        except DivergedError as error:
            return {**common, "failed": str(error)}
        model, log, passes, checks = outcome.model, outcome.log, outcome.passes, outcome.check_passes
    seconds = time.perf_counter() - start
    place = assets.file(f"{method}-{seed}-{number}")
    groups = {"asked": f"asked {number}", "like": f"like {number}", "rest": "rest"}
    if place.is_dir():  # of a process that was killed before its row was written
        shutil.rmtree(place)
    with whole_folder(place) as beside:
        model.save_pretrained(beside)
    return {
        **common, "cost": cost(passes, checks, retraining, seconds), "storage": size_of(place),
        "ended": {key: log.get(key) for key in ("steps", "kept_step", "reason")},
        **detected(model, assets.task, {group: assets.measured[name] for group, name in groups.items()}),
        **_scored(assets, model),
    }  # fmt: skip


def _sisa(assets: _Assets, request: Request, seed: int, retraining: float) -> dict[str, Any]:
    after = sisa_after(assets, request, seed)
    model = size_of(assets.file(f"original-{seed}"))
    return {
        "cost": cost(after.passes, 0.0, retraining, after.seconds),
        "storage": model * (after.all_stages + 1),  # a checkpoint a stage, and the base
        "ended": {
            "steps": None,
            "kept_step": None,
            "reason": f"{after.stages} of {after.all_stages} stages trained again",
        },
        "scores": {group: _short(table) for group, table in after.tables.items()},
    }


def _scored(assets: _Assets, model: Any) -> dict[str, Any]:
    return {"scores": {group: _short(table) for group, table in assets.scored(model, assets.measured).items()}}


def _short(table: ScoreTable) -> dict[str, Any]:
    """Which records were right, one digit each, and their mean loss in nats."""
    right = "".join("1" if hit else "0" for hit in table.correct)
    return {"right": right, "loss": round(float(table.losses.mean()), 4)}
