"""A small but real job, made once: base model, fine-tuned classifier, records, request, recipe."""

from __future__ import annotations

import csv
import gc
import io
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import pytest

os.environ["HF_HUB_OFFLINE"] = "1"  # no test downloads anything
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ.pop("EXPUNGE_SALT_FILE", None)

collect_ignore = ["plugin_package"]  # a package of its own, whose tests `test_plugin.py` runs where it is installed


@dataclass(frozen=True)
class Job:
    """Paths of a job on disk."""

    folder: Path
    base: Path
    model: Path
    train: Path
    held_out: Path
    ids: Path
    recipe: Path
    salt: Path

    def flags(self, **changes: object) -> list[str]:
        """Options of `expunge run` and `check` for this job; None leaves one out, True is a bare flag."""
        options: dict[str, object] = {
            "model": self.model, "data": self.train, "text": "text", "label": "label", "id": "id",
            "forget": self.ids, "held-out": self.held_out, "salt-file": self.salt, **changes,
        }  # fmt: skip
        words: list[str] = []
        for name, value in options.items():
            if value is True:
                words.append(f"--{name}")
            elif value is not None:
                words += [f"--{name}", str(value)]
        return words


def in_process(*words: str) -> subprocess.CompletedProcess[str]:
    """`expunge WORDS` in this process, without the seconds that importing everything takes in one of its own."""
    from expunge import cli

    out, error = io.StringIO(), io.StringIO()
    named = mock.patch.object(sys, "argv", ["expunge", *words])
    with named, redirect_stdout(out), redirect_stderr(error), pytest.raises(SystemExit) as ended:
        cli.main()
    return subprocess.CompletedProcess(words, int(ended.value.code or 0), out.getvalue(), error.getvalue())


def call(words: Sequence[str]) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `expunge WORDS` in this process."""
    done = in_process(*words)
    return done.returncode, done.stdout, done.stderr


def write_csv(path: Path, rows: list[dict[str, str]]) -> Path:
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.DictWriter(file, fieldnames=list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return path


def byte_encoder(place: Path) -> Path:
    """A tiny BERT that reads bytes, with a head for masked tokens, in a folder."""
    import torch
    import transformers

    from expunge.testing import byte_tokenizer

    tokenizer = byte_tokenizer()
    tokenizer.add_special_tokens({"mask_token": "<|mask|>", "pad_token": "<|pad|>"})
    torch.manual_seed(0)
    config = transformers.BertConfig(
        vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=64,
        max_position_embeddings=128, pad_token_id=tokenizer.pad_token_id,
    )  # fmt: skip
    transformers.BertForMaskedLM(config).save_pretrained(place)
    tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="session")
def job(tmp_path_factory: pytest.TempPathFactory) -> Job:
    from expunge.config import Recipe
    from expunge.data.records import Records
    from expunge.fit import fit
    from expunge.tasks.text_classification import TextClassification
    from expunge.testing import tiny_classifier, tiny_tokenizer, toy_records

    folder = tmp_path_factory.mktemp("job")
    train, held_out = toy_records(240, seed=1), toy_records(200, seed=2)
    tokenizer = tiny_tokenizer()
    base = folder / "base"
    tiny_classifier(seed=5).bert.save_pretrained(base)
    tokenizer.save_pretrained(base)
    names = ("water", "machine", "music")
    task = TextClassification(tokenizer, 48, names)
    records = Records(
        tuple(r["id"] for r in train), tuple((r["text"],) for r in train), tuple(names.index(r["label"]) for r in train)
    )
    recipe = Recipe(epochs=40.0, learning_rate=3e-3, batch_size=16, seed=0)
    model = fit(str(base), task, task.encode(records), recipe, seed=0, label_names=names)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    ids = folder / "ids.txt"
    ids.write_text("\n".join(r["id"] for r in train[:24]) + "\n", encoding="utf-8")
    recipe_file = folder / "recipe.toml"
    recipe_file.write_text("epochs = 40\nlearning_rate = 3e-3\nbatch_size = 16\nseed = 1\n", encoding="utf-8")
    salt = folder / "salt"
    salt.write_bytes(b"a salt of the tests, not a secret")
    return Job(
        folder=folder, base=base, model=folder / "model", train=write_csv(folder / "train.csv", train),
        held_out=write_csv(folder / "held_out.csv", held_out), ids=ids, recipe=recipe_file, salt=salt,
    )  # fmt: skip


@pytest.fixture(scope="module")
def quick_collection() -> Iterator[None]:
    """Every `Trainer.train` ends with `gc.collect()`; all that pytest and torch hold need not be gone through each time."""
    gc.collect()
    gc.freeze()
    yield
    gc.unfreeze()


@pytest.fixture(autouse=True)
def _own_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No test touches the user's own salt or cache."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
