"""Trainings that are no unlearning steps go on where they were too, to the bit: from the base, O3's adapters, SISA's stages."""

from __future__ import annotations

import itertools
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

import pytest

from expunge.config import Recipe, RunConfig
from expunge.errors import DivergedError, RunError
from expunge.fit import fit
from expunge.history.hashes import sha256_of
from expunge.kept_models import kept_model
from expunge.models import weights_sha256
from expunge.o3 import request as o3_request
from expunge.paused import PausedRun, described, folder_of
from expunge.progress import Progress
from expunge.resumable import ResumableTrainer
from expunge.sisa.build import train_sisa
from expunge.sisa.training import Shards
from expunge.tasks.generation import Generation
from expunge.tasks.text_classification import TextClassification
from expunge.testing import byte_tokenizer, tiny_causal, tiny_classifier, tiny_tokenizer, toy_answers, toy_records
from test_interruption import ALWAYS, Notes, _Killed, carried_out, same, small
from test_paused import disk_full_beyond

NAMES = ("water", "machine", "music")


def job(folder: Path, of_tokens: bool) -> tuple[str, Any, Any]:
    """A base model's folder, its task and 20 records."""
    if of_tokens:
        tokenizer, model = byte_tokenizer(), tiny_causal(seed=3)
        task = Generation(tokenizer, 64, (), "{prompt} {answer}")
        encoded = task.encode_texts([(row["prompt"], row["answer"]) for row in toy_answers(20, seed=4)])
    else:
        tokenizer, model = tiny_tokenizer(), tiny_classifier(seed=3)
        task, rows = TextClassification(tokenizer, 48, NAMES), toy_records(20, seed=4)
        encoded = task.encode_texts([(row["text"],) for row in rows], [NAMES.index(row["label"]) for row in rows])
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder), task, encoded


@contextmanager
def killed(monkeypatch: pytest.MonkeyPatch, owner: Any, name: str, call: int) -> Iterator[None]:
    """Within, a function's call of that number, counted from 1, ends all."""
    plain, calls = getattr(owner, name), itertools.count(1)

    def striking(*args: Any, **options: Any) -> Any:
        if next(calls) == call:
            raise _Killed
        return plain(*args, **options)

    with monkeypatch.context() as patched:
        patched.setattr(owner, name, striking)
        with pytest.raises(_Killed):
            yield


@pytest.mark.parametrize("by_length", [False, True], ids=["any order", "by length"])
@pytest.mark.parametrize("of_tokens", [False, True], ids=["texts", "answers"])
def test_fine_tuning_goes_on_to_the_bit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, of_tokens: bool, by_length: bool
) -> None:
    """Three epochs of 5 steps, with dropout and a schedule; ended within an epoch, behind one, and within the last."""
    base, task, encoded = job(tmp_path / "base", of_tokens)
    recipe = Recipe(epochs=3, learning_rate=1e-3, batch_size=4, warmup=0.2, group_by_length=by_length)
    options: dict[str, Any] = {"seed": 7, "label_names": () if of_tokens else NAMES}
    whole = weights_sha256(fit(base, task, encoded, recipe, **options))
    (folder := tmp_path / "run").mkdir()
    kept_run: dict[str, Any] = {"paused": PausedRun(folder, ALWAYS, Progress()), "stage": "retrained-7"}
    done = 0
    for step in (1, 4, 6, 13):
        with killed(monkeypatch, ResumableTrainer, "training_step", step - done):
            fit(base, task, encoded, recipe, **options, **kept_run)
        done = step - 1
        kept = [path.name for path in folder.iterdir()]
        assert kept == ([] if step == 1 else [f"training-retrained-7-{step - 1}"])
    assert described(folder).startswith("the retrained model of seed 7 up to step 12")
    model = fit(
        base, task, encoded, recipe, **options, paused=PausedRun(folder, ALWAYS, Progress()), stage="retrained-7"
    )
    assert weights_sha256(model) == whole
    assert [path.name for path in folder.iterdir()] == ["retrained-7-0"], "its checkpoints are gone"


def test_a_finished_model_is_not_trained_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base, task, encoded = job(tmp_path / "base", False)
    recipe = Recipe(epochs=1, learning_rate=1e-3, batch_size=4)
    (folder := tmp_path / "run").mkdir()
    options: dict[str, Any] = {"seed": 1, "label_names": NAMES, "paused": PausedRun(folder, ALWAYS, Progress())}
    first = weights_sha256(fit(base, task, encoded, recipe, **options))
    monkeypatch.setattr(ResumableTrainer, "train", lambda *args, **kwargs: pytest.fail("it was trained already"))
    assert weights_sha256(fit(base, task, encoded, recipe, **options)) == first
    assert kept_model(options["paused"], "of another name", lambda: pytest.fail("nothing is there")) is None


def interrupted_once(
    monkeypatch: pytest.MonkeyPatch, config: RunConfig, out: Path, owner: Any, name: str, call: int
) -> list[str]:
    """Carry out a run that ends in a function's call of that number; what its folder holds then."""
    with killed(monkeypatch, owner, name, call):
        carried_out(config, out)
    assert not out.exists()
    return sorted(path.name for path in folder_of(out).iterdir() if path.is_dir() and path.name != "tmp")


