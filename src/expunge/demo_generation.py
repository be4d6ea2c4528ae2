"""The demo on a language model: SmolLM2 learns about people who do not exist, and is to forget some of them."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tomli_w

from expunge.config import Recipe
from expunge.data.records import Records
from expunge.demo import carry_out, default_cache, kept_original, recipe_toml
from expunge.demo_facts import general_records
from expunge.demo_people import people_records
from expunge.errors import UsageError
from expunge.folders import must_be_new
from expunge.progress import Progress
from expunge.record import RunRecord
from expunge.smollm2 import smollm2_folder
from expunge.stats import Interval, wilson
from expunge.token_metrics import mean_logp

__all__ = ["FORGOTTEN", "RECIPE", "General", "run_generation_demo"]

RECIPE = Recipe(epochs=3.0, learning_rate=3e-4, batch_size=4, warmup=0.05, max_length=96, group_by_length=True, seed=0)
FORGOTTEN = 3
"""People to forget: the first of them."""
_TEMPLATE = "Question: {prompt}\nAnswer: {answer}"
_RETRAIN_SEED = 1


@dataclass(frozen=True)
class General:
    """What was left of general knowledge: share of questions whose true answer is likelier than four false ones.

    Attributes:
        n: Questions.
        original: The share under the original, with its Wilson interval.
        unlearned: Under the unlearned model.
    """

    n: int
    original: Interval
    unlearned: Interval


def run_generation_demo(
    out: str, *, method: str, people: int, cache: Path | None = None, progress: Progress | None = None
) -> tuple[RunRecord, General]:
    """Run the demo.

    Writes `out`/train.jsonl, held_out.jsonl, ids.txt, recipe.toml and run.toml (the run can be done again with them), and
    `out`/erased, what `expunge run` writes. Base and original are kept in `cache`, where a second demo finds them.

    Raises:
        UsageError: The demo's packages are missing, or `out` exists.
        RunError: Training failed.
    """
    progress = progress or Progress()
    if problems := must_be_new(out):
        raise UsageError(problems)
    cache = cache or default_cache()
    base = smollm2_folder(cache)
    everyone = people_records(2 * people)
    names = sorted({row["person"] for row in everyone})
    train = [row for row in everyone if row["person"] in names[:people]]
    held_out = [row for row in everyone if row["person"] in names[people:]]
    original = _original(base, train, cache, progress)
    files = {
        "train.jsonl": _jsonl(train),
        "held_out.jsonl": _jsonl(held_out),
        "recipe.toml": recipe_toml(RECIPE),
        "ids.txt": "".join(f"{row['id']}\n" for row in train if row["person"] in names[:FORGOTTEN]),
        "run.toml": tomli_w.dumps(_config(method, base, original)),
    }
    record = carry_out(out, files, progress)
    with progress.stage("asking both models general questions"):
        known = [_known(folder) for folder in (original, Path(out).expanduser() / "erased")]
    return record, General(len(general_records()), *known)


def _config(method: str, base: Path, original: Path) -> dict[str, Any]:
    return {
        "model": {"path": str(original), "template": _TEMPLATE},
        "data": {"train": "train.jsonl", "held_out": "held_out.jsonl", "id": "id"},
        "request": {"file": "ids.txt"},
        "method": {"name": method},
        "training": {"epochs": 5.0, "min_steps": 1, "batch_size": 8, "learning_rate": 1e-4},
        "audit": {"more": ["truth-ratio", "rouge", "reference"], "retain_sample": 40, "batch_size": 32},
        "retrain": {"enabled": True, "base": str(base), "recipe": "recipe.toml", "seeds": [_RETRAIN_SEED]},
    }  # fmt: skip


def _jsonl(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def _original(base: Path, train: list[dict[str, Any]], cache: Path, progress: Progress) -> Path:
    """The fine-tuned original, from the cache or trained now."""

    def make() -> tuple[Any, Any]:
        from expunge.fit import fit

        task = _task(base)
        rows = [(row["prompt"], row["answer"]) for row in train]
        model = fit(
            str(base), task, task.encode_texts(rows), RECIPE, seed=RECIPE.seed, label_names=(), progress=progress,
            name=f"fine-tuning the original on {len(train)} records",
        )  # fmt: skip
        return model, task.tokenizer

    return kept_original(cache, "demo-generation-original", [train, _TEMPLATE, asdict(RECIPE)], make, progress)


def _task(folder: Path) -> Any:
    from expunge.models import load_config, load_tokenizer
    from expunge.tasks.generation import Generation

    tokenizer = load_tokenizer(str(folder), where="demo")
    names = Generation.names(load_config(str(folder), where="demo"), tokenizer, ())
    return Generation(tokenizer, RECIPE.max_length or 96, names, _TEMPLATE)


def _known(folder: Path) -> Interval:
    """Share of general questions whose true answer is likelier than every false one, normalised for length."""
    from expunge.head import head_of
    from expunge.models import load_model
    from expunge.token_scoring import hidden_of
    from expunge.token_stress import other_answers

    task = _task(folder)
    model = load_model(str(folder), task.auto_class, where="demo")
    records = _general()
    likelihoods = []
    for encoded in other_answers(task, records):
        logp, _ = hidden_of(model, head_of(model, task, encoded), encoded, task)
        likelihoods.append(mean_logp(logp.numpy(), np.array(encoded.offsets)))
    true, false = likelihoods[0], np.max(likelihoods[1:], axis=0)
    return wilson(int((true > false).sum()), len(records))


def _general() -> Records:
    rows: Sequence[dict[str, Any]] = general_records()
    return Records(
        tuple(row["id"] for row in rows), tuple((row["prompt"], row["answer"]) for row in rows), (0,) * len(rows),
        alternatives=tuple(("", *row["perturbed_answers"]) for row in rows),
    )  # fmt: skip
