"""A run that is interrupted goes on where it was, to the bit; what it keeps is whole, private, and removed."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch

from expunge import paused as paused_module
from expunge.checks import check
from expunge.config import Recipe, RunConfig
from expunge.erase import execute
from expunge.errors import RunError, UsageError
from expunge.fingerprint import fingerprint
from expunge.history.hashes import sha256_of
from expunge.paused import PausedRun, folder_of, holder, opened
from expunge.progress import Progress
from expunge.record import RunRecord
from expunge.snapshot import BrokenSnapshotError, Snapshot
from expunge.testing import TAGS, tiny_classifier, tiny_tagger, tiny_tokenizer, toy_records, toy_sentences
from expunge.trainer import UnlearnTrainer
from test_bad_input import call

STEPS = 8
ALWAYS = 1e-9  # seconds between checkpoints: one after every step


class Notes(Progress):
    """Keeps what was said."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)


@dataclass(frozen=True)
class Small:
    """A model that nobody has trained, and its data: what is asked here is whether bits repeat, not whether it forgets."""

    values: dict[str, Any]

    def config(self, **sets: Any) -> RunConfig:
        return RunConfig.from_dict(self.values, [f"{key}={json.dumps(value)}" for key, value in sets.items()])

    def flags(self, config: Path) -> list[str]:
        import tomli_w

        config.write_text(tomli_w.dumps(self.values), encoding="utf-8")
        return [str(config)]


def small(folder: Path, task: str, rank: int, *, steps: int = STEPS) -> Small:
    folder.mkdir(parents=True, exist_ok=True)
    tagger = task == "tagger"
    rows = {"train": 48, "held": 40}
    for number, (name, count) in enumerate(rows.items()):
        made = (toy_sentences if tagger else toy_records)(count, seed=number)
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, made)), encoding="utf-8")
    (tiny_tagger if tagger else tiny_classifier)(seed=3).save_pretrained(folder / "model")
    tiny_tokenizer().save_pretrained(folder / "model")
    (folder / "salt").write_bytes(b"a salt of the tests, not a secret")
    values = {
        "model": {"path": str(folder / "model")},
        "data": {"train": str(folder / "train.jsonl"), "held_out": str(folder / "held.jsonl"), "id": "id"},
        "request": {"fraction": 0.25},
        "method": {"name": "deepcut"},
        "training": {
            "epochs": 1.0, "min_steps": steps, "batch_size": 4, "lora_rank": rank, "learning_rate": 1e-3,
            "checkpoint_every": ALWAYS,
        },
        "stop": {"rule": "none", "every": 3},
        "audit": {"bootstrap": 20},
        "privacy": {"salt_file": str(folder / "salt")},
    }  # fmt: skip
    return Small(values)


def carried_out(config: RunConfig, out: Path, progress: Progress | None = None) -> RunRecord:
    """What `expunge run` does."""
    prepared, progress = check(config), progress or Progress()
    with opened(out, fingerprint(prepared), every=config.training.checkpoint_every, progress=progress) as paused:
        erased = execute(prepared, progress, paused)
        erased.save(out)
    return erased.record


def weights(folder: Path) -> str:
    return sha256_of(folder / "model.safetensors")


def same(record: RunRecord) -> dict[str, Any]:
    """All of a record but what the clock says."""
    found = json.loads(record.to_json())
    del found["timings"]
    return found


class _Killed(BaseException):
    """Stands for a signal that no handler of ours sees."""


def struck(monkeypatch: pytest.MonkeyPatch, step: int) -> Callable[[], None]:
    """Let training end with `_Killed` in that step, counted from 1; gives what undoes it."""
    plain = UnlearnTrainer._step_loss

    def striking(self: UnlearnTrainer, *args: Any) -> Any:
        if self.state.global_step == step - 1:
            raise _Killed
        return plain(self, *args)

    monkeypatch.setattr(UnlearnTrainer, "_step_loss", striking)
    return lambda: monkeypatch.setattr(UnlearnTrainer, "_step_loss", plain)


CASES = {
    "deepcut, texts, all weights": ("texts", 0, {}),
    "deepcut, sentences, low rank": ("tagger", 4, {}),
    # KL to the original on retained records: its outputs are taken batch by batch as records come up
    "scrub, with the original's outputs, accumulated": (
        "texts", 0, {"method.name": "scrub", "training.accumulation": 2, "training.scheduler": "cosine", "training.warmup": 0.3},
    ),
    # masks over gradients, made by a backward pass before the first step
    "salun, masks": ("texts", 0, {"method.name": "salun"}),
}  # fmt: skip


@pytest.mark.parametrize(("task", "rank", "sets"), [*CASES.values()], ids=[*CASES])
def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, rank: int, sets: dict[str, Any]
) -> None:
    """Weights to the bit; so are the checks, the step that was kept, the loss of every step, the costs and the figures."""
    config = small(tmp_path / "job", task, rank).config(**sets)
    whole = carried_out(config, tmp_path / "whole")
    assert len(whole.training["checks"]) > 3
    out = tmp_path / "erased"
    for step in (1, 5, 8):  # before any checkpoint but that of step 0; twice later on, each time going on from the last
        undo = struck(monkeypatch, step)
        with pytest.raises(_Killed):
            carried_out(config, out)
        undo()
        assert not out.exists()
        assert [path.name for path in folder_of(out).glob("checkpoint-*")] == [f"checkpoint-{step - 1}"]
    notes = Notes()
    record = carried_out(config, out, notes)
    assert "training up to step 7" in notes.said[0]
    assert weights(out) == weights(tmp_path / "whole")
    assert same(record) == same(whole)
    assert sorted(os.listdir(tmp_path)) == ["erased", "job", "whole"], "nothing is left but the output"
