"""What the benchmark on TOFU runs over, read from one TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.bench.config import Trial, read_one_setting
from expunge.config import Recipe
from expunge.errors import Problem
from expunge.options import Options, PositiveInt, Seed, option
from expunge.tasks.generation import template_problems

__all__ = ["Tofu", "TofuConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Tofu(Options):
    """Files of TOFU (Maini et al. 2024, arXiv 2401.06121), and sizes.

    Attributes:
        seeds: One original, one retrained model and one run of each method a seed.
        train: Files the original is trained on; records of the held-out file are left out of them.
        forget: File of the records to forget, with perturbed answers.
        perturbed: Files of retained records with perturbed answers.
        real_authors: File of questions about real authors, with perturbed answers.
        world_facts: File of questions of general knowledge, with perturbed answers.
        held_out: File of records of the same kind that no model is trained on: the first for the stop rule, the next for
            membership attacks.
        calibration_records: How many the first are.
        evaluation_records: How many the next are.
        retain_sample: Retained records scored.
        general_sample: Questions about real authors, and of general knowledge, scored.
        max_length: Tokens a record is cut to.
        template: How question and answer are joined; left out: the tokenizer's chat template, else a line break.
        originals: Folders or hub ids of models trained on all records, one a seed; left out: trained from the base.
        retrained: Folders or hub ids of models trained without the records to forget, likewise.
        batch_size: Records a forward pass when scoring.
        bootstrap: Resamples behind each interval.
    """

    seeds: tuple[Seed, ...] = option((0, 1, 2), "one original, retrained model and run of each method a seed")
    train: tuple[str, ...] = option(("forget10.json",), "files the original is trained on")
    forget: str = option("forget01_perturbed.json", "file of the records to forget")
    perturbed: tuple[str, ...] = option(("forget10_perturbed.json",), "files of retained records with false answers")
    real_authors: str = option("real_authors_perturbed.json", "questions about real authors")
    world_facts: str = option("world_facts_perturbed.json", "questions of general knowledge")
    held_out: str = option("retain_perturbed.json", "records of the same kind that no model is trained on")
    calibration_records: PositiveInt = option(60, "held-out records for the stop rule")
    evaluation_records: PositiveInt = option(100, "held-out records for membership attacks")
    retain_sample: PositiveInt = option(40, "retained records scored, at most")
    general_sample: PositiveInt = option(50, "questions of each kind of general knowledge scored, at most")
    max_length: PositiveInt = option(256, "tokens a record is cut to")
    template: str | None = option(None, "how question and answer are joined; left out: the chat template")
    originals: tuple[str, ...] = option((), "models trained on all records, one a seed; left out: trained here")
    retrained: tuple[str, ...] = option((), "models trained without the request, one a seed; left out: trained here")
    batch_size: PositiveInt = option(16, "records a forward pass when scoring")
    bootstrap: PositiveInt = option(1000, "resamples behind each interval")

    @classmethod
    def section(cls) -> str:
        return "tofu"

    @classmethod
    def problems(cls, values: Mapping[str, Any], section: str | None = None) -> list[Problem]:
        found = super().problems(values, section)
        if found:
            return found
        where = section if section is not None else cls.section()
        full = {name: default for name, default, _ in cls.describe()} | dict(values)
        for name in ("originals", "retrained"):
            if full[name] and len(full[name]) != len(full["seeds"]):
                what = f"{len(full[name])} models for {len(full['seeds'])} seeds"
                found.append(Problem(f"{where}.{name}", what, "Name one a seed, or none: they are trained then."))
        return [*found, *template_problems(full["template"])]


@dataclasses.dataclass(frozen=True)
class TofuConfig:
    """The whole benchmark.

    Attributes:
        tofu: Files and sizes.
        recipe: How originals and retrained models are trained.
        methods: Name -> the one setting each method runs with.
    """

    tofu: Tofu
    recipe: Recipe
    methods: dict[str, Trial]

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = ()) -> TofuConfig:
        """Read a TOML file with the sections tofu, recipe and methods.NAME (one trial each).

        Args:
            path: The file.
            sets: Changes of ``[tofu]``: ``seeds=[0]``; and ``methods=[...]``, which keeps only these.

        Raises:
            UsageError: Everything that is wrong with it.
        """
        parts = read_one_setting(path, [Tofu], "the benchmark", "benchmarks/tofu.toml", sets)
        return cls(parts.own[0], parts.recipe, parts.methods)
