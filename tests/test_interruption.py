"""A run that is interrupted goes on where it was, to the bit; nothing it keeps holds a record."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from safetensors import safe_open

from expunge.checks import check
from expunge.config import RunConfig, TrainingConfig
from expunge.erase import execute
from expunge.errors import UsageError
from expunge.fingerprint import fingerprint
from expunge.fit import arguments
from expunge.history.hashes import sha256_of
from expunge.methods.deepcut import DeepCUT
from expunge.methods.scrub import Scrub
from expunge.models import weights_sha256
from expunge.paused import folder_of, opened
from expunge.progress import Progress
from expunge.record import RunRecord
from expunge.tasks.text_classification import TextClassification
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
from expunge.trainer import UnlearnTrainer

STEPS = 8
ALWAYS = 1e-9  # seconds between checkpoints: one after every step


@pytest.fixture(autouse=True)
def _no_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drawing the report takes longer than all else here, and says nothing of weights."""
    monkeypatch.setattr("expunge.report.render", lambda *args: "")


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


def small(folder: Path, task: str, rank: int, *, steps: int = STEPS, seed: int = 3) -> Small:
    folder.mkdir(parents=True, exist_ok=True)
    rows, model, tokenizer = {
        "texts": (toy_records, tiny_classifier, tiny_tokenizer),
        "tagger": (toy_sentences, tiny_tagger, tiny_tokenizer),
        "answers": (toy_answers, tiny_causal, byte_tokenizer),
    }[task]
    held = [{**row, "id": f"held {row['id']}"} for row in rows(88, seed=1)[48:]]
    for name, made in (("train", rows(48, seed=1)), ("held", held)):
        (folder / f"{name}.jsonl").write_text("\n".join(map(json.dumps, made)), encoding="utf-8")
    model(seed=seed).save_pretrained(folder / "model")
    tokenizer().save_pretrained(folder / "model")
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
        "audit": {"bootstrap": 20, "audits": ["utility"]},
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
    plain = UnlearnTrainer._loss

    def striking(self: UnlearnTrainer, *args: Any) -> Any:
        if self.state.global_step == step - 1:
            raise _Killed
        return plain(self, *args)

    monkeypatch.setattr(UnlearnTrainer, "_loss", striking)
    return lambda: monkeypatch.setattr(UnlearnTrainer, "_loss", plain)


BACK = {"training.rewind_first": 0.5, "retrain.base": "base"}
CASES = {
    "deepcut, texts, all weights": ("texts", 0, {}),
    "deepcut, sentences, low rank": ("tagger", 4, {}),
    # the original's outputs are taken batch by batch as records come up; two random draws a step
    "scrub, accumulated, a schedule": (
        "texts",
        0,
        {"method.name": "scrub", "training.accumulation": 2, "training.scheduler": "cosine", "training.warmup": 0.3},
    ),
    # masks over gradients, made by a backward pass before the first step
    "salun, masks, half precision": ("texts", 0, {"method.name": "salun", "training.precision": "bfloat16"}),
    # a state that every step changes, and what the original says of tokens
    "pdu, answers, low rank": ("answers", 4, {"method.name": "pdu", "method.retain": "kl"}),
    # weights under an adapter that were moved before the first step
    "npo, answers, low rank, from the way back": ("answers", 4, {"method.name": "npo", **BACK}),
    "deepcut, texts, all weights, from the way back": ("texts", 0, BACK),
}


@pytest.mark.parametrize(("task", "rank", "sets"), [*CASES.values()], ids=[*CASES])
def test_an_interrupted_run_ends_as_one_that_was_not(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, task: str, rank: int, sets: dict[str, Any]
) -> None:
    """Weights to the bit; so are the checks, the step that was kept, the loss of every step, the costs and the figures."""
    if "retrain.base" in sets:
        small(tmp_path / "base", task, rank, seed=4)
        sets = {**sets, "retrain.base": str(tmp_path / "base" / "model")}
    config = small(tmp_path / "job", task, rank).config(**sets)
    whole = carried_out(config, tmp_path / "whole" / "erased")
    assert len(whole.training["checks"]) > 3
    out = tmp_path / "outputs" / "erased"
    for step in (1, 8):  # before any checkpoint but that of step 0; and again, having gone on from it
        undo = struck(monkeypatch, step)
        with pytest.raises(_Killed):
            carried_out(config, out)
        undo()
        assert not out.exists()
        assert folder_of(out).stat().st_mode & 0o777 == 0o700
        assert [path.name for path in folder_of(out).glob("checkpoint-*")] == [f"checkpoint-{step - 1}"]
    notes = Notes()
    record = carried_out(config, out, notes)
    assert "training up to step 7" in notes.said[0]
    assert weights(out) == weights(tmp_path / "whole" / "erased")
    assert same(record) == same(whole)
    assert os.listdir(out.parent) == ["erased"], "nothing is left but the output"


