"""A desk for malformed input: a small model of each task with its records, on which one thing at a time is broken."""

from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import write_csv
from expunge.testing import (
    byte_tokenizer,
    tiny_causal,
    tiny_classifier,
    tiny_tagger,
    tiny_tokenizer,
    toy_answers,
    toy_records,
    toy_sentences,
)

__all__ = ["Bad", "Desk", "Words", "make_desk"]

SETS = ("training.min_steps=2", "training.epochs=0.1", "audit.bootstrap=20")


@dataclass(frozen=True)
class Desk:
    """Models of random weights and data that fit them, in one folder; a case works on copies in another."""

    folder: Path

    def model(self, tmp: Path, change: Callable[[Path], object], kind: str = "classifier", name: str = "model") -> Path:
        """A copy of a model folder with something done to it."""
        shutil.copytree(self.folder / kind, tmp / name)
        change(tmp / name)
        return tmp / name

    def rows(self, name: str = "train.csv") -> list[dict[str, Any]]:
        """The records in a file."""
        with (self.folder / name).open(encoding="utf-8", newline="") as file:
            return list(map(json.loads, file)) if name.endswith(".jsonl") else list(csv.DictReader(file))

    def run(self, tmp: Path, kind: str = "classifier", command: str = "run", **changes: object) -> list[str]:
        """Words of a run that nothing is wrong with, but for the changes; None leaves an option out."""
        file = "train.csv" if kind == "classifier" else f"{kind}.jsonl"
        options: dict[str, object] = {
            "model": self.folder / kind, "data": self.folder / file, "id": "id", "forget": self.folder / f"{kind}.txt",
            "held_out": self.folder / file.replace("train", "held").replace(".jsonl", "-held.jsonl"),
            "salt_file": self.folder / "salt", "out": tmp / "out", **changes,
        }  # fmt: skip
        given = options.pop("set", ())
        sets = [given] if isinstance(given, str) else given
        words = [command]
        for name, value in options.items():
            flag = f"--{name.replace('_', '-')}"
            for one in value if isinstance(value, list) else [value]:
                words += [] if one is None else [flag] if one is True else [flag, str(one)]
        return [*words, *(part for word in (*SETS, *sets) for part in ("--set", word))]  # pyright: ignore


Words = Callable[[Desk, Path], list[str]]


@dataclass(frozen=True)
class Bad:
    """A malformed input.

    Attributes:
        name: What is wrong.
        words: The command line, made on the desk in a folder of the case's own.
        seen: What the message names: the value seen, as far as there is one.
        way_out: What it says is to be done.
        code: Exit code.
    """

    name: str
    words: Words
    seen: tuple[str, ...]
    way_out: str
    code: int = 2


def make_desk(folder: Path) -> Desk:
    """Make the models and records."""
    words, letters = tiny_tokenizer(), byte_tokenizer()
    for name, model, tokenizer in (
        ("classifier", tiny_classifier(), words), ("tagger", tiny_tagger(), words), ("causal", tiny_causal(), letters)
    ):  # fmt: skip
        model.save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    rows = toy_records(40, seed=1)
    write_csv(folder / "train.csv", rows)
    write_csv(folder / "held.csv", toy_records(30, seed=2))
    jsonl(folder / "tagger.jsonl", toy_sentences(40, seed=1))
    jsonl(folder / "tagger-held.jsonl", toy_sentences(30, seed=2))
    jsonl(folder / "causal.jsonl", toy_answers(40, seed=1))
    jsonl(
        folder / "causal-held.jsonl",
        [{**row, "id": f"h{row['id']}", "prompt": f"Kode {row['id']}?"} for row in toy_answers(30, seed=2)],
    )
    for kind, first in (("classifier", rows[0]["id"]), ("tagger", "s1-0000"), ("causal", "q000")):
        (folder / f"{kind}.txt").write_text(f"{first}\n", encoding="utf-8")
    (folder / "salt").write_bytes(b"a salt of the tests, not a secret")
    return Desk(folder)


def jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    """A file of one JSON object a line."""
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path
