"""TOFU's authors forgotten in a row by one language model, measured after each request; one JSON a step."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import Timeout

from expunge.bench.authors_config import Authors, AuthorsConfig
from expunge.bench.cells import made_on
from expunge.bench.config import Trial
from expunge.bench.in_a_row import before, detected, rows_asked
from expunge.bench.kinds import same_kind
from expunge.bench.matrix import weights_hash
from expunge.bench.rows import locked_in, make_rows
from expunge.bench.tofu_data import read_tofu
from expunge.bench.tofu_models import TofuModels, Unlearned
from expunge.errors import DivergedError, Problem, UsageError
from expunge.fit import device
from expunge.folders import size_of, whole_file, whole_folder
from expunge.head import head_of
from expunge.methods.o3 import O3
from expunge.methods.retrain import Retrain
from expunge.models import inspect_folder, load_model, load_tokenizer
from expunge.tasks.base import Encoded
from expunge.token_metrics import exact_memorisation, mean_logp

__all__ = ["run_authors"]


@dataclass(frozen=True)
class _Game:
    """Who is forgotten when, and what every model is asked.

    Attributes:
        authors: The requests.
        models: The originals, and how they unlearn.
        encoder: Folder or hub id of the encoder that O3's detectors read with, where a method names none.
    """

    authors: Authors
    models: TofuModels
    encoder: str

    def trial(self, method: str) -> Trial:
        """The setting of a method."""
        trial = self.models.config.methods[method]
        if isinstance(trial.method, O3) and trial.method.encoder is None:
            return replace(trial, method=replace(trial.method, encoder=self.encoder))
        return trial

    def asked(self, number: int) -> tuple[int, ...]:
        """Positions of the training records of a request, counted from 1."""
        size = self.authors.questions
        return tuple(i for a in self.authors.requests[number - 1] for i in range((a - 1) * size, a * size))

    def left(self, number: int) -> tuple[int, ...]:
        """Positions of the records that neither a request nor one before it names."""
        gone = {i for before in range(1, number + 1) for i in self.asked(before)}
        return tuple(i for i in range(len(self.models.data.train)) if i not in gone)

    @cached_property
    def groups(self) -> dict[str, Encoded]:
        """Group -> its records: those of each request, a sample of authors nobody names, and general knowledge."""
        models = self.models
        count = len(self.authors.requests)
        found = {f"asked {k}": models.train.take(self.asked(k)) for k in range(1, count + 1)}
        rest = self.left(count)
        drawn = np.random.default_rng(4).permutation(len(rest))[: models.config.tofu.retain_sample]
        found["rest"] = models.train.take(sorted(rest[i] for i in drawn))
        for group in ("real authors", "world facts"):
            found[group] = models.task.encode(models.data.asked[group])
        return found

    def folder(self, name: str) -> Path:
        """Where a row's model is kept."""
        return self.models.work / f"tofu-{self.models.key}" / f"row-{name}"


def run_authors(
    config: AuthorsConfig, folder: Path, base: str, encoder: str, out: Path, work: Path, *, only: str = "*",
    say: Callable[[str], None],
) -> int:  # fmt: skip
    """Make and measure every row that has no JSON yet; several workers on one folder share them.

    Rows are named ``original-SEED`` and ``METHOD-SEED-REQUEST``. A request is unlearned from what the method left of the one
    before; `retrain` trains the base without all requests so far. A worker leaves a row alone whose forerunner is not there.

    Args:
        config: The benchmark.
        folder: Folder of TOFU's files.
        base: Folder or hub id of the base model.
        encoder: Folder or hub id of the encoder that O3's detectors read with, where a method names none.
        out: Where results go: ``game.json`` and ``rows/``.
        work: Where models are kept; that of the benchmark on TOFU has the same originals.
        only: Pattern of row names (``o3-*``).
        say: Shows a line of progress.

    Returns:
        How many rows this worker made.

    Raises:
        UsageError: Data or base model cannot be had, an author is not there, or no row has such a name.
    """
    if problems := [*inspect_folder(base, where="--base"), *inspect_folder(encoder, where="--encoder")]:
        raise UsageError(problems)
    data = read_tofu(config.tofu.tofu, folder)
    tokenizer = load_tokenizer(base, where="--base")
    models = TofuModels(config.tofu, data, base, weights_hash(base), tokenizer, work, say)
    game = _Game(config.authors, models, encoder)
    if problems := _misnamed(config.authors, len(data.train)):
        raise UsageError(problems)
    _describe(game, out)
    todo = rows_asked(config.tofu.tofu.seeds, config.tofu.methods, len(config.authors.requests), only)
    locked = locked_in(work / f"authors-{models.key}-locks")
    return make_rows(todo, out, locked, lambda name: _row(game, name), say, passes=(Timeout, FileNotFoundError))