def interrupted(config: RunConfig, out: Path, monkeypatch: pytest.MonkeyPatch, step: int = 5) -> Path:
    """The folder that a run leaves which ended in that step."""
    undo = struck(monkeypatch, step)
    with pytest.raises(_Killed):
        carried_out(config, out)
    undo()
    return folder_of(out)


def test_costs_are_whole_where_a_killed_run_had_kept_no_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What the original says of the records lies there already: it is made again, or its cost would be missing."""
    sets = {"method.name": "npo", "training.checkpoint_every": 3600.0}
    config = small(tmp_path / "job", "answers", 0).config(**sets)
    whole = carried_out(config, tmp_path / "whole" / "erased")
    out = tmp_path / "outputs" / "erased"
    with monkeypatch.context() as patch:
        patch.setattr("expunge.paused.shutil.rmtree", lambda *args, **options: None)  # as SIGKILL leaves it
        interrupted(config, out, patch)
    assert list((folder_of(out) / "reference").iterdir())
    assert same(carried_out(config, out)) == same(whole)


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small(tmp_path_factory.mktemp("texts"), "texts", 0)


@pytest.fixture(scope="module")
def whole(texts: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the run leaves that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole") / "erased"
    carried_out(texts.config(), out)
    return out


def test_nothing_kept_holds_a_record_or_an_id(texts: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither as text nor as tokens: what tensors hold beside weights are the random state and figures."""
    config = texts.config(**{"method.name": "scrub"})
    kept = interrupted(config, tmp_path / "erased", monkeypatch)
    prepared = check(config)
    secret = {*prepared.train.ids, *(text for row in prepared.train.texts for text in row)}
    for file in (file for file in kept.rglob("*") if file.is_file()):
        content = file.read_bytes()
        assert not [word for word in secret if word.encode() in content], file
    with safe_open(kept / "checkpoint-4" / "state.safetensors", framework="pt") as stored:
        whole_numbers = {name for name in stored.keys() if not stored.get_tensor(name).is_floating_point()}  # noqa: SIM118
    assert whole_numbers <= {
        "random/cpu", "method/steps_per_pass", "weights/bert.embeddings.position_ids", "reference/forget/positions",
        "reference/retain/positions", "look/foresight/read",
    }  # fmt: skip


