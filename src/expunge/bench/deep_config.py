"""What the benchmark on EDU-RELAT runs over, read from one TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any

from annotated_types import MinLen

from expunge.bench.config import Trial, read_one_setting
from expunge.config import Recipe, StopConfig
from expunge.errors import Problem, UsageError
from expunge.options import NonNegativeInt, Options, Positive, PositiveInt, Probability, Seed, Share, option
from expunge.tasks.generation import template_problems

__all__ = ["Deep", "DeepConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Deep(Options):
    """Targets and sizes of the benchmark on EDU-RELAT (Wu et al. 2024, arXiv 2410.15153).

    Attributes:
        targets: Ids of the targets, each unlearned on its own.
        seed: Seed of fine-tuning and unlearning.
        template: How question and answer are joined.
        max_length: Tokens a fact is cut to.
        least: Share of the facts that the original must answer.
        more_epochs: Further passes over the facts, as often as it does not.
        most_rounds: How often, at most.
        at: Steps after which a model is asked all facts; the last one ends a run.
        end_accuracy: A run ends early where accuracy on all facts falls below this, or recall reaches 1.
        batch_size: Questions at once.
        others: How many facts are asked at each look beside those that the target hangs on, drawn alike from the
            relations of rules and the other facts; 0: all.
    """

    targets: Annotated[tuple[str, ...], MinLen(1)] = option((), "ids of the targets")
    seed: Seed = option(0, "seed of fine-tuning and unlearning")
    template: str = option("{prompt} {answer}", "how question and answer are joined")
    max_length: PositiveInt = option(64, "tokens a fact is cut to")
    least: Share = option(0.95, "share of the facts that the original must answer")
    more_epochs: Positive = option(2.0, "further passes over the facts, as often as it does not")
    most_rounds: NonNegativeInt = option(4, "how often at most")
    at: Annotated[tuple[PositiveInt, ...], MinLen(1)] = option(
        (1, 2, 4, 8, 16), "steps after which all facts are asked"
    )
    end_accuracy: Probability = option(0.3, "accuracy on all facts below which a run ends early")
    batch_size: PositiveInt = option(64, "questions at once")
    others: NonNegativeInt = option(0, "facts asked beside those that the target hangs on; 0: all")

    @classmethod
    def section(cls) -> str:
        return "deep"

    @classmethod
    def problems(cls, values: Mapping[str, Any], section: str | None = None) -> list[Problem]:
        found = super().problems(values, section)
        return found or template_problems(values.get("template", "{prompt} {answer}"))


@dataclasses.dataclass(frozen=True)
class DeepConfig:
    """The whole benchmark.

    Attributes:
        deep: Targets and sizes.
        recipe: How the original is fine-tuned.
        methods: Name -> the one setting each method runs with.
    """

    deep: Deep
    recipe: Recipe
    methods: dict[str, Trial]

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = ()) -> DeepConfig:
        """Read a TOML file with the sections deep, recipe and methods.NAME (one trial each).

        Args:
            path: The file.
            sets: Changes of ``[deep]``: ``targets=["283"]``; and ``methods=[...]``, which keeps only these.

        Raises:
            UsageError: Everything that is wrong with it.
        """
        parts = read_one_setting(path, [Deep], "the benchmark", "benchmarks/deep.toml", sets)
        way_out = "Leave it out: every method runs to the last of deep.at, and is looked at on the way."
        unused = [
            Problem(f"methods.{name}.stop", "this benchmark has no stop rule", way_out)
            for name, trial in parts.methods.items()
            if trial.stop != StopConfig()
        ]
        if unused:
            raise UsageError(unused)
        return cls(parts.own[0], parts.recipe, parts.methods)
