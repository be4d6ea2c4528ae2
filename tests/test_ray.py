"""Retrained models by Ray are those of the process itself, and a run that goes on trains only those that are missing."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Job, call
from expunge.config import Recipe
from expunge.data.records import Records
from expunge.errors import ExpungeError, NonFiniteLossError, Problem, RunError, UsageError
from expunge.models import head_sizes, load_model
from expunge.paused import PausedRun
from expunge.progress import Progress
from expunge.record import RunRecord
from expunge.retraining import Retraining
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_tokenizer, toy_records

NAMES = ("water", "machine", "music")


class Told(Progress):
    def __init__(self) -> None:
        self.stages: list[str] = []

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Any]:
        self.stages.append(name)
        yield lambda amount: None


def retraining(job: Job, paused: PausedRun | None = None, **changes: Any) -> Retraining:
    rows = toy_records(48, seed=1)
    records = Records(
        tuple(r["id"] for r in rows), tuple((r["text"],) for r in rows), tuple(NAMES.index(r["label"]) for r in rows)
    )
    task = TextClassification(tiny_tokenizer(), 48, NAMES)
    given: dict[str, Any] = {
        "base": str(job.base), "task": task, "retain": task.encode(records),
        "recipe": Recipe(epochs=2.0, learning_rate=1e-3, batch_size=16), "trust_remote_code": False,
        "loaded": lambda: load_model(str(job.base), task.auto_class, where="retrain.base", new_head=head_sizes(NAMES)),
        "paused": paused, "progress": Told(), **changes,
    }  # fmt: skip
    return Retraining(**given)


def weights(model: Any) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.slow
def test_each_seed_gives_the_same_model_there_and_here(job: Job) -> None:
    torch.set_num_threads(1)  # as a task of Ray's has
    here = {seed: weights(model) for seed, model in retraining(job).models((3, 1), "in-process")}
    there = {seed: weights(model) for seed, model in retraining(job).models((3, 1), "ray")}
    assert list(there) == [3, 1]
    for seed, own in here.items():
        assert all(own[name].equal(tensor) for name, tensor in there[seed].items())
    assert not all(here[3][name].equal(tensor) for name, tensor in here[1].items())


@pytest.mark.slow
def test_what_was_kept_is_not_trained_again(job: Job, tmp_path: Path) -> None:
    folder = tmp_path / ".out.run"
    folder.mkdir()
    with_paused = retraining(job, PausedRun(folder, 1e-6, Progress()))
    first = {seed: weights(model) for seed, model in with_paused.models((1,), "in-process")}
    both = {seed: weights(model) for seed, model in with_paused.models((1, 2), "ray")}
    assert isinstance(with_paused.progress, Told)
    assert with_paused.progress.stages[-1] == "retraining without the records (1 models, Ray)"
    assert all(first[1][name].equal(tensor) for name, tensor in both[1].items())


@pytest.mark.slow
def test_what_fails_there_is_told_here(job: Job, tmp_path: Path) -> None:
    with pytest.raises(ExpungeError, match="gone") as caught:
        list(retraining(job, base=str(tmp_path / "gone")).models((1,), "ray"))
    assert "Traceback" not in str(caught.value)


@pytest.mark.slow
def test_from_the_shell(job: Job, tmp_path: Path) -> None:
    more = ["--retrain", "--base", str(job.base), "--recipe", str(job.recipe), "--set", "retrain.seeds=[1,2]"]
    more += ["--set", "training.epochs=0.2", "--set", "training.min_steps=2", "--set", "audit.bootstrap=20"]
    hashes = []
    for engine in ("in-process", "ray"):
        out = tmp_path / engine
        words = ["run", *job.flags(), *more, "--set", f"retrain.engine={engine}", "--out", str(out)]
        assert call(words)[0] == 0
        hashes.append(RunRecord.read(out).models["retrained"])
    assert hashes[0] == hashes[1]


def test_it_is_said_when_ray_is_not_there(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("expunge.suitability.find_spec", lambda name: None)
    words = ["check", *job.flags(), "--retrain", "--base", str(job.base), "--recipe", str(job.recipe)]
    code, _, said = call([*words, "--set", "retrain.engine=ray"])
    assert code == 2
    assert "Ray is not installed" in said
    assert "pip install ray" in said


@pytest.mark.parametrize(
    "error",
    [
        UsageError([Problem("a", "b", "c"), Problem("d", "e", "f")]),
        NonFiniteLossError(3, {"forget": float("inf")}),
        RunError("x"),
    ],
)
def test_errors_that_come_from_another_process_say_the_same(error: ExpungeError) -> None:
    again = pickle.loads(pickle.dumps(error))
    assert type(again) is type(error)
    assert (str(again), vars(again)) == (str(error), vars(error))
