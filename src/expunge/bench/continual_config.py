"""What the benchmark of requests in a row runs over, read from one TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from expunge.bench.config import BenchConfig, DataSet, Matrix, read_sections, read_trial
from expunge.config import Recipe
from expunge.errors import Problem
from expunge.options import Options, PositiveInt, Seed, option

__all__ = ["Continual", "ContinualConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continual(Options):
    """Requests and sizes.

    Attributes:
        requests: Class names of each request, in the order they come.
        seeds: One original, and one run of each method, a seed.
        train_records: Training records, at most.
        dev_records: Calibration records, at most.
        test_records: Records for the figures, at most.
        epochs: Epochs of the recipe.
        bootstrap: Resamples behind each interval.
    """

    requests: tuple[tuple[str, ...], ...] = option((), "class names of each request, in order")
    seeds: tuple[Seed, ...] = option((0,), "one original and one run of each method a seed")
    train_records: PositiveInt = option(2400, "training records, at most")
    dev_records: PositiveInt = option(600, "calibration records, at most")
    test_records: PositiveInt = option(1500, "records for the figures, at most")
    epochs: PositiveInt = option(6, "epochs of the recipe")
    bootstrap: PositiveInt = option(1000, "resamples behind each interval")

    @classmethod
    def section(cls) -> str:
        return "continual"


@dataclasses.dataclass(frozen=True)
class ContinualConfig:
    """The whole benchmark.

    Attributes:
        continual: Requests and sizes.
        bench: The same for what other benchmarks share: one data set, the recipe, one trial a method.
    """

    continual: Continual
    bench: BenchConfig

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = ()) -> ContinualConfig:
        """Read a TOML file with the sections continual, recipe, data.NAME (one) and methods.NAME (one trial each).

        Args:
            path: The file.
            sets: Changes of ``[continual]``: ``seeds=[0]``; and ``methods=[...]``, which keeps only these.

        Raises:
            UsageError: Everything that is wrong with it.
        """
        values, found = read_sections(path, "continual", "the benchmark", "benchmarks/continual.toml", sets)
        for name, wanted in (("data", 1), ("methods", None)):
            count = len(values.get(name, {}))
            if not count or (wanted and count != wanted):
                found.problems.append(
                    Problem(name, f"{count} are named", f"Name {wanted or 'at least one'}: [{name}.NAME].")
                )
        continual = found.run(Continual.build, values.get("continual", {}))
        if continual is not None and (not continual.requests or not all(continual.requests)):
            way_out = 'Name the classes of each: requests = [["a", "b"], ["c"]].'
            found.problems.append(Problem("continual.requests", "there is none, or an empty one", way_out))
        recipe = found.run(Recipe.build, values.get("recipe", {}), "recipe")
        data = {name: found.run(DataSet.build, v, f"data.{name}") for name, v in values.get("data", {}).items()}
        methods = {name: found.run(read_trial, name, v) for name, v in values.get("methods", {}).items()}
        found.finish()
        assert continual is not None
        assert recipe is not None
        matrix = Matrix(
            seeds=continual.seeds, train_records=continual.train_records, dev_records=continual.dev_records,
            test_records=continual.test_records, epochs=(continual.epochs,), bootstrap=continual.bootstrap,
        )  # fmt: skip
        return cls(
            continual, BenchConfig(matrix, recipe, data, {name: (trial,) for name, trial in methods.items()}, {})
        )
