"""What a benchmark runs over, read from one TOML file."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, NamedTuple

from expunge.config import Recipe, StopConfig, TrainingConfig, build_method
from expunge.errors import Collector, Problem, UsageError
from expunge.options import Fraction, Options, Positive, PositiveInt, Seed, did_you_mean, option

__all__ = ["BenchConfig", "DataSet", "Matrix", "Parts", "Trial", "read_one_setting", "read_trial"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Matrix(Options):
    """The matrix and its sizes.

    Attributes:
        seeds: One original, and one run of each method on it, a seed.
        one_original: Whether all seeds are of unlearning, on the original of the first of them.
        retrain_seeds: Retrained models of each request.
        fractions: Random requests, each a share of the training records.
        pooled: Shares that are asked for in `pool` disjoint requests each, unlearned one by one and measured together;
            the models they are compared with are retrained without all of them.
        pool: How many those are.
        nested: Whether the random requests are made of the records of the last pool, and compared with the models that
            are retrained without that whole pool (half the retraining), but for data sets with `DataSet.own_retrained`.
        by_class: Whether the class or entity type each data set names is a request as well.
        train_records: Training records of a data set, at most.
        dev_records: Records for the stop rule and all choices, at most.
        test_records: Records for the figures, at most.
        retain_sample: Retained records scored, at most.
        epochs: Lengths of training to choose from by the dev score.
        tuning_seed: Seed of the request that hyperparameters are chosen on.
        bootstrap: Resamples behind each interval.
    """

    seeds: tuple[Seed, ...] = option((0, 1, 2), "one original a seed")
    one_original: bool = option(False, "all seeds are of unlearning, on one original")
    retrain_seeds: tuple[Seed, ...] = option((100, 101, 102, 103, 104), "retrained models of each request")
    fractions: tuple[Fraction, ...] = option((0.01, 0.05), "random requests")
    pooled: tuple[Fraction, ...] = option((), "small random requests, several disjoint ones measured together")
    pool: PositiveInt = option(10, "disjoint requests in a pool")
    nested: bool = option(False, "random requests are parts of the last pool, and share its retrained models")
    by_class: bool = option(True, "also request a whole class or entity type")
    train_records: PositiveInt = option(3000, "training records, at most")
    dev_records: PositiveInt = option(1000, "records for all choices, at most")
    test_records: PositiveInt = option(1500, "records for the figures, at most")
    retain_sample: PositiveInt = option(1000, "retained records scored, at most")
    epochs: tuple[PositiveInt, ...] = option((4, 8, 12), "lengths of training to choose from by the dev score")
    tuning_seed: Seed = option(77, "seed of the request hyperparameters are chosen on")
    bootstrap: PositiveInt = option(1000, "resamples behind each interval")

    @classmethod
    def section(cls) -> str:
        return "bench"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSet(Options):
    """One data set: files relative to the data folder.

    Attributes:
        task: Name of a task, as `expunge.tasks` registers it.
        format: How its files are read.
        train: Training file; for ``lines`` the texts and the labels.
        dev: Likewise; left out: a tenth of train, drawn by hash.
        test: Likewise; left out: three tenths of train, and as many are dev.
        text: Text column, for ``table``.
        label: Label column, for ``table``.
        labels: Class names in the order of the numbers, for ``lines``.
        erase: The class or entity type to erase.
        epochs: As `Matrix.epochs`, for this data set; left out: those.
        learning_rate: As `Recipe.learning_rate`, for this data set; left out: that.
        own_retrained: Whether random requests that are part of a pool have retrained models of their own all the same.
    """

    task: Literal["text-classification", "token-classification"] = option("text-classification", "kind of model")
    format: Literal["table", "lines", "conll"] = option("table", "how its files are read")
    train: tuple[str, ...] = option((), "training file")
    dev: tuple[str, ...] = option((), "dev file; left out: a tenth of train")
    test: tuple[str, ...] = option((), "test file; left out: three tenths of train, and as many are dev")
    text: str = option("text", "text column")
    label: str = option("label", "label column")
    labels: tuple[str, ...] = option((), "class names in order")
    erase: str = option("", "class or entity type to erase")
    epochs: tuple[PositiveInt, ...] = option((), "lengths of training to choose from; left out: the benchmark's")
    learning_rate: Positive | None = option(None, "peak learning rate of training; left out: the recipe's")
    own_retrained: bool = option(False, "requests within a pool have retrained models of their own")

    @classmethod
    def section(cls) -> str:
        return "data"


@dataclasses.dataclass(frozen=True)
class Trial:
    """One choice of hyperparameters.

    Attributes:
        method: The method or procedure.
        training: How it is trained.
        stop: When it ends.
    """

    method: Any
    training: TrainingConfig
    stop: StopConfig = dataclasses.field(default_factory=StopConfig)

    def values(self) -> dict[str, Any]:
        """Its settings, plain; when it ends only where that is another than by default."""
        stop = {} if self.stop == StopConfig() else {"stop": self.stop.values()}
        return {"method": self.method.values(), "training": self.training.values(), **stop}


@dataclasses.dataclass(frozen=True)
class BenchConfig:
    """A whole benchmark.

    Attributes:
        matrix: The matrix and its sizes.
        recipe: How originals and retrained models are trained; its epochs are chosen per data set.
        data: Name -> data set.
        methods: Name -> at most three trials.
        only: Name of a method that makes sense for one task alone -> that task and the reason.
    """

    matrix: Matrix
    recipe: Recipe
    data: dict[str, DataSet]
    methods: dict[str, tuple[Trial, ...]]
    only: dict[str, tuple[str, str]]

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = ()) -> BenchConfig:
        """Read a TOML file with the sections bench, recipe, data.NAME and methods.NAME.

        Args:
            path: The file.
            sets: Changes of ``[bench]``: ``seeds=[0]``; and ``data=[...]``, ``methods=[...]`` keep only these.

        Raises:
            UsageError: Everything that is wrong with it.
        """
        values, found = _sections(path, ("bench",), "the benchmark", "benchmarks/encoders.toml", sets)
        for name in ("data", "methods"):
            if not values.get(name):
                found.problems.append(Problem(name, "there is none", f"Name at least one: [{name}.NAME]."))
        matrix = found.run(Matrix.build, values.get("bench", {}))
        recipe = found.run(Recipe.build, values.get("recipe", {}), "recipe")
        data = {name: found.run(DataSet.build, v, f"data.{name}") for name, v in values.get("data", {}).items()}
        methods = {name: found.run(read_trials, name, v) for name, v in values.get("methods", {}).items()}
        only = {n: (v["only"], v.get("reason", "")) for n, v in values.get("methods", {}).items() if "only" in v}
        found.finish()
        assert matrix is not None
        assert recipe is not None
        return cls(matrix, recipe, data, methods, only)  # pyright: ignore[reportArgumentType]


class Parts(NamedTuple):
    """What a benchmark's file holds where methods run with one setting each.

    Attributes:
        own: Its own sections.
        recipe: How models are trained.
        data: Name -> data set.
        methods: Name -> the one setting it runs with.
    """

    own: tuple[Any, ...]
    recipe: Recipe
    data: dict[str, DataSet]
    methods: dict[str, Trial]


def read_one_setting(
    path: str | Path, own: Sequence[type[Options]], what: str, example: str, sets: Sequence[str] = (), *, data_sets: int = 0
) -> Parts:  # fmt: skip
    """Read a TOML file with sections of its own, recipe, data.NAME and methods.NAME (one trial each).

    Args:
        path: The file.
        own: What its own sections are made into, by the name of the section.
        what: What the file is, for messages.
        example: A file that is right.
        sets: Changes of the first of these sections: ``seeds=[0]``; and ``methods=[...]`` keeps only these.
        data_sets: How many data sets it names; 0: it has no such section.

    Raises:
        UsageError: Everything that is wrong with it.
    """
    kinds = {kind.section(): kind for kind in own}
    values, found = _sections(path, tuple(kinds), what, example, sets, with_data=data_sets > 0)
    data, methods = values.get("data", {}), values.get("methods", {})
    if len(data) != data_sets:
        found.problems.append(Problem("data", f"{len(data)} are named", f"Name {data_sets}: [data.NAME]."))
    if not methods:
        found.problems.append(Problem("methods", "there is none", "Name at least one: [methods.NAME]."))
    parts = Parts(
        tuple(found.run(kind.build, values.get(name, {})) for name, kind in kinds.items()),
        found.run(Recipe.build, values.get("recipe", {}), "recipe"),
        {name: found.run(DataSet.build, given, f"data.{name}") for name, given in data.items()},
        {name: found.run(read_trial, name, given) for name, given in methods.items()},
    )
    found.finish()
    return parts


def _sections(
    path: str | Path, own: Sequence[str], what: str, example: str, sets: Sequence[str] = (), *, with_data: bool = True
) -> tuple[dict[str, Any], Collector]:  # fmt: skip
    """The sections of a TOML file; and what is wrong with it so far.

    Raises:
        UsageError: It cannot be read.
    """
    try:
        values = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        way_out = f"Give a TOML file such as {example}."
        raise UsageError(Problem(str(path), f"{what} cannot be read ({error})", way_out)) from None
    found = Collector()
    known = {*own, "recipe", "methods", *(("data",) if with_data else ())}
    for name in sorted(values.keys() - known):
        way_out = f"{did_you_mean(name, known)}Known sections: {', '.join(sorted(known))}."
        found.problems.append(Problem(name, f'unknown section "{name}"', way_out))
        del values[name]
    for word in sets:
        found.run(_change, values, own[0], word)
    return values, found


def _change(values: dict[str, Any], own: str, word: str) -> None:
    key, sign, text = word.partition("=")
    try:
        value = tomllib.loads(f"value = {text if sign else ''}")["value"]
    except tomllib.TOMLDecodeError:
        problem = Problem("--set", f'"{word}" is not allowed', "Write --set key=value, such as seeds=[0].")
        raise UsageError(problem) from None
    if key in ("data", "methods"):
        if not isinstance(value, list):
            raise UsageError(Problem("--set", f'"{word}" is not allowed', f'Give a list of names: {key}=["..."].'))
        unknown = [name for name in value if name not in values.get(key, {})]
        if unknown:
            way_out = f"Known: {', '.join(values.get(key, {}))}."
            raise UsageError(Problem("--set", f"unknown {key}: {', '.join(map(str, unknown))}", way_out))
        values[key] = {name: values[key][name] for name in value}
    else:
        values.setdefault(own, {})[key] = value


_OF_A_TRIAL = {"set", "training"}
_OF_A_METHOD = {"method", "stop", "trials", "only", "reason"} | _OF_A_TRIAL


def read_trials(name: str, values: Mapping[str, Any]) -> tuple[Trial, ...]:
    """``{method = "deepcut", set = {...}, training = {...}, stop = {...}, trials = [{set = {...}, ...}, ...]}``."""
    where = f"methods.{name}"
    trials = values.get("trials", [{}])
    found = Collector()
    for place, given, known in [
        (where, values, _OF_A_METHOD),
        *((f"{where}.trials", trial, _OF_A_TRIAL) for trial in trials),
    ]:
        for key in sorted(given.keys() - known):
            way_out = f"{did_you_mean(key, known)}Known keys: {', '.join(sorted(known))}."
            found.problems.append(Problem(f"{place}.{key}", f'unknown key "{key}"', way_out))
    found.finish()
    if not 1 <= len(trials) <= 3:
        raise UsageError(Problem(where, f"{len(trials)} trials", "Give one to three: every method gets as many tries."))
    built = []
    for trial in trials:
        settings = {**values.get("set", {}), **trial.get("set", {})}
        training = {**values.get("training", {}), **trial.get("training", {})}
        method = build_method({"name": values.get("method", name), **settings})
        stop = StopConfig.build(values.get("stop", {}), f"{where}.stop")
        built.append(Trial(method, TrainingConfig.build(training, f"{where}.training"), stop))
    return tuple(built)


def read_trial(name: str, values: Mapping[str, Any]) -> Trial:
    """The one trial of a method, where settings are chosen elsewhere.

    Raises:
        UsageError: There are several.
    """
    trials = read_trials(name, values)
    if len(trials) != 1:
        way_out = "Give one: this benchmark chooses no settings, and every method has the same budget."
        raise UsageError(Problem(f"methods.{name}", f"{len(trials)} trials", way_out))
    return trials[0]
