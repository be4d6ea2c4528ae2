"""Shadow models: who is trained on what, and each model and its margins, made once and kept in a work folder."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from transformers import AutoModel

from expunge.bench.assets import Assets
from expunge.bench.config import Trial
from expunge.bench.lira_config import Game
from expunge.errors import DivergedError, Problem, UsageError
from expunge.fit import device
from expunge.folders import whole_arrays, whole_folder
from expunge.models import load_model

__all__ = ["Design", "Job", "Played", "Shadows", "cut_base", "design"]


@dataclass(frozen=True)
class Design:
    """Who is trained on what.

    Attributes:
        inside: (K, N) bool: shadow k is trained on record n of the pool. Shadows 2p and 2p + 1 share nothing and are
            together trained on all.
        targets: Records of the pool that are asked for; half of them are in each shadow.
    """

    inside: NDArray[np.bool_]
    targets: NDArray[np.int64]

    def request(self, shadow: int) -> list[int]:
        """What a shadow is asked to forget: the targets it was trained on."""
        return self.targets[self.inside[shadow, self.targets]].tolist()

    def trained(self, shadow: int) -> list[int]:
        """The half a shadow is trained on."""
        return np.flatnonzero(self.inside[shadow]).tolist()

    def retained(self, shadow: int) -> list[int]:
        """That half without the request."""
        return sorted(set(self.trained(shadow)) - set(self.request(shadow)))


def design(records: int, game: Game) -> Design:
    """Draw targets, and a half of targets and of other records for each pair of shadows.

    Args:
        records: Records in the pool; the last one is left out where they are odd.
        game: Counts of shadows and targets, and the seed.

    Raises:
        UsageError: The pool is no larger than the targets.
    """
    count = records - records % 2
    if game.targets >= count:
        what = f"{game.targets} targets among {count} records leave nothing to retain"
        raise UsageError(Problem("lira.targets", what, "Take fewer targets, or data with more records."))
    rng = np.random.default_rng([game.seed, 11])
    targets = np.sort(rng.permutation(count)[: game.targets])
    others = np.setdiff1d(np.arange(count), targets)
    inside = np.zeros((game.shadows, records), dtype=bool)
    for pair in range(game.shadows // 2):
        for group in (targets, others):
            drawn = rng.permutation(group)
            inside[2 * pair, drawn[: len(group) // 2]] = True
            inside[2 * pair + 1, drawn[len(group) // 2 :]] = True
    return Design(inside, targets)


def cut_base(base: str, layers: int, work: Path) -> str:
    """The base model with its first layers alone, saved once in the work folder; the model itself where `layers` is 0.

    Raises:
        UsageError: It has fewer layers, or is no encoder of the BERT kind.
    """
    if not layers:
        return base
    folder = work / f"base-{layers}-{hashlib.sha256(base.encode()).hexdigest()[:6]}"
    if folder.is_dir():
        return str(folder)
    model = AutoModel.from_pretrained(base, use_safetensors=True)
    stack = getattr(getattr(model, "encoder", None), "layer", None)
    if stack is None or len(stack) < layers:
        what = f"the base has {len(stack) if stack is not None else 'no list of'} layers (encoder.layer), {layers} are wanted"
        raise UsageError(Problem("lira.layers", what, "Give 0 to take the base as it is."))
    model.encoder.layer = stack[:layers]
    model.config.num_hidden_layers = layers
    with whole_folder(folder) as beside:
        model.save_pretrained(beside)
    return str(folder)


@dataclass(frozen=True)
class Played:
    """What is kept of one model.

    Attributes:
        margins: (T,) margins of all targets, in nats; NaN where it failed.
        test_accuracy: Share of the test records predicted correctly.
        seconds: Wall-clock of training or unlearning.
        passes: Its example-passes, the stop rule's checks included.
        steps: Steps of unlearning, and the one kept; 0 for a training.
        failed: Why there is nothing, or an empty text.
    """

    margins: NDArray[np.float64]
    test_accuracy: float
    seconds: float
    passes: float
    steps: tuple[int, int] = (0, 0)
    failed: str = ""

    def save(self, file: Path) -> None:
        """Write as plain arrays, whole or not at all."""
        whole_arrays(file, {name: np.array(value) for name, value in asdict(self).items()})

    @classmethod
    def load(cls, file: Path) -> Played:
        """What `save` wrote."""
        with np.load(file, allow_pickle=False) as stored:
            first, kept = stored["steps"].tolist()
            return cls(
                stored["margins"], float(stored["test_accuracy"]), float(stored["seconds"]), float(stored["passes"]),
                (first, kept), str(stored["failed"]),
            )  # fmt: skip


@dataclass(frozen=True)
class Job:
    """One model to make and judge.

    Attributes:
        shadows: The game's models.
        name: File of its margins.
        pair: The pair of shadows it is from.
        make: Makes them.
    """

    shadows: Shadows
    name: str
    pair: int
    make: Callable[[], Played]

    @property
    def file(self) -> Path:
        """Where its margins are, once they are made."""
        return self.shadows.assets.file(self.shadows.place(self.name))

    def done(self) -> Path:
        """Its margins' file, made now if no worker has made it yet.

        Raises:
            Busy: Another worker is at it.
        """
        return self.shadows.assets.once(self.shadows.place(self.name), lambda file: self.make().save(file))


@dataclass(frozen=True)
class Shadows:
    """The models of a game.

    Attributes:
        assets: Data set, base model and work folder.
        game: Sizes.
        design: Who is trained on what.
    """

    assets: Assets
    game: Game
    design: Design

    @cached_property
    def prefix(self) -> str:
        """Folder of this game below the data set's: changes with all that its shadows hang on."""
        sizes = {name: value for name, value in asdict(self.game).items() if name != "bootstrap"}
        return "lira-" + hashlib.sha256(json.dumps(sizes, sort_keys=True).encode()).hexdigest()[:8]

    def place(self, name: str) -> str:
        """Name of something of this game within the work folder."""
        self.assets.file(self.prefix).mkdir(parents=True, exist_ok=True)
        return f"{self.prefix}/{name}"

    def untouched(self, number: int) -> Job:
        """A shadow's margins as it was trained; the shadow itself is kept beside them."""

        def make() -> Played:
            folder = self.assets.file(self.place(f"shadow-{number}"))
            model, took, passes = self._fitted(self.design.trained(number), 1000 + number, f"shadow {number}")
            if not folder.exists():
                with whole_folder(folder) as beside:
                    model.save_pretrained(beside)
            return self._scored(model, seconds=took, passes=passes)

        return Job(self, f"shadow-{number}.npz", number // 2, make)

    def retrained(self, number: int) -> Job:
        """Margins under a shadow trained anew without its request: it never had any target."""

        def make() -> Played:
            records = self.design.retained(number)
            model, took, passes = self._fitted(records, 5000 + number, f"shadow {number} without its request")
            return self._scored(model, seconds=took, passes=passes)

        return Job(self, f"retrained-{number}.npz", number // 2, make)

    def unlearned(self, name: str, trial: Trial, number: int) -> Job:
        """Margins under a shadow after a method has unlearned its request."""
        settings = json.dumps(list(trial.values().values()), sort_keys=True, default=str)
        key = hashlib.sha256(f"{type(trial.method).__name__}{settings}".encode()).hexdigest()[:8]

        def make() -> Played:
            self.untouched(number).done()
            return self._unlearn(name, trial, number)

        return Job(self, f"{name}-{key}-{number}.npz", number // 2, make)

    def rows(self, methods: dict[str, Trial]) -> dict[str, list[Job]]:
        """Rows of the table in the order they are made."""
        numbers = range(self.game.shadows)
        return {
            "untouched": [self.untouched(n) for n in numbers],
            **{name: [self.unlearned(name, trial, n) for n in numbers] for name, trial in methods.items()},
            "retrained": [self.retrained(n) for n in numbers],
        }

    def _fitted(self, positions: list[int], seed: int, name: str) -> tuple[Any, float, float]:
        recipe, _ = self.assets.recipe()
        start = time.perf_counter()
        records = self.assets.encoded("train", positions)
        model = self.assets.trained(records, recipe, seed=self.game.seed + seed, name=name)
        return model, time.perf_counter() - start, recipe.epochs * len(positions)

    def _unlearn(self, name: str, trial: Trial, number: int) -> Played:
        assets = self.assets
        folder = assets.file(self.place(f"shadow-{number}"))
        model = load_model(str(folder), assets.task.auto_class, where="shadow").to(device())
        forget, retain = self.design.request(number), self.design.retained(number)
        start = time.perf_counter()
        try:
            outcome = assets.unlearned(model, forget, retain, trial, self.game.seed + number)
        except DivergedError as error:
            nothing = np.full(len(self.design.targets), np.nan)
            return Played(nothing, float("nan"), time.perf_counter() - start, float("nan"), failed=str(error))
        took = time.perf_counter() - start
        assets.say(
            f"{name} on shadow {number}: {took:.0f} s, step {outcome.log['kept_step']} of {outcome.log['steps']}"
        )
        steps = (int(outcome.log["steps"]), int(outcome.log["kept_step"] or 0))
        return self._scored(outcome.model, seconds=took, passes=outcome.passes + outcome.check_passes, steps=steps)

    def _scored(self, model: Any, **more: Any) -> Played:
        groups = {
            "targets": self.assets.encoded("train", self.design.targets.tolist()),
            "test": self.assets.encoded("test"),
        }
        tables = self.assets.scored(model, groups)
        return Played(tables["targets"].record_margins, tables["test"].accuracy, **more)