def _misnamed(authors: Authors, records: int) -> list[Problem]:
    where, named = "authors.requests", [number for request in authors.requests for number in request]
    last = records // authors.questions
    problems = [
        Problem(where, f"{number} is no author: there are {last}", "Name authors that are there.")
        for number in named
        if number > last
    ]
    if len(set(named)) < len(named):
        problems.append(Problem(where, "an author is named twice", "Name each in one request."))
    if not all(authors.requests):
        problems.append(Problem(where, "a request is empty", "Name an author in each: requests = [[1], [2, 3]]."))
    if not problems and len(named) * authors.questions == records:
        problems.append(Problem(where, "nobody would be left to retain", "Name fewer authors."))
    return problems


def _describe(game: _Game, out: Path) -> None:
    models = game.models
    listed = {
        "authors": asdict(game.authors),
        "recipe": asdict(models.config.recipe),
        "base": models.base_sha256,
        "encoder": weights_hash(game.encoder),
        "n": {"train": len(models.data.train), **{name: len(encoded) for name, encoded in game.groups.items()}},
        "originals": models.key,
    }
    listed, earlier = same_kind(out / "game.json", listed, "results of another kind")
    seeds = sorted({*earlier.get("seeds", []), *models.config.tofu.seeds})
    whole_file(out / "game.json", json.dumps({**listed, "seeds": seeds}, indent=1, sort_keys=True) + "\n")


def _row(game: _Game, name: str) -> dict[str, Any]:
    models = game.models
    common: dict[str, Any] = {
        "row": name,
        "environment": made_on(),
    }
    if name.startswith("original-"):
        seed = int(name.rpartition("-")[2])
        model, folder = models.original(seed), models.original_folder(seed)
        size = size_of(folder) if Path(folder).is_dir() else None
        return {**common, "kind": "original", "seed": seed, "storage": size, "scores": _scored(game, model)}
    method, seed, number = name.rsplit("-", 2)
    trial, asked, left = models.config.methods[method], game.asked(int(number)), game.left(int(number))
    common |= {"kind": method, "seed": int(seed), "request": int(number), "settings": trial.values()}
    retraining = models.config.recipe.epochs * len(left)
    try:
        if isinstance(trial.method, Retrain):
            found = _retrained(game, left, int(seed), name, retraining)
        else:
            start_from = before(
                int(number), lambda: models.original(int(seed)), lambda k: game.folder(f"{method}-{seed}-{k}"),
                models.task.auto_class,
            )  # fmt: skip
            found = models.unlearned(start_from, game.trial(method), asked, left, int(seed))
    except DivergedError as error:
        return {**common, "failed": str(error)}
    place = game.folder(name)
    groups = {"asked": f"asked {number}", "rest": "rest", "real authors": "real authors", "world facts": "world facts"}
    if not place.is_dir():
        with whole_folder(place) as beside:
            found.model.save_pretrained(beside)
    return {
        **common, "cost": found.cost(retraining), "storage": size_of(place),
        "ended": {key: found.log.get(key) for key in ("steps", "kept_step", "reason")},
        **detected(found.model, models.task, {group: game.groups[name] for group, name in groups.items()}),
        "scores": _scored(game, found.model),
    }  # fmt: skip


def _retrained(game: _Game, left: tuple[int, ...], seed: int, name: str, passes: float) -> Unlearned:
    start = time.perf_counter()
    folder = game.models.trained(f"row-{name}", left, seed)
    model = load_model(folder, game.models.task.auto_class, where="retrained").to(device())
    return Unlearned(model, {"reason": "retrained"}, passes, 0.0, time.perf_counter() - start)


def _scored(game: _Game, model: Any) -> dict[str, Any]:
    """Of each record the mean log-probability of its answer's tokens, in nats, and the share of them said at once."""
    model.eval()
    head = head_of(model, game.models.task, game.groups["rest"])
    found = {}
    for group, records in game.groups.items():
        own = game.models.scored(model, head, records)
        found[group] = {
            "logp": np.round(mean_logp(-own.losses, own.offsets), 6).tolist(),
            "memorised": np.round(exact_memorisation(own.predictions, own.labels, own.offsets), 6).tolist(),
        }
    return found