def test_a_checkpoint_cut_off_or_changed_is_told_and_an_older_one_taken(
    texts: Small, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "erased"
    monkeypatch.setattr("expunge.paused.shutil.rmtree", lambda *args, **kwargs: None)  # older ones stay
    kept = interrupted(texts.config(), out, monkeypatch)
    monkeypatch.undo()
    assert sorted(path.name for path in kept.glob("checkpoint-*")) == [f"checkpoint-{step}" for step in range(5)]
    tensors, values = kept / "checkpoint-4" / "state.safetensors", kept / "checkpoint-3" / "state.json"
    os.truncate(tensors, tensors.stat().st_size // 2)
    values.write_text(values.read_text(encoding="utf-8")[:100], encoding="utf-8")
    changed = kept / "checkpoint-2" / "state.safetensors"
    content = bytearray(changed.read_bytes())
    content[-1] ^= 1
    changed.write_bytes(content)
    notes = Notes()
    carried_out(texts.config(), out, notes)
    told = [note for note in notes.said if note.startswith("What an earlier process kept cannot be used")]
    assert [f"checkpoint-{step}" in note for step, note in zip((4, 3, 2), told, strict=True)] == [True] * 3
    assert weights(out) == weights(whole)


def test_other_settings_data_or_weights_do_not_go_on_with_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Refused by name, with both ways out; what decides nothing, such as how often checkpoints are kept, may change."""
    job, out = small(tmp_path / "job", "texts", 0), tmp_path / "erased"
    interrupted(job.config(), out, monkeypatch)

    def refused(**sets: Any) -> str:
        with pytest.raises(UsageError) as caught:
            carried_out(job.config(**sets), out)
        return str(caught.value)

    said = refused(**{"training.learning_rate": 2e-3, "seed": 1})
    assert "differs from it in: seed, training." in said
    assert f"expunge clean {out}" in said
    assert "Name another folder" in said
    train = tmp_path / "job" / "train.jsonl"
    before = train.read_text(encoding="utf-8")
    train.write_text(before.replace("w1 ", "w2 "), encoding="utf-8")
    assert "differs from it in: data." in refused()
    train.write_text(before, encoding="utf-8")
    _replaced(tmp_path / "job" / "model", seed=4)  # neither names, sizes nor times tell
    assert "differs from it in: weights of the model." in refused()
    assert (folder_of(out) / "checkpoint-4").is_dir(), "who is refused loses nothing"
    _replaced(tmp_path / "job" / "model", seed=3)
    assert carried_out(job.config(**{"training.checkpoint_every": 60.0}), out).training["steps"] == STEPS


def _replaced(model: Path, seed: int) -> None:
    times = {file: file.stat().st_mtime_ns for file in model.iterdir()}
    tiny_classifier(seed=seed).save_pretrained(model)
    for file, time in times.items():
        os.utime(file, ns=(time, time))


def test_models_that_are_finished_are_not_made_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that ends while it retrains has its unlearned model and the retrained ones so far."""
    job = small(tmp_path / "job", "texts", 0)
    tiny_classifier(seed=4).save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    (tmp_path / "recipe.toml").write_text("epochs = 1\nlearning_rate = 1e-3\n", encoding="utf-8")
    sets = {
        "retrain.enabled": True, "retrain.base": str(tmp_path / "base"), "retrain.seeds": [1, 2],
        "retrain.recipe": str(tmp_path / "recipe.toml"),
    }  # fmt: skip
    config, made = job.config(**sets), []
    uninterrupted = carried_out(config, tmp_path / "uninterrupted")
    from expunge import fit

    plain = fit.train

    def train(*args: Any, seed: int, **options: Any) -> Any:
        made.append(seed)
        if made == [1, 2]:
            raise _Killed
        return plain(*args, seed=seed, **options)

    monkeypatch.setattr(fit, "train", train)
    with pytest.raises(_Killed):
        carried_out(config, tmp_path / "erased")
    assert sorted(p.name for p in folder_of(tmp_path / "erased").glob("*-0")) == ["retrained-1-0", "unlearned-0"]
    notes = Notes()
    with monkeypatch.context() as patched:
        patched.setattr(UnlearnTrainer, "train", lambda *args, **kwargs: pytest.fail("it was trained already"))
        record = carried_out(config, tmp_path / "erased", notes)
    assert made == [1, 2, 2]
    assert "the retrained model of seed 1; the unlearned model" in notes.said[0]
    assert same(record) == same(uninterrupted)
    assert weights(tmp_path / "erased") == weights(tmp_path / "uninterrupted")


def test_the_trainers_own_checkpoints_are_whole_and_hold_no_pickle_that_is_read(tmp_path: Path) -> None:
    """`save_steps` and `resume_from_checkpoint` of transformers, with a method that has a reference and draws of dropout."""
    names = ("water", "machine", "music")
    task = TextClassification(tiny_tokenizer(), 48, names)
    rows = toy_records(60, seed=4)
    encoded = task.encode_texts([(row["text"],) for row in rows], [names.index(row["label"]) for row in rows])

    def trainer(method: Any) -> UnlearnTrainer:
        args = arguments(
            str(tmp_path), 3, TrainingConfig(), max_steps=6, per_device_train_batch_size=2, gradient_accumulation_steps=2,
        )  # fmt: skip
        args.save_strategy, args.save_steps = "steps", 4
        return UnlearnTrainer(
            tiny_classifier(seed=3), args, method=method, task=task, forget=encoded.take(range(9)),
            retain=encoded.take(range(9, 60)),
        )  # fmt: skip

    for method in (DeepCUT(), Scrub()):
        whole = trainer(method)
        whole.train()
        again = trainer(method)
        again.train(resume_from_checkpoint=str(tmp_path / "checkpoint-4"))
        assert weights_sha256(again.model) == weights_sha256(whole.model)
        assert again.history == whole.history
        assert again.example_passes == whole.example_passes
        pickles = [
            path.name for path in (tmp_path / "checkpoint-4").iterdir() if path.suffix in (".pt", ".pth", ".bin")
        ]
        assert pickles == ["training_args.bin"], "transformers writes it, and nobody reads it"
