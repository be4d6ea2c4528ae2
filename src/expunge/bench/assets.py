"""Models a benchmark compares: originals, and retrained models' scores. Each is made once and kept in a work folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock, Timeout
from transformers import set_seed

from expunge.bench import probing
from expunge.bench.config import BenchConfig, Trial
from expunge.bench.datasets import Request, Split, make_task
from expunge.config import Recipe
from expunge.fit import device, fit
from expunge.folders import whole_arrays, whole_file, whole_folder
from expunge.head import head_of
from expunge.metrics import headline
from expunge.models import load_model
from expunge.scoring import ScoreTable, score
from expunge.tasks.base import Encoded
from expunge.unlearning import Outcome, Unlearning

__all__ = ["Assets", "Busy", "Tables"]

Tables = dict[str, ScoreTable]
"""Group (forget, retain, test, unseen) -> scores."""

LONGEST = 128
"""Tokens a text or sentence is cut to, unless the recipe says otherwise."""


class Busy(Exception):  # noqa: N818 - no error: another worker is at it
    """Another worker is making what is asked for."""


@dataclass(frozen=True)
class Assets:
    """What the cells of one data set share.

    Attributes:
        name: The data set.
        split: Its records.
        config: The benchmark.
        base: Folder or hub id of the base model.
        base_sha256: Hash of its weights; of a hub id, its name.
        tokenizer: Its tokenizer.
        work: Where models and scores are kept between runs.
        say: Shows a line of progress.
        shared: Where scores of retrained models are kept beside the results, without layers, so that whoever has the results
            need not retrain; None: nowhere.
    """

    name: str
    split: Split
    config: BenchConfig
    base: str
    base_sha256: str
    tokenizer: Any
    work: Path
    say: Callable[[str], None]
    shared: Path | None = None

    @cached_property
    def key(self) -> str:
        """Changes with all that a model of this data set hangs on, so that no other one is taken for it."""
        recipe, matrix = asdict(self._recipe), asdict(self.config.matrix)
        sizes = {name: matrix[name] for name in ("train_records", "dev_records", "test_records", "retain_sample")}
        sizes["epochs"] = self.lengths
        parts = [self.split.train.sha256(), self.split.dev.sha256(), self.split.test.sha256()]
        text = json.dumps([self.base_sha256, recipe, sizes, parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    @property
    def _recipe(self) -> Recipe:
        """The recipe before its epochs are chosen."""
        own = self.config.data[self.name].learning_rate
        return self.config.recipe if own is None else replace(self.config.recipe, learning_rate=own)

    @property
    def lengths(self) -> tuple[int, ...]:
        """Lengths of training to choose from, in epochs."""
        return self.config.data[self.name].epochs or self.config.matrix.epochs

    def file(self, name: str) -> Path:
        """Where the work folder keeps something of this data set."""
        return self.work / f"{self.name}-{self.key}" / name

    @property
    def task(self) -> Any:
        """Encodes and collates records."""
        return make_task(self.split, self.tokenizer, self.config.recipe.max_length or LONGEST)

    @contextmanager
    def locked(self, name: str, *, wait: bool = False) -> Any:
        """Hold a name against other workers; a lock dies with its process.

        Raises:
            Busy: Another worker holds it, and it is not to be waited for.
        """
        file = self.file(f"{name}.lock")
        file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(file, timeout=-1 if wait else 0)
        try:
            lock.acquire()
        except Timeout:
            raise Busy(name) from None
        try:
            yield
        finally:
            lock.release()

    def once(self, name: str, make: Callable[[Path], None]) -> Path:
        """A file or folder of the work folder, made now if no worker has made it yet.

        Raises:
            Busy: Another worker is making it.
        """
        path = self.file(name)
        if not path.exists():
            with self.locked(name):
                if not path.exists():
                    make(path)
        return path

    def encoded(self, part: str, positions: Sequence[int] | None = None) -> Encoded:
        """Records of train, dev or test, tokenised; all, or those at `positions`."""
        whole = self._encoded_parts[part]
        return whole if positions is None else whole.take(positions)

    @cached_property
    def _encoded_parts(self) -> dict[str, Encoded]:
        return {part: self.task.encode(getattr(self.split, part)) for part in ("train", "dev", "test")}

    def recipe(self) -> tuple[Recipe, dict[str, Any]]:
        """The recipe with the epochs that score best on dev, and how each length scored; chosen before anything else.

        One model is trained for each length, with a seed that no original and no retrained model has.
        """
        file = self.once("recipe.json", lambda file: whole_file(file, json.dumps(self._choose(), indent=1)))
        chosen = json.loads(file.read_text())
        return replace(self._recipe, epochs=float(chosen["epochs"])), chosen

    def _choose(self) -> dict[str, Any]:
        if len(self.lengths) == 1:
            return {"epochs": self.lengths[0], "tried": []}
        tried = []
        train, dev = self.encoded("train"), self.encoded("dev")
        for epochs in self.lengths:
            recipe = replace(self._recipe, epochs=float(epochs))
            model = self.trained(train, recipe, seed=9000, name=f"{self.name}: {epochs} epochs")
            found = {group: self._headline(model, encoded) for group, encoded in (("train", train), ("dev", dev))}
            tried.append({"epochs": epochs, **found})
        best = max(tried, key=lambda row: (round(row["dev"], 4), -row["epochs"]))
        return {"epochs": best["epochs"], "tried": tried}

    def _headline(self, model: Any, encoded: Encoded) -> float:
        table = self.scored(model, {"all": encoded})["all"]
        return headline(table).of(table)

    def trained(self, records: Encoded, recipe: Recipe, *, seed: int, name: str) -> Any:
        """A model trained from the base."""
        start = time.perf_counter()
        model = fit(self.base, self.task, records, recipe, seed=seed, label_names=self.split.label_names)
        self.say(f"{name}: trained in {time.perf_counter() - start:.0f} s")
        return model.to(device())

    def unlearned(
        self, model: Any, forget: Sequence[int], retain: Sequence[int], trial: Trial, seed: int,
        scores: tuple[ScoreTable, ScoreTable] | None = None,
    ) -> Outcome:  # fmt: skip
        """What a method leaves of a model, which is changed; forget and retain are positions of training records.

        `scores` are those of all forget and all dev records under the model, where they are known, as in `expunge run`.

        Raises:
            DivergedError: The loss, or what the model says, became NaN or infinite.
        """
        recipe, _ = self.recipe()
        ids = self.split.train.ids
        set_seed(seed)
        return Unlearning(
            method=trial.method, task=self.task, forget=self.encoded("train", forget),
            retain=self.encoded("train", retain), calibration=self.encoded("dev"), forget_ids=[ids[i] for i in forget],
            retain_ids=[ids[i] for i in retain], training=trial.training, stop=trial.stop, seed=seed,
            label_names=self.split.label_names, base=self.base, recipe=recipe, original_scores=scores,
        ).run(model)  # fmt: skip

    def scored(self, model: Any, groups: Mapping[str, Encoded]) -> Tables:
        """Scores of groups of records under a model; of those that a probe reads, the states of every layer as well."""
        head = head_of(model, self.task, next(iter(groups.values())))
        found: Tables = {}
        for group, encoded in groups.items():
            if same := [name for name in found if groups[name] is encoded]:
                found[group] = found[same[0]]
                continue
            units = probing.wanted(group, encoded)
            table = score(model, head, encoded, self.task, batch_size=128, keep_hidden=False, layer_units=units)
            found[group] = table if units is None else probing.of_records(table)
        return found

    def groups(self, request: Request) -> dict[str, Encoded]:
        """The records a cell is measured on: all to forget, a sample of the retained, and test records."""
        most = self.config.matrix.retain_sample
        whole = request.within or request
        rng = np.random.default_rng([len(whole.forget), 5])
        retain = rng.choice(len(whole.retain), min(most, len(whole.retain)), replace=False)
        found = {
            "forget": self.encoded("train", request.forget),
            "retain": self.encoded("train", sorted(whole.retain[i] for i in retain)),
            "test": self.encoded("test", request.test),
        }
        found["unseen"] = self.encoded("test", request.unseen) if request.by_class else found["test"]
        return found

    def original(self, seed: int) -> Any:
        """The original of a seed, on the device, trained at first use."""

        def make(folder: Path) -> None:
            recipe, _ = self.recipe()
            model = self.trained(self.encoded("train"), recipe, seed=seed, name=f"{self.name}: original {seed}")
            with whole_folder(folder) as beside:
                model.save_pretrained(beside)

        if self.config.matrix.one_original:
            seed = min(self.config.matrix.seeds)
        folder = self.once(f"original-{seed}", make)
        return load_model(str(folder), self.task.auto_class, where="original").to(device())

    def first_scores(self, seed: int, forget: Sequence[int]) -> tuple[ScoreTable, ScoreTable]:
        """Scores of an original on some training records and on all dev records."""

        def make(file: Path) -> None:
            _save(file, self.scored(self.original(seed), {"dev": self.encoded("dev")}))

        dev = _load(self.once(f"original-{seed}-dev.npz", make))[0]["dev"]
        return self.scored(self.original(seed), {"own": self.encoded("train", forget)})["own"], dev

    def original_tables(self, request: Request, seed: int) -> Tables:
        """Scores of an original on a request's groups."""

        def make(file: Path) -> None:
            _save(file, self.scored(self.original(seed), self.groups(request)))

        return _load(self.once(f"{request.name}-original-{seed}.npz", make))[0]

    def retrained(self, request: Request) -> tuple[list[Tables], list[float]]:
        """Scores of every model retrained without the requested records, and the seconds each training took."""
        if request.within:
            several, seconds = self.retrained(request.within)
            places = request.within.places_of(request.forget)
            return [{**tables, "forget": probing.part(tables["forget"], places)} for tables in several], seconds

        def make(file: Path, seed: int) -> None:
            recipe, _ = self.recipe()
            records = self.encoded("train", request.retain)
            start = time.perf_counter()
            name = f"{self.name} without {request.name}: retrained {seed}"
            model = self.trained(records, recipe, seed=seed, name=name)
            took = time.perf_counter() - start
            _save(file, self.scored(model, self.groups(request)), seconds=took)

        stored = []
        for seed in self.config.matrix.retrain_seeds:
            name = f"{request.name}-retrained-{seed}.npz"
            beside = None if self.shared is None else self.shared / f"{self.name}-{self.key}" / name
            if beside is None or self.file(name).exists() or not beside.exists():
                found = _load(self.once(name, partial(make, seed=seed)))
                if beside is not None:
                    with self.locked(f"{name}.shared", wait=True):  # another worker may be sharing it
                        if not beside.exists():
                            beside.parent.mkdir(parents=True, exist_ok=True)
                            _save(beside, _without_layers(found[0]), **found[1])
            else:
                tables, more = _load(beside)
                found = {**tables, "unseen": tables.get("unseen", tables["test"])}, more
            stored.append(found)
        return [tables for tables, _ in stored], [more["seconds"] for _, more in stored]


