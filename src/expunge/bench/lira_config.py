"""What a U-LiRA game is played with, read from one TOML file."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

from expunge.bench.config import BenchConfig, DataSet, Matrix, Trial, read_one_setting
from expunge.config import Recipe
from expunge.errors import Problem
from expunge.options import Options, PositiveInt, Seed, option

__all__ = ["Game", "LiraConfig"]

_LEAST_SHADOWS = 6
"""Three pairs: with one left out, two values a side are left to take a spread from."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Game(Options):
    """Sizes of the game.

    Attributes:
        shadows: Shadow models, an even number: each is trained on one half of the pool, its partner on the other.
        pool: Records the halves are drawn from, at most.
        targets: Records of the pool that are asked for, an even number; half of them are in each shadow, and they are its
            erasure request.
        layers: Layers the base model is cut to; 0: all.
        epochs: Passes of a shadow over its half.
        dev_records: Held-out records for the stop rule and the methods, at most.
        test_records: Records for test accuracy, at most.
        seed: Seed of the halves, the targets and all models.
        bootstrap: Resamples behind each interval.
    """

    shadows: PositiveInt = option(32, "shadow models, an even number")
    pool: PositiveInt = option(1600, "records the shadows' halves are drawn from, at most")
    targets: PositiveInt = option(80, "records asked for, an even number; half of them are in each shadow")
    layers: int = option(0, "layers the base model is cut to; 0: all")
    epochs: PositiveInt = option(4, "passes of a shadow over its half")
    dev_records: PositiveInt = option(1000, "held-out records for the stop rule, at most")
    test_records: PositiveInt = option(300, "records for test accuracy, at most")
    seed: Seed = option(0, "seed of halves, targets and models")
    bootstrap: PositiveInt = option(1000, "resamples behind each interval")

    @classmethod
    def section(cls) -> str:
        return "lira"

    @classmethod
    def problems(cls, values: Any, section: str | None = None) -> list[Problem]:
        found = super().problems(values, section)
        if found:
            return found
        where = section if section is not None else cls.section()
        full = {name: default for name, default, _ in cls.describe()} | dict(values)
        for name, least in (("shadows", _LEAST_SHADOWS), ("targets", 2)):
            if full[name] % 2 or full[name] < least:
                way_out = f"Give an even number, {least} or more."
                found.append(Problem(f"{where}.{name}", f"{full[name]} is not allowed", way_out))
        if full["targets"] >= full["pool"]:
            what = f"{full['targets']} targets among {full['pool']} records leave nothing to retain"
            found.append(Problem(f"{where}.targets", what, "Take fewer targets or a larger pool."))
        if full["layers"] < 0:
            found.append(Problem(f"{where}.layers", f"{full['layers']} is not allowed", "Give 0 (all) or more."))
        return found


@dataclasses.dataclass(frozen=True)
class LiraConfig:
    """A whole game.

    Attributes:
        game: Its sizes.
        name: The data set.
        data: The data set's files.
        recipe: How shadows are trained; its epochs are the game's.
        methods: Name -> the one setting each method plays with.
    """

    game: Game
    name: str
    data: DataSet
    recipe: Recipe
    methods: dict[str, Trial]

    @classmethod
    def load(cls, path: str | Path) -> LiraConfig:
        """Read a TOML file with the sections lira, recipe, data.NAME (one) and methods.NAME (one trial each).

        Raises:
            UsageError: Everything that is wrong with it.
        """
        parts = read_one_setting(path, [Game], "the game", "benchmarks/lira.toml", data_sets=1)
        ((name, data),) = parts.data.items()
        return cls(parts.own[0], name, data, parts.recipe, parts.methods)

    def bench(self) -> BenchConfig:
        """The same as a benchmark of one data set, whose readers and models this one shares."""
        matrix = Matrix(
            train_records=self.game.pool, dev_records=self.game.dev_records, test_records=self.game.test_records,
            epochs=(self.game.epochs,), bootstrap=self.game.bootstrap,
        )  # fmt: skip
        return BenchConfig(matrix, self.recipe, {self.name: self.data}, {}, {})
