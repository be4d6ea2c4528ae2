"""What the benchmark of requests in a row runs over, read from one TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.bench.config import BenchConfig, Matrix, read_one_setting
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

    @classmethod
    def problems(cls, values: Mapping[str, Any], section: str | None = None) -> list[Problem]:
        found = super().problems(values, section)
        if not found and not (values.get("requests") and all(values["requests"])):
            where = f"{section if section is not None else cls.section()}.requests"
            way_out = 'Name the classes of each: requests = [["a", "b"], ["c"]].'
            found.append(Problem(where, "there is none, or an empty one", way_out))
        return found


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
        parts = read_one_setting(path, [Continual], "the benchmark", "benchmarks/continual.toml", sets, data_sets=1)
        continual: Continual = parts.own[0]
        matrix = Matrix(
            seeds=continual.seeds, train_records=continual.train_records, dev_records=continual.dev_records,
            test_records=continual.test_records, epochs=(continual.epochs,), bootstrap=continual.bootstrap,
        )  # fmt: skip
        return cls(
            continual,
            BenchConfig(matrix, parts.recipe, parts.data, {n: (trial,) for n, trial in parts.methods.items()}, {}),
        )