def _without_layers(tables: Tables) -> Tables:
    """The scores alone, and never-seen records only where they are others than the test records."""
    found = {group: replace(table, layers=None, layer_units=None) for group, table in tables.items()}
    if np.array_equal(tables["unseen"].margins, tables["test"].margins):
        del found["unseen"]
    return found


def _save(file: Path, tables: Tables, **more: float) -> None:
    """Score tables without hidden states, as plain arrays (no pickle)."""
    arrays: dict[str, Any] = dict(more)
    for group, table in tables.items():
        for name, values in asdict(table).items():
            if name != "hidden" and values is not None:
                arrays[f"{group}.{name}"] = values
    whole_arrays(file, arrays)


def _load(file: Path) -> tuple[Tables, dict[str, float]]:
    """What `_save` was given."""
    tables: dict[str, dict[str, Any]] = {}
    more: dict[str, float] = {}
    with np.load(file, allow_pickle=False) as stored:
        for key in stored.files:
            group, dot, name = key.partition(".")
            if dot:
                tables.setdefault(group, {})[name] = stored[key]
            else:
                more[key] = float(stored[key])
    hidden = {group: np.zeros((len(values["labels"]), 0), dtype=np.float32) for group, values in tables.items()}
    return {group: ScoreTable(**values, hidden=hidden[group]) for group, values in tables.items()}, more
