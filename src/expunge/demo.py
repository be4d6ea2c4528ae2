"""The demo: a real encoder fine-tuned on real records, 5 % of them erased, beside a model retrained without them."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import shutil
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import tomli_w
from filelock import FileLock

from expunge.config import Recipe, RunConfig
from expunge.data.records import Records
from expunge.demo_data import diagnosis_phrases, encoder_folder
from expunge.errors import UsageError
from expunge.folders import must_be_new, whole_folder
from expunge.progress import Progress
from expunge.record import RunRecord

__all__ = ["RECIPE", "carry_out", "default_cache", "kept_original", "recipe_toml", "run_demo"]

RECIPE = Recipe(epochs=4.0, learning_rate=4e-4, batch_size=32, max_length=24, group_by_length=True, seed=0)
_FORGET = 0.05
_HELD_OUT = 2000
_RETRAIN_SEED = 1


def run_demo(
    out: str, *, method: str, records: int, cache: Path | None = None, progress: Progress | None = None
) -> RunRecord:
    """Run the demo.

    Writes `out`/train.csv, held_out.csv, ids.txt, recipe.toml and run.toml (the run can be done again with them), and
    `out`/erased, what `expunge run` writes. The fine-tuned original is kept in `cache`, where a second demo finds it.

    Raises:
        UsageError: The demo's packages are missing, or `out` exists.
        RunError: Training failed.
    """

    progress = progress or Progress()
    if problems := must_be_new(out):
        raise UsageError(problems)
    train, held_out = diagnosis_phrases(records, _HELD_OUT)
    original = _original(train, held_out, cache or default_cache(), progress)
    files = {
        "train.csv": _csv(train),
        "held_out.csv": _csv(held_out),
        "recipe.toml": recipe_toml(RECIPE),
        "ids.txt": "\n".join(_drawn(train)) + "\n",
        "run.toml": tomli_w.dumps(_config(method, original)),
    }
    return carry_out(out, files, progress)


def carry_out(out: str, files: Mapping[str, str], progress: Progress) -> RunRecord:
    """Write a demo's files, run its run.toml, and save what it leaves in `out`/erased; if that fails nothing stays.

    Raises:
        UsageError: `out` exists, or the run's settings are wrong.
        RunError: Training failed.
    """
    from expunge.checks import check
    from expunge.erase import execute

    target = Path(out).expanduser()
    with whole_folder(target) as place:
        for name, text in files.items():
            (place / name).write_text(text, encoding="utf-8", newline="")
    try:
        erased = execute(check(RunConfig.load(target / "run.toml")), progress)
        erased.save(str(target / "erased"))
    except BaseException:
        shutil.rmtree(target)  # ours, made above: a failed demo leaves nothing
        raise
    return erased.record


def _config(method: str, original: Path) -> dict[str, Any]:
    return {
        "model": {"path": str(original), "max_length": RECIPE.max_length},
        "data": {"train": "train.csv", "held_out": "held_out.csv", "text": ["text"], "label": "chapter", "id": "id"},
        "request": {"file": "ids.txt", "near_duplicates": 0.95},  # phrases a word apart are other diagnoses, no copies
        "method": {"name": method},
        "audit": {"retain_sample": 1000},
        "retrain": {
            "enabled": True, "base": str(encoder_folder()), "recipe": "recipe.toml", "seeds": [_RETRAIN_SEED],
        },
    }  # fmt: skip


def _drawn(train: list[dict[str, str]]) -> list[str]:
    """5 % of the ids: those with the smallest hashes, a draw that needs no seed."""
    ids = sorted((row["id"] for row in train), key=lambda i: hashlib.sha256(i.encode()).digest())
    return sorted(ids[: max(1, round(_FORGET * len(ids)))])


def _csv(rows: list[dict[str, str]]) -> str:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def recipe_toml(recipe: Recipe) -> str:
    """A recipe as the TOML file a run reads."""
    return tomli_w.dumps({key: value for key, value in asdict(recipe).items() if value is not None})


def default_cache() -> Path:
    """Where demos keep what takes long to make."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "expunge"


def kept_original(
    cache: Path, name: str, made_of: Any, make: Callable[[], tuple[Any, Any]], progress: Progress
) -> Path:
    """Folder of a fine-tuned original: from the cache, or made now, by one process while others wait for it.

    Args:
        cache: Where it is kept.
        name: What it is called there.
        made_of: All it hangs on, as JSON can hold it: another original has another folder.
        make: -> the model and its tokenizer.
        progress: Told where it is in the cache.

    Raises:
        OSError: The cache cannot be written.
    """
    from expunge.record import environment

    key = hashlib.sha256(json.dumps([made_of, environment()]).encode()).hexdigest()[:16]
    folder = cache / f"{name}-{key}"
    if not folder.is_dir():
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{folder.name}.lock"):
            if not folder.is_dir():  # another process may have made it meanwhile
                model, tokenizer = make()
                with whole_folder(folder) as place:
                    model.save_pretrained(place)
                    tokenizer.save_pretrained(place)
                return folder
    progress.note("the fine-tuned original is in the cache")
    return folder


def _original(train: list[dict[str, str]], held_out: list[dict[str, str]], cache: Path, progress: Progress) -> Path:
    """The fine-tuned original, from the cache or trained now."""
    names = sorted({row["chapter"] for row in [*train, *held_out]})

    def make() -> tuple[Any, Any]:
        from expunge.fit import fit
        from expunge.models import load_tokenizer
        from expunge.tasks.text_classification import TextClassification

        assert RECIPE.max_length is not None
        base = str(encoder_folder())
        tokenizer = load_tokenizer(base, where="demo")
        task = TextClassification(tokenizer, RECIPE.max_length, tuple(names))
        number = {name: i for i, name in enumerate(names)}
        records = Records(
            tuple(row["id"] for row in train),
            tuple((row["text"],) for row in train),
            tuple(number[row["chapter"]] for row in train),
        )
        model = fit(
            base, task, task.encode(records), RECIPE, seed=RECIPE.seed, label_names=names, progress=progress,
            name=f"fine-tuning the original on {len(train)} records",
        )  # fmt: skip
        return model, tokenizer

    return kept_original(cache, "demo-original", [train, names, asdict(RECIPE)], make, progress)
