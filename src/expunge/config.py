"""The configuration of a run: frozen sections, read from TOML, `--set` and flags; every problem is reported at once."""

from __future__ import annotations

import dataclasses
import tomllib
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, Literal

from expunge import registry
from expunge.config_paths import anchor_paths, expand_paths, expanded
from expunge.errors import Problem, UsageError
from expunge.options import (
    Fraction,
    NonNegative,
    NonNegativeInt,
    Options,
    Passes,
    Positive,
    PositiveInt,
    Probability,
    Seed,
    Share,
    did_you_mean,
    option,
)

__all__ = [
    "SECTIONS",
    "AuditConfig",
    "DataConfig",
    "ModelConfig",
    "PrivacyConfig",
    "Recipe",
    "RequestConfig",
    "RetrainConfig",
    "RunConfig",
    "StopConfig",
    "TrainingConfig",
]  # fmt: skip

Precision = Literal["float32", "bfloat16"]
Scheduler = Literal["linear", "constant", "cosine"]


class _Section(Options):
    @classmethod
    def section(cls) -> str:
        return cls.__name__.removesuffix("Config").lower()


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelConfig(_Section):
    """The fine-tuned model to erase from. It is read, never written."""

    path: str = option("", "folder or hub id of the fine-tuned model (safetensors)")
    max_length: PositiveInt | None = option(
        None, "tokens a record is cut to; left out: the recipe's, else the tokenizer's own limit"
    )
    template: str | None = option(
        None,
        "causal LM: how prompt and answer were joined, such as 'Question: {prompt}\\nAnswer: {answer}'; left out: the chat "
        "template, else a line break",
    )
    trust_remote_code: bool = option(False, "run code that comes with the model; leave off unless you trust its author")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataConfig(_Section):
    """The training data and the data the model never saw."""

    train: str = option("", "training data: .csv, .jsonl, .parquet, .conll, a folder from save_to_disk, or a hub id")
    train_split: str = option("train", "split, where the training data has splits (hub id, saved DatasetDict)")
    held_out: str = option("", "records never trained on; split by hash into calibration and evaluation halves")
    held_out_split: str = option("test", "split, where the held-out data has splits")
    calibration: str | None = option(None, "records for the stop rule alone; then held_out is used for audits only")
    held_out_sample: PositiveInt = option(
        5000, "records used for calibration, and for audits, at most: of more, those of least hash"
    )
    format: Literal["conll"] | None = option(
        None, "conll: text files hold a word and its tag a line, whatever their suffix"
    )
    text: tuple[str, ...] = option(
        (), "text column, two for a text pair; left out: text; tokens for a tagger; prompt for a causal LM"
    )
    label: str | None = option(
        None,
        "label column (names or class numbers); left out: label; ner_tags for a tagger; for a causal LM the column of the "
        "answers, left out: answer ('' for plain texts)",
    )
    labels: tuple[str, ...] = option((), "class names in the model's order, where the model only has LABEL_0 ...")
    id: str | None = option(None, "id column; left out: ids are content hashes")
    paraphrased: str | None = option(
        None,
        "causal LM: column with the answer in other words, for truth-ratio; left out: paraphrased_answer, if there",
    )
    perturbed: str | None = option(
        None, "causal LM: column with lists of false answers, for truth-ratio; left out: perturbed_answers, if there"
    )
    facts: str | None = option(
        None, "causal LM: file of facts with questions, for deep-unlearning: .csv, .json, .jsonl"
    )
    rules: str | None = option(None, "their rules, for deep-unlearning; left out where the facts' JSON holds them")
    overlap: Literal["refuse", "drop"] = option("refuse", "held-out records that are also in training: refuse or drop")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RequestConfig(_Section):
    """The erasure request: exactly one of `file`, `ids`, `where`, `mention`, `label` and `fraction`."""

    file: str | None = option(
        None, "ids, one a line (.txt), or rows (.csv, .jsonl, .parquet) with the id or text columns"
    )
    ids: tuple[str, ...] = option((), "the ids themselves")
    where: str | None = option(None, "rows by a condition on the columns, such as: author == 'u17'")
    mention: str | None = option(None, "every record that mentions this string, such as: John Smith")
    label: str | None = option(None, "every record of this class; for a tagger: with an entity of this type")
    fraction: Fraction | None = option(None, "a random share of the training data, for benchmarks")
    seed: NonNegativeInt = option(0, "seed of that random share")
    with_duplicates: bool = option(False, "forget rows identical to a requested one too (after normalisation)")
    with_near_duplicates: bool = option(False, "forget near-duplicates and neighbours too, as well as identical rows")
    near_duplicates: Share = option(
        0.8, "rows that share this much of a requested text are near-duplicates (Jaccard of 5-character pieces)"
    )
    neighbours: Share | None = option(
        None, "also look for paraphrases: rows of at least this cosine to a requested one (a forward pass a record)"
    )
    allow_missing: bool = option(False, "go on when some requested ids are not in the data")
    again: bool = option(False, "erase once more what an earlier request erased from this model already")
    past: tuple[str, ...] = option(
        (), "files with records of earlier requests, where you still hold them: measured again"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingConfig(_Section):
    """How the unlearning is trained."""

    epochs: Passes = option(4.0, "passes over the forget records at most; the stop rule may end earlier")
    min_steps: NonNegativeInt = option(40, "the limit on steps is never below this, however few records there are")
    batch_size: PositiveInt = option(16, "forget records a step")
    accumulation: PositiveInt = option(1, "micro-batches a step is cut into: the same loss in less memory")
    learning_rate: Positive = option(1e-4, "peak learning rate of AdamW")
    weight_decay: NonNegative = option(0.0, "AdamW's weight decay")
    warmup: Probability = option(0.0, "share of the steps over which the learning rate rises")
    scheduler: Scheduler = option("constant", "learning-rate schedule")
    max_grad_norm: NonNegative = option(1.0, "gradient clipping; 0 turns it off")
    precision: Precision = option("float32", "arithmetic of the forward pass")
    lora_rank: NonNegativeInt = option(
        0, "train low-rank updates of this rank (needs peft) and merge them; 0: all weights"
    )
    rewind: Probability = option(
        0.0, "share of the way back to the base that the weights go after the last step; needs retrain.base"
    )
    rewind_first: Probability = option(
        0.0, "share of the way back to the base that the weights go before the first step; needs retrain.base"
    )
    cache: str | None = option(
        None, "causal LM: folder that keeps the original's outputs for retained records; left out: not kept"
    )
    checkpoint_every: NonNegative | None = option(
        None,
        "seconds between checkpoints of `expunge run`; 0: none; left out: a minute, longer where they would cost over 2 %",
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class StopConfig(_Section):
    """When unlearning ends."""

    rule: Literal["two-sided", "accuracy", "none"] = option(
        "two-sided",
        "end when forget records cannot be told from unseen ones; accuracy: when their accuracy is no longer above",
    )
    every: PositiveInt | None = option(None, "steps between checks; left out: checks cost a tenth of the run at most")
    sample: PositiveInt = option(256, "forget and calibration records scored in a check, at most")
    confidence: Fraction = option(0.9, "level at which forget and unseen records are told apart")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe(_Section):
    """How the original was fine-tuned from its base model; a retrained model is made the same way."""

    epochs: Passes = option(3.0, "passes over the training data")
    learning_rate: Positive = option(5e-5, "peak learning rate of AdamW")
    batch_size: PositiveInt = option(32, "records a step")
    max_length: PositiveInt | None = option(None, "tokens a record is cut to")
    weight_decay: NonNegative = option(0.0, "AdamW's weight decay")
    warmup: Probability = option(0.0, "share of the steps over which the learning rate rises")
    scheduler: Scheduler = option("linear", "learning-rate schedule")
    precision: Precision = option("float32", "arithmetic of the forward pass")
    group_by_length: bool = option(False, "batches of records of like length: less padding")
    seed: Seed = option(0, "seed of head initialisation, order and dropout")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RetrainConfig(_Section):
    """Retrained models to compare with: the gold standard. Needs the base model and the recipe."""

    enabled: bool = option(False, "train models from the base without the forget records and compare with them")
    base: str | None = option(None, "folder or hub id of the model the original was fine-tuned from")
    recipe: str | None = option(None, "TOML file: epochs, learning_rate, batch_size, max_length, seed ...")
    seeds: tuple[Seed, ...] = option((), "one retrained model a seed; left out: the recipe's seed")
    models: tuple[str, ...] = option((), "folders of models retrained without the records already, to compare with")
    engine: Literal["in-process", "ray"] = option(
        "in-process", "where seeds are trained: one after the other, or by Ray"
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class AuditConfig(_Section):
    """What is measured, and what a pipeline insists on."""

    audits: tuple[str, ...] = option((), "audits to run; left out: those that fit the model and cost no further pass")
    more: tuple[str, ...] = option((), "audits beside these, such as truth-ratio or relearning")
    retain_sample: PositiveInt = option(1000, "retain records scored, at most")
    bootstrap: PositiveInt = option(1000, "resamples behind each interval")
    confidence: Fraction = option(0.95, "confidence level of the intervals")
    max_utility_loss: Positive = option(
        0.03, "fall in evaluation accuracy (of a tagger: entity F1) that still counts as useful"
    )
    require: Literal["population", "retrain-compared"] | None = option(
        None, "end with exit code 3 unless the verdict of this evidence class is reached"
    )
    batch_size: PositiveInt = option(64, "records a forward pass when scoring")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrivacyConfig(_Section):
    """What the record and the report may carry."""

    show_ids: bool = option(False, "show raw ids instead of HMAC(salt, id)")
    salt_file: str | None = option(None, "file with the secret salt; left out: your own, made at first use")


SECTIONS: dict[str, type[_Section]] = {
    "model": ModelConfig,
    "data": DataConfig,
    "request": RequestConfig,
    "training": TrainingConfig,
    "stop": StopConfig,
    "retrain": RetrainConfig,
    "audit": AuditConfig,
    "privacy": PrivacyConfig,
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunConfig:
    """All settings of one run.

    Attributes:
        method: An instance of the method to unlearn with (a `Method` or `Procedure`).
        seed: Seed of order, dropout and sampling.
    """

    method: Any
    seed: int = 0
    model: ModelConfig = ModelConfig()
    data: DataConfig = DataConfig()
    request: RequestConfig = RequestConfig()
    training: TrainingConfig = TrainingConfig()
    stop: StopConfig = StopConfig()
    retrain: RetrainConfig = RetrainConfig()
    audit: AuditConfig = AuditConfig()
    privacy: PrivacyConfig = PrivacyConfig()

    def as_dict(self) -> dict[str, Any]:
        """Plain nested values; `from_dict` reads them back to an equal object."""
        method = {"name": registry.name_of("methods", type(self.method)), **self.method.values()}
        sections = {name: getattr(self, name).values() for name in SECTIONS}
        return {"seed": self.seed, "method": method, **sections}

    @classmethod
    def from_dict(
        cls, values: Mapping[str, Any], sets: Sequence[str] = (), flags: Mapping[str, Any] | None = None
    ) -> RunConfig:
        """Build from nested values, as TOML gives them, changed by `sets` and `flags` as in `load`.

        Raises:
            UsageError: Every unknown key, unknown name and bad value, together.
        """
        problems: list[Problem] = []
        values = {k: dict(v) if isinstance(v, Mapping) else v for k, v in values.items()}
        for word in sets:
            key, sign, text = word.partition("=")
            if sign:
                _put(values, key.strip(), _toml_value(text.strip()), problems)
            else:
                problems.append(Problem("--set", f'"{word}" has no "="', "Write --set section.key=value."))
        for key, value in (flags or {}).items():
            _put(values, key, value, problems)
        problems.extend(expand_paths(values))
        built: dict[str, Any] = {}
        known = {*SECTIONS, "method", "seed"}
        for name, section in values.items():
            if name not in known:
                way_out = f"{did_you_mean(name, known)}Known sections: {', '.join(sorted(known))}."
                problems.append(Problem(name, f'unknown section or key "{name}"', way_out))
            elif name == "seed":
                if not isinstance(section, int) or isinstance(section, bool) or not 0 <= section < 2**32:
                    way_out = "Give a whole number, 0 or more, below 2^32."
                    problems.append(Problem("seed", f"{section!r} is not allowed", way_out))
            elif not isinstance(section, Mapping):
                problems.append(Problem(name, f"{section!r} is not a section", f"Write it as a table: [{name}]."))
            elif name != "method":
                try:
                    built[name] = SECTIONS[name].build(section, name)
                except UsageError as error:
                    problems.extend(error.problems)
        method_values = values.get("method", {})
        if isinstance(method_values, Mapping):
            try:
                built["method"] = build_method(method_values)
            except UsageError as error:
                problems.extend(error.problems)
        if problems:
            error = UsageError(problems)
            right = _without(values, {problem.where for problem in problems})
            with suppress(UsageError):
                error.rest = cls.from_dict(right) if sets or right != values else None
            raise error
        return cls(seed=values.get("seed", 0), **built)

    @classmethod
    def load(
        cls, path: str | Path | None = None, sets: Sequence[str] = (), flags: Mapping[str, Any] | None = None
    ) -> RunConfig:
        """Read a TOML file, then `--set section.key=value` words, then flags (``{"data.text": ("body",)}``).

        Paths inside the file are relative to the file's folder; paths in `sets` and `flags` to the working folder.

        Raises:
            UsageError: The file is missing or no TOML, or any value is wrong.
        """
        if path is None:
            return cls.from_dict({}, sets, flags)
        file = expanded(path, "CONFIG")
        values = _read_toml(file, "the config")
        anchor_paths(values, file.resolve().parent)
        return cls.from_dict(values, sets, flags)


def _without(values: Mapping[str, Any], wrong: Collection[str]) -> dict[str, Any]:
    """What is left when wrong sections and keys are left out, and the method where anything of it is wrong."""
    known = SECTIONS if any(where.startswith("method") for where in wrong) else {*SECTIONS, "method"}
    return {
        name: {key: value for key, value in section.items() if f"{name}.{key}" not in wrong}
        for name, section in values.items()
        if name in known and isinstance(section, Mapping)
    }


def build_method(values: Mapping[str, Any]) -> Any:
    """A method from ``{"name": ..., hyperparameters ...}``; the name defaults to ``deepcut``."""
    name = values.get("name", "deepcut")
    if not isinstance(name, str):
        raise UsageError(Problem("method.name", f"{name!r} is not allowed", "Give a name; see `expunge list`."))
    method = registry.find("methods", name)
    return method.build({key: value for key, value in values.items() if key != "name"}, "method")


def read_recipe(path: str | Path) -> Recipe:
    """The fine-tuning recipe in a TOML file.

    Raises:
        UsageError: File missing, no TOML, unknown keys or bad values.
    """
    return Recipe.build(_read_toml(expanded(path, "recipe"), "the recipe"), "recipe")


def _read_toml(path: Path, what: str) -> dict[str, Any]:
    try:
        with path.open("rb") as file:
            return tomllib.load(file)
    except OSError as error:
        problem = Problem(str(path), f"{what} cannot be read ({error.strerror})", "Give the path of a TOML file.")
    except (ValueError, RecursionError) as error:  # TOMLDecodeError, UnicodeDecodeError, numbers of too many digits
        reason = "nested too deeply" if isinstance(error, RecursionError) else error
        problem = Problem(str(path), f"{what} is not valid TOML ({reason})", "`expunge init` prints a valid config.")
    raise UsageError(problem)


def _toml_value(text: str) -> Any:
    try:
        return tomllib.loads(f"value = {text}")["value"]
    except (ValueError, RecursionError):
        return text  # a bare word is meant as a string


def _put(values: dict[str, Any], key: str, value: Any, problems: list[Problem]) -> None:
    section, dot, name = key.partition(".")
    if not dot:
        values[key] = value
    elif isinstance(values.setdefault(section, {}), dict):
        values[section][name] = value
    else:
        problems.append(Problem(key, f"{section} is not a section in the config", f"Write it as a table: [{section}]."))
