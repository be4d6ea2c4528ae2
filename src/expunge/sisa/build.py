"""Train a SISA ensemble on records and write it as a folder that can be asked to forget them."""

from __future__ import annotations

import copy
import os
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from expunge import checks, models, registry, suitability
from expunge.adapter import PEFT
from expunge.config import DataConfig, ModelConfig, Recipe, RunConfig, read_recipe
from expunge.config_paths import path_problem
from expunge.data.records import Records
from expunge.errors import Collector, Problem, UsageError
from expunge.fit import device
from expunge.folders import must_be_apart, must_be_new, whole_folder
from expunge.methods.sisa import Sisa
from expunge.privacy import read_salt
from expunge.progress import Progress
from expunge.sisa.ensemble import BASE
from expunge.sisa.folder import base_sha256, copy_base, is_sisa
from expunge.sisa.manifest import FILE, Ledger, Manifest, Members
from expunge.sisa.plan import Plan
from expunge.sisa.training import Shards, made_with, stage_folder
from expunge.tasks.base import Encoded
from expunge.tasks.kinds import Task

__all__ = ["train_sisa"]


@dataclass(frozen=True)
class _Job:
    base: str
    base_config: Any
    tokenizer: Any
    plan: Plan
    recipe: Recipe
    members: Members
    task: Task
    records: Records
    salt: bytes
    trust_remote_code: bool


def train_sisa(
    base: str | Path,
    data: Any,
    *,
    out: str | Path,
    recipe: str | Path | Recipe,
    task: str = "text-classification",
    text: str | Sequence[str] = (),
    label: str | None = None,
    labels: Sequence[str] = (),
    id: str | None = None,  # noqa: A002 - the word of the config
    shards: int = 5,
    slices: int = 4,
    adapter: str = "none",
    rank: int = 8,
    max_length: int | None = None,
    seed: int | None = None,
    salt_file: str | None = None,
    trust_remote_code: bool = False,
    progress: Progress | None = None,
) -> Manifest:
    """Train an ensemble from which records can be erased exactly, and write its folder, whole or not at all.

    Args:
        base: Folder or hub id of the model to fine-tune.
        data: The training data: a path, hub id, `datasets.Dataset`, `pandas.DataFrame` or list of dicts.
        out: Folder to write; not within the base.
        recipe: How to fine-tune, or a TOML file that says so.
        task: Registered name of the task.
        text: Text column, or two for a pair; left out: that of the task.
        label: Label column; left out: that of the task.
        labels: Class names in the order the model is to have; left out: those of the data, sorted.
        id: Id column; left out, ids are content hashes.
        shards: Models, each trained on its own part of the records.
        slices: Stages in which each is trained.
        adapter: ``"none"`` for a full copy of the model a shard, ``"lora"`` for a LoRA adapter a shard.
        rank: Rank of the adapters.
        max_length: Tokens a record is cut to; left out: the recipe's, else the tokenizer's own limit.
        seed: Seed of placement, order, dropout and heads; left out: the recipe's.
        salt_file: File with the secret salt that names erased records; left out: your own, made at first use.
        trust_remote_code: Run code that comes with the model.
        progress: Shows progress.

    Returns:
        What the folder says of itself.

    Raises:
        UsageError: Everything that is wrong with these arguments, at once, before weights load.
        RunError: Training or writing failed; nothing was written.

    Example:
        >>> train_sisa("my-base", "train.csv", out="my-sisa", recipe="recipe.toml", id="key")  # doctest: +SKIP
    """
    found = Collector()
    found.problems.extend(must_be_new(out, where="out"))
    if not found.problems and path_problem(str(base), "base", hub=True) is None:  # else it is said below
        found.problems.extend(must_be_apart(out, base, where="out"))
    job = _checked(
        found, str(base), data, recipe, registry.find("tasks", task), seed, salt_file, trust_remote_code,
        columns={"text": (text,) if isinstance(text, str) else tuple(text), "label": label, "id": id},
        labels=labels, plan={"shards": shards, "slices": slices}, members={"adapter": adapter, "rank": rank},
        max_length=max_length,
    )  # fmt: skip
    with whole_folder(out) as place:
        return _train(job, place, progress or Progress())