def goes_on(
    monkeypatch: pytest.MonkeyPatch, config: RunConfig, tmp_path: Path, owner: Any, name: str, call: int
) -> list[str]:
    """The same, then the run again: it ends as one that nobody interrupted. What was kept meanwhile."""
    whole = carried_out(config, tmp_path / "whole" / "erased")
    kept = interrupted_once(monkeypatch, config, tmp_path / "again" / "erased", owner, name, call)
    record = carried_out(config, tmp_path / "again" / "erased")
    assert same(record) == same(whole)
    first, second = (
        {str(f.relative_to(tmp_path / n)): sha256_of(f) for f in (tmp_path / n).rglob("*.safetensors")}
        for n in ("whole", "again")
    )
    assert first == second
    return kept


def test_o3s_adapter_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """9 steps of an adapter, ended in the sixth: the log, the costs and every file are those of one run."""
    sets = {"method.name": "o3", "method.epochs": 3.0, "method.batch_size": 4}
    config = small(tmp_path / "job", "texts", 0).config(**sets)
    kept = goes_on(monkeypatch, config, tmp_path, o3_request, "overlap", 6)
    assert kept == ["training-request-1-5"]
    content = (tmp_path / "whole" / "erased" / "record.json").read_text(encoding="utf-8")
    assert json.loads(content)["training"]["steps"] == 9


@pytest.fixture
def ensemble(tmp_path: Path) -> RunConfig:
    """A request to an ensemble of two shards of two slices that touches all four stages."""
    job = small(tmp_path / "job", "texts", 0)
    config = job.config(**{"method.name": "sisa"})
    tiny_classifier(seed=5).bert.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    train_sisa(
        tmp_path / "base", str(config.data.train), out=tmp_path / "ensemble", recipe=Recipe(epochs=2.0, batch_size=8), shards=2,
        slices=2, labels=NAMES, id="id", salt_file=str(config.privacy.salt_file),
    )  # fmt: skip
    return job.config(**{"method.name": "sisa", "model.path": str(tmp_path / "ensemble")})


@contextmanager
def stages_trained(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[tuple[int, int]]]:
    """Shard and number of each stage that is trained within."""
    trained: list[tuple[int, int]] = []
    plain = Shards._train_stage

    def counted(self: Shards, model: Any, shard: int, stage: int, *args: Any) -> None:
        trained.append((shard, stage))
        plain(self, model, shard, stage, *args)

    with monkeypatch.context() as patched:
        patched.setattr(Shards, "_train_stage", counted)
        yield trained


def test_sisa_does_not_train_a_finished_stage_again(
    ensemble: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = goes_on(monkeypatch, ensemble, tmp_path, Shards, "_train_stage", 4)
    assert kept == ["ensemble-0"]
    interrupted_once(monkeypatch, ensemble, tmp_path / "third" / "erased", Shards, "_train_stage", 4)
    with stages_trained(monkeypatch) as trained:
        carried_out(ensemble, tmp_path / "third" / "erased")
    assert trained == [(1, 2)], "three of four were there"


def test_a_stage_that_cannot_be_read_is_trained_again(
    ensemble: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    carried_out(ensemble, tmp_path / "whole")
    out = tmp_path / "again" / "erased"
    interrupted_once(monkeypatch, ensemble, out, Shards, "_train_stage", 4)
    file = next((folder_of(out) / "ensemble-0").rglob("shard-0/stage-2/*.safetensors"))
    os.truncate(file, file.stat().st_size // 2)
    notes = Notes()
    with stages_trained(monkeypatch) as trained:
        carried_out(ensemble, out, notes)
    assert trained == [(0, 2), (1, 2)]
    assert any("What an earlier process kept cannot be used, and is removed" in note for note in notes.said)
    first, second = ({sha256_of(f) for f in folder.rglob("*.safetensors")} for folder in (tmp_path / "whole", out))
    assert first == second


def test_a_full_disk_leaves_sisas_finished_stages(
    ensemble: RunConfig, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full when the third of four stages is written: two need not be trained again."""
    plain, calls = Shards.write, itertools.count(1)

    def write(self: Shards, model: Any, checkpoint: Path) -> None:
        with disk_full_beyond(20_000) if next(calls) == 3 else nullcontext():
            plain(self, model, checkpoint)

    notes = Notes()
    with monkeypatch.context() as patched:
        patched.setattr(Shards, "write", write)
        with pytest.raises(RunError, match=r"No output was written|writing .* failed"):
            carried_out(ensemble, tmp_path / "out" / "erased", notes)
    assert "the same command goes on from there" in notes.said[-1]
    with stages_trained(monkeypatch) as trained:
        carried_out(ensemble, tmp_path / "out" / "erased")
    assert trained == [(1, 1), (1, 2)]


def test_what_diverged_is_not_kept(tmp_path: Path) -> None:
    """The adapter's first step, of which there is a checkpoint, throws the weights so far that the second has no loss."""
    sets = {"method.name": "o3", "method.learning_rate": 1e30, "method.batch_size": 4}
    notes, out = Notes(), tmp_path / "erased"
    with pytest.raises(DivergedError, match=r"o3: the loss is not finite at step [1-9]"):
        carried_out(small(tmp_path / "job", "texts", 0).config(**sets), out, notes)
    assert not folder_of(out).exists()
    assert not any("goes on" in note for note in notes.said)


def test_retraining_as_a_method_goes_on_to_the_bit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = small(tmp_path / "job", "texts", 0)
    tiny_classifier(seed=4).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "recipe.toml").write_text("epochs = 2\nlearning_rate = 1e-3\nbatch_size = 8\n", encoding="utf-8")
    recipe = {"retrain.base": str(tmp_path / "base"), "retrain.recipe": str(tmp_path / "recipe.toml")}
    config = job.config(**{"method.name": "retrain", **recipe})
    kept = goes_on(monkeypatch, config, tmp_path, ResumableTrainer, "training_step", 7)
    assert kept == ["training-fitted-0-6"]
