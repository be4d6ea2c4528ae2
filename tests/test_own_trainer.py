"""`UnlearnCallback`: the stop rule in a trainer of one's own."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import Trainer, TrainingArguments

from expunge import RunError, UnlearnCallback, UsageError
from expunge.head import head_of
from expunge.scoring import score
from expunge.tiny_jobs import TinyJob, answer_job, tag_job, text_job

ROOT = Path(__file__).parent.parent


class Logs:
    """What the callback asks of a trainer."""

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.control = SimpleNamespace(should_log=True, should_training_stop=False)

    def log(self, row: dict[str, float]) -> None:
        self.rows.append(row)
        self.control.should_log = False  # as transformers' does


def looking(job: TinyJob, trainer: Any, **changes: Any) -> UnlearnCallback:
    settings: dict[str, Any] = {"forget": job.forget, "calibration": job.unseen, "retain": job.retain, **changes}
    return UnlearnCallback(trainer, task=job.task, **settings)


def test_the_example_ends_by_the_rule_and_logs_through_the_trainer(capsys: Any, monkeypatch: Any) -> None:
    monkeypatch.syspath_prepend(ROOT / "examples")
    import own_trainer

    callback = own_trainer.main()
    assert callback.reason.startswith(
        f"stop rule at step {callback.checks[-1].step}: forget records can no longer be told"
    )
    assert callback.checks[0].auc > 0.85, "it had learnt them by heart"
    rows = callback._trainer.state.log_history
    looks = [row for row in rows if "unlearn_auc" in row]
    assert [row["step"] for row in looks] == [check.step for check in callback.checks]
    assert [row["unlearn_auc"] for row in looks] == [check.auc for check in callback.checks]
    # A look at step 20 leaves the trainer's own line of step 20, whose loss it would otherwise miss.
    assert [row["step"] for row in rows if "loss" in row] == list(range(20, callback.checks[-1].step + 1, 20)) != []
    assert "unlearn_auc" in capsys.readouterr().out
    sys.modules.pop("own_trainer")


@pytest.mark.parametrize("make", [text_job, tag_job, answer_job])
def test_it_looks_at_every_task(make: Any) -> None:
    """The AUC of the first look, by hand: how often a forget record's margin is above that of a calibration record.

    Texts are compared within their class where five calibration records have it, sentences and answers with all.
    """
    job, trainer = make(), Logs()
    callback, model = looking(job, trainer), job.model(0)
    callback.on_train_begin(None, SimpleNamespace(global_step=0), trainer.control, model=model)
    head = head_of(model, job.task, job.forget)
    forget, unseen = (score(model, head, records, job.task) for records in (job.forget, job.unseen))
    shares = []
    for place, margin in enumerate(forget.record_margins):
        own = np.full(len(unseen), True)
        if not forget.several_units:
            same = unseen.labels == forget.labels[place]
            own = same if same.sum() >= 5 else own
        others = unseen.record_margins[own]
        shares.append(np.mean((margin > others) + 0.5 * (margin == others)))
    assert trainer.rows[0]["unlearn_auc"] == pytest.approx(np.mean(shares))
    assert callback.passes == pytest.approx((len(job.forget) + len(job.unseen)) / 3)
    assert trainer.control.should_log, "the trainer's own line is still due"


class Plain(Trainer):
    """Ascent on texts, item by item."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        return -model(**inputs).loss


def ascended(folder: Path, **changes: Any) -> tuple[dict[str, torch.Tensor], UnlearnCallback | None]:
    """Weights after six steps up the loss, looked at or not."""
    job = text_job()
    model = job.model(0)
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.1  # a look that drew random numbers would show
    rows = [{"input_ids": job.forget.input_ids[i], "labels": job.forget.labels[i][0]} for i in range(len(job.forget))]

    def collate(items: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = job.task.tokenizer.pad({"input_ids": [item["input_ids"] for item in items]}, return_tensors="pt")
        return {**batch, "labels": torch.tensor([item["labels"] for item in items])}

    args = TrainingArguments(
        str(folder), max_steps=6, per_device_train_batch_size=3, learning_rate=1e-3, report_to="none", disable_tqdm=True,
        save_strategy="no", use_cpu=True, dataloader_pin_memory=False, logging_strategy="no",
    )  # fmt: skip
    trainer = Plain(model, args, train_dataset=rows, data_collator=collate)  # pyright: ignore[reportArgumentType]
    callback = looking(job, trainer, every=2, **changes) if changes else None
    if callback is not None:
        trainer.add_callback(callback)
    trainer.train()
    return {name: weight.detach().clone() for name, weight in model.named_parameters()}, callback


def test_looking_changes_nothing_and_the_best_step_comes_back(tmp_path: Path) -> None:
    plain, _ = ascended(tmp_path)
    looked, watched = ascended(tmp_path, rule="none", restore=False)
    assert all(torch.equal(looked[name], weight) for name, weight in plain.items())
    assert watched is not None
    assert [check.step for check in watched.checks] == [0, 2, 4, 6]
    kept, best = ascended(tmp_path, rule="none")
    assert best is not None
    assert best.kept in (2, 4), "going up the loss for long is worse than for less"
    assert not all(torch.equal(kept[name], weight) for name, weight in plain.items())


def test_a_second_training_begins_anew() -> None:
    job, trainer = text_job(), Logs()
    callback, model = looking(job, trainer, every=5), job.model(0)

    def trained() -> None:
        callback.on_train_begin(None, SimpleNamespace(global_step=0), trainer.control, model=model)
        for step in range(1, 11):
            state = SimpleNamespace(global_step=step, max_steps=10)
            callback.on_step_end(None, state, trainer.control, model=model)
        callback.on_train_end(None, SimpleNamespace(global_step=10), trainer.control, model=model)

    for _ in range(2):
        trained()
        assert [check.step for check in callback.checks] == [0, 5, 10]
    assert len(trainer.rows) == 6


def test_what_cannot_be_used_is_told_at_once(monkeypatch: Any) -> None:
    job, nothing = text_job(), text_job().forget.take([])
    monkeypatch.setenv("RANK", "0")
    monkeypatch.setenv("LOCAL_RANK", "0")
    monkeypatch.setenv("WORLD_SIZE", "2")
    with pytest.raises(UsageError) as told:
        looking(job, Logs(), forget=nothing, calibration=nothing, every=0)
    assert [problem.where.split(", ")[1] for problem in told.value.problems] == [
        "forget", "calibration", "every", "trainer",
    ]  # fmt: skip
    monkeypatch.setenv("WORLD_SIZE", "1")
    for name in ("is_fsdp_enabled", "is_deepspeed_enabled"):
        with pytest.raises(UsageError, match="UnlearnTrainer, which several can share"):
            looking(job, SimpleNamespace(**{name: True}))


def test_it_does_not_begin_in_the_middle() -> None:
    """The original is what later looks are compared with; a checkpoint of a trainer of one's own does not hold it."""
    job, trainer = text_job(), Logs()
    with pytest.raises(RunError, match="cannot begin at step 40"):
        looking(job, trainer).on_train_begin(None, SimpleNamespace(global_step=40), trainer.control, model=job.model(0))