def _checked(
    found: Collector, base: str, data: Any, recipe: str | Path | Recipe, task: Any, seed: int | None,
    salt_file: str | None, trust: bool, *, columns: dict[str, Any], labels: Sequence[str], plan: dict[str, Any],
    members: dict[str, Any], max_length: int | None,
) -> _Job:  # fmt: skip
    by_path = isinstance(data, str | os.PathLike)
    settings = recipe if isinstance(recipe, Recipe) else found.run(read_recipe, recipe)
    config = RunConfig(
        method=Sisa(),
        model=found.run(ModelConfig.build, {"path": base, "max_length": max_length}) or ModelConfig(),
        data=DataConfig(
            train=str(data) if by_path else "", id=columns["id"],
            text=columns["text"] or task.text_columns, label=columns["label"] or task.label_column,
        ),
    )  # fmt: skip
    base_problems = models.inspect_folder(base, where="base")
    if path_problem(base, "base", hub=True) is None and is_sisa(base):
        base_problems = [Problem("base", f'"{base}" is a SISA folder', "Give the model to fine-tune from.")]
    found.problems.extend(base_problems)
    base_config, tokenizer = None, None
    if not base_problems:
        base_config = found.run(models.load_config, base, where="base", trust_remote_code=trust)
        tokenizer = found.run(models.load_tokenizer, base, where="base", trust_remote_code=trust)
    longest = None
    if base_config is not None and tokenizer is not None:
        if base_config.pad_token_id is None:
            way_out = "Set config.pad_token_id to the tokenizer's and save the base again."
            found.problems.append(Problem("base", "its config names no padding token", way_out))
        longest = found.run(suitability.max_length, config, settings, tokenizer, base_config)
    seeded = {**plan, "seed": seed if seed is not None else getattr(settings, "seed", 0)}
    planned = found.run(Plan.build, {**seeded, "epochs": getattr(settings, "epochs", 3.0)})
    kinds = found.run(Members.build, {**members, "auto_class": task.auto_class})
    if kinds is not None and kinds.adapter == "lora" and find_spec("peft") is None:
        found.problems.append(Problem("sisa.adapter", "LoRA adapters need peft, which is not installed", PEFT))
    nowhere = path_problem(str(data), "data.train", hub=True) if by_path else None
    read: Any = None
    if task.of_tokens:
        way_out = (
            "Give text-classification or token-classification; a language model forgets by another method, such as npo."
        )
        found.problems.append(
            Problem("task", "SISA trains classifiers and taggers, and this is a language model's", way_out)
        )
    elif nowhere is None:
        read = found.run(_records, config, None if by_path else data, task, labels)
    else:
        found.problems.append(nowhere)
    salt = found.run(read_salt, salt_file) if salt_file is not None else None
    found.finish()
    assert kinds is not None  # a problem would have been found otherwise
    records, names = read
    return _Job(
        base=base, base_config=base_config, tokenizer=tokenizer, plan=planned, recipe=settings,
        members=Members(adapter=kinds.adapter, rank=kinds.rank, auto_class=kinds.auto_class, label_names=names),
        task=task(tokenizer, longest, names), records=records, salt=salt or read_salt(), trust_remote_code=trust,
    )  # fmt: skip


def _records(config: RunConfig, given: Any, task: Any, labels: Sequence[str]) -> tuple[Records, tuple[str, ...]]:
    """The records, and the class names in order."""
    columns = checks.read_columns(config, given, config.data.train, "data.train", config.data.train_split)
    names = tuple(str(name) for name in labels) or _names(columns[str(config.data.label)])
    if len(names) < 2 or len(set(names)) < len(names):
        what = f"the classes are {', '.join(names) or 'none'}"
        raise UsageError(Problem("data.labels", what, "Give two or more different classes: --labels a,b."))
    return checks.read_records(columns, config, checks.Kind(task, names), "data.train", True), names


def _names(values: Sequence[Any]) -> tuple[str, ...]:
    """Class names in the data, sorted, numbers by size; a tagger's values are lists of them."""
    flat = {one for value in values for one in (value if isinstance(value, list | tuple) else [value])}
    kept = {str(int(v) if isinstance(v, float) and v.is_integer() else v) for v in flat if v is not None and v == v}
    numbers = all(name.isdigit() for name in kept)
    return tuple(sorted((name for name in kept if name.strip()), key=int if numbers else str))


def _train(job: _Job, place: Path, progress: Progress) -> Manifest:
    encoded: Encoded = job.task.encode(job.records)
    ids, plan = job.records.ids, job.plan
    with progress.stage("copying the base model"):
        copy_base(job.base, job.members, place / BASE, seed=plan.draw("base"), trust_remote_code=job.trust_remote_code)
    shards = Shards(plan, job.recipe, job.members, place / BASE, job.trust_remote_code)
    counts = plan.counts(ids)
    passes = []
    for shard, row in enumerate(counts):
        if not sum(row):
            passes.append([0] * plan.slices)
            continue
        visits = sum(plan.visits(row, stage) for stage in range(1, plan.slices + 1))
        with progress.stage(f"training shard {shard + 1} of {plan.shards}", visits) as advance:
            passes.append(
                shards.train(
                    shard, 1, task=job.task, encoded=encoded, ids=ids, start=None, place=place, device=device(),
                    advance=advance,
                )
            )  # fmt: skip
    ledger = Ledger(job.salt)
    manifest = Manifest(
        plan=plan,
        recipe=job.recipe,
        members=job.members,
        max_length=job.task.max_length,
        base=job.base,
        base_sha256=base_sha256(place / BASE),
        salt_check=ledger.check(),
        counts=tuple(map(tuple, counts)),
        contents=ledger.contents(plan, ids, encoded),
        passes=tuple(map(tuple, passes)),
        made_with=made_with(device()),
    )
    (place / FILE).write_text(manifest.to_json(), encoding="utf-8")
    held = next(shard for shard, row in enumerate(counts) if sum(row))
    shards.read(held, place / stage_folder(held, plan.slices)).config.save_pretrained(place)
    tokenizer = copy.deepcopy(job.tokenizer)
    tokenizer.model_max_length = job.task.max_length  # what later requests cut records to
    tokenizer.save_pretrained(place)
    return manifest
