"""Runs on a small causal language model that has learnt its records by heart."""

from __future__ import annotations

import dataclasses
import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional

import expunge
from expunge.config import AuditConfig, Recipe, TrainingConfig
from expunge.errors import RunError, UsageError
from expunge.fit import arguments, train
from expunge.head import head_of
from expunge.methods.gradient_difference import GradientDifference
from expunge.methods.npo import NPO
from expunge.methods.rmu import RMU
from expunge.methods.undial import UNDIAL
from expunge.models import load_model, weights_sha256
from expunge.tasks.base import Encoded
from expunge.tasks.generation import Generation
from expunge.testing import byte_tokenizer, tiny_causal, toy_answers
from expunge.token_reference import TokenReference
from expunge.trainer import UnlearnTrainer

ROWS = toy_answers(48)
HELD = [
    {**row, "id": f"h-{row['id']}", "prompt": row["prompt"].replace("Code", "Kode")} for row in toy_answers(80, seed=9)
]
FORGET = [row["id"] for row in ROWS[:8]]
TASK = Generation(byte_tokenizer(), 64, tuple(map(str, range(259))))


def encoded(rows: list[dict[str, str]]) -> Encoded:
    return TASK.encode_texts([(row["prompt"], row["answer"]) for row in rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers that knows the codes."""
    place = tmp_path_factory.mktemp("causal") / "model"
    recipe = Recipe(epochs=60.0, learning_rate=5e-3, batch_size=16)
    model = train(tiny_causal(), TASK, encoded(ROWS), recipe, seed=0)
    model.save_pretrained(place)
    TASK.tokenizer.save_pretrained(place)
    return place


def run(folder: Path, method: Any, **changes: Any) -> expunge.Erased:
    settings = TrainingConfig(**{"epochs": 6.0, "min_steps": 20, "batch_size": 4, "learning_rate": 1e-3, **changes})
    audit = AuditConfig(audits=("utility", "membership", "retained-side"), bootstrap=50)
    return expunge.unlearn(
        str(folder), ROWS, method, forget=FORGET, held_out=HELD, id="id", training=settings, audit=audit
    )


@pytest.mark.parametrize("changes", [{}, {"lora_rank": 8, "learning_rate": 5e-3}], ids=["all weights", "lora"])
def test_records_are_forgotten_and_the_rest_is_known(folder: Path, changes: dict[str, Any]) -> None:
    erased = run(folder, NPO(), **changes)
    record = erased.record
    name = "membership AUC (loss or margin)"
    before, after = (record.find(name, model, "forget vs evaluation") for model in ("original", "unlearned"))
    assert before.value > 0.95
    assert abs(after.value - 0.5) < abs(before.value - 0.5) / 2
    kept = record.find("accuracy", "unlearned", "retain").value
    assert kept > record.find("accuracy", "unlearned", "forget").value
    assert erased.generate([ROWS[0]["prompt"]], tokens=16)[0] != ROWS[0]["answer"]
    logp = erased.score([(ROWS[20]["prompt"], ROWS[20]["answer"])])[0]
    assert logp.shape == (len(ROWS[20]["answer"]) + 1,), "byte tokens, and the end"
    assert (logp <= 0).all()
    assert not hasattr(erased.model, "peft_config")
    assert all(row["answer"] not in record.to_json() for row in ROWS[:8])


@pytest.mark.parametrize(
    "name", ["simnpo", "dpo", "altpo", "undial", "ceu", "wga", "pdu", "deepcut", "contrastive", "scrub"]
)
def test_every_method_runs_and_forgets_something(folder: Path, name: str) -> None:
    record = run(folder, name).record
    before, after = (record.find("accuracy", model, "forget").value for model in ("original", "unlearned"))
    moved = [row for row in record.training["history"] if np.isfinite(row["loss"])]
    assert len(moved) == len(record.training["history"]) > 0
    assert after <= before
    assert record.cost["training"] > 0


def test_stresses_and_probes_work_on_tokens(folder: Path) -> None:
    """int8, relearning, other wordings and the layer probe, beside what a run measures by itself."""
    names = ("int8", "relearning", "reworded", "latent-probe", "answers", "token-membership")
    erased = expunge.unlearn(
        str(folder), ROWS, "npo", forget=[row["id"] for row in ROWS[:20]], held_out=HELD * 1, id="id",
        training=TrainingConfig(epochs=2.0, min_steps=4, batch_size=8, learning_rate=1e-3),
        audit=AuditConfig(audits=names, bootstrap=20),
    )  # fmt: skip
    measured = {m.audit for m in erased.record.measurements}
    assert {"answers", "token-membership", "int8", "relearning", "reworded"} <= measured | set(
        erased.record.not_measured
    )
    assert {"answers", "token-membership", "int8"} <= measured


def test_methods_for_classes_alone_are_refused_with_those_that_work(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"random-labels does not work for a causal language model\. These do: .*npo"):
        run(folder, "random-labels")
    with pytest.raises(UsageError, match=r"7 is not allowed\. The model has the layers 1 to 2"):
        run(folder, RMU())


def test_from_the_shell_with_a_file_and_without_a_config(folder: Path, tmp_path: Path) -> None:
    from typer.testing import CliRunner

    from expunge.cli import app

    for name, rows in (("train", ROWS), ("held", HELD)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "ids.txt").write_text("\n".join(FORGET), encoding="utf-8")
    result = CliRunner().invoke(app, [
        "run", "--model", str(folder), "--data", str(tmp_path / "train.jsonl"), "--held-out", str(tmp_path / "held.jsonl"),
        "--forget", str(tmp_path / "ids.txt"), "--id", "id", "--method", "npo", "--out", str(tmp_path / "out"),
        "--set", "training.learning_rate=1e-3", "--set", "audit.bootstrap=50",
    ])  # fmt: skip
    assert result.exit_code == 0, result.output
    assert "token accuracy, forget" in result.output
    assert (tmp_path / "out" / "report.html").is_file()
    assert load_model(str(tmp_path / "out"), TASK.auto_class, where="x") is not None
    saved = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "out").glob("*.[jh][st]*[nl]"))
    assert not any(row["answer"] in saved for row in ROWS[:8])
    tiny_causal().save_pretrained(tmp_path / "base")
    again = CliRunner().invoke(app, [
        "audit", str(tmp_path / "out"), "--out", str(tmp_path / "again"), "--audit", "gradient-norm", "--audit", "reference",
        "--base", str(tmp_path / "base"),
    ])  # fmt: skip
    assert again.exit_code == 0, again.output
    measured = {m["audit"] for m in json.loads((tmp_path / "again" / "record.json").read_text())["measurements"]}
    assert {"utility", "answers", "gradient-norm", "reference"} <= measured, "beside those of the run"


def own_model(folder: Path) -> Any:
    return load_model(str(folder), TASK.auto_class, where="x")


def trainer(model: Any, method: Any, place: Path, steps: int = 4, **options: Any) -> UnlearnTrainer:
    args = arguments(str(place), 0, TrainingConfig(), per_device_train_batch_size=4, max_steps=steps)
    return UnlearnTrainer(
        model, args, method=method, task=TASK, forget=encoded(ROWS[:8]), retain=encoded(ROWS[8:]), **options
    )


@pytest.mark.parametrize(
    "method", [NPO(retain="kl"), UNDIAL(), GradientDifference(retain="kl")], ids=["npo", "undial", "kl"]
)
def test_a_kept_reference_is_the_live_one(folder: Path, tmp_path: Path, method: Any) -> None:
    """Losses of the first step after the model has moved, from kept outputs and from a second model side by side."""
    live = own_model(folder).eval()
    model = own_model(folder)
    found = trainer(model, method, tmp_path)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn_like(parameter), alpha=0.02)
    parts = found.train_dataset[0]
    outputs = found._forward(model.eval(), parts)
    forget, retain = (found._gatherer.scores(group, [parts], [outputs]) for group in ("forget", "retain"))

    def logits(of: Any, batch: Any) -> torch.Tensor:
        return batch.select(of(**batch.inputs).logits).detach()

    for scores, batch in ((forget, parts[0]), (retain, parts[1])):
        whole = logits(live, batch).log_softmax(-1)
        own = whole.gather(1, batch.labels[:, None]).squeeze(1)
        if f"{scores._group}.reference_logp" in method.reads:
            assert torch.allclose(scores.reference_logp, own, atol=1e-5)
        if f"{scores._group}.reference" in method.reads:
            assert torch.allclose(scores.reference.log_softmax(-1), whole, atol=1e-5)
            now = logits(model, batch).log_softmax(-1)
            assert float(scores.kl().detach()) == pytest.approx(
                float(functional.kl_div(now, whole, reduction="none", log_target=True).sum(-1).mean()), abs=1e-5
            )


def test_kept_outputs_have_another_name_when_anything_else_is_other(folder: Path, tmp_path: Path) -> None:
    model, records = own_model(folder), {"forget": encoded(ROWS[:6])}
    head = head_of(model, TASK, records["forget"])

    def kept(positions: list[int], whole: bool = False) -> float:
        return TokenReference(model, head, TASK, records, {"forget": positions}, tmp_path, whole=whole).passes

    assert kept([0, 1, 2]) == 1.0, "three forward passes"
    assert kept([0, 1, 2]) == 0.0, "read, not made"
    assert kept([0, 1, 3]) == 1.0
    assert kept([0, 1, 2], whole=True) == 1.0
    for file in tmp_path.glob("*.safetensors"):
        os.truncate(file, file.stat().st_size // 2)
    assert kept([0, 1, 2]) == 1.0, "half a file is made again"
    with torch.no_grad():
        next(iter(model.parameters()))[0, 0] += 1e-3
    assert kept([0, 1, 2]) == 1.0, "another model"
    (tmp_path / "file").touch()
    with pytest.raises(RunError, match=r"keeping what the original says of the records in .* failed .*training\.cache"):
        TokenReference(model, head, TASK, records, {"forget": [0]}, tmp_path / "file", whole=False)


def test_rmu_runs_no_further_than_its_layer_and_changes_no_other(folder: Path, tmp_path: Path) -> None:
    model, before = own_model(folder), own_model(folder)
    ran: list[int] = []
    for number, layer in enumerate(model.model.layers, start=1):
        layer.register_forward_hook(lambda *_, number=number: ran.append(number))
    found = trainer(model, RMU(layer=1, retain_weight=1.0), tmp_path)
    ran.clear()  # the head was looked for with whole passes
    found.train()
    assert set(ran) == {1}
    old = dict(before.named_parameters())
    changed = {name for name, p in model.named_parameters() if not torch.equal(p, old[name])}
    assert changed
    assert all(name.startswith("model.layers.0.") for name in changed)
    assert found.example_passes == pytest.approx(4 * (4 + 4) / 2 + 16 / 3), "half the layers; retained states once"


def test_no_array_over_all_units_and_the_vocabulary(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With room for the logits of three units, no part is larger, and loss and gradient are those of the whole."""
    from expunge import token_head, token_sums

    def gradient() -> tuple[float, dict[str, torch.Tensor]]:
        model = own_model(folder).double()
        found = trainer(model, NPO(), folder.parent / "args")
        found._step_loss([found.train_dataset[0]], [found._forward(model, found.train_dataset[0])]).backward()
        return found.history[-1]["loss"], {n: p.grad for n, p in model.named_parameters()}

    whole, of_whole = gradient()
    seen: list[int] = []
    original = token_sums._logits

    def watched(head: Any, hidden: torch.Tensor) -> torch.Tensor:
        seen.append(len(hidden))
        return original(head, hidden)

    monkeypatch.setattr(token_head, "_ENTRIES", 3 * 259)
    monkeypatch.setattr(token_sums, "_logits", watched)
    part, of_part = gradient()
    assert max(seen) == 3
    assert len(seen) > 8, "the forget records' and the retained ones'"
    assert part == pytest.approx(whole, abs=1e-9)
    assert all(torch.allclose(of_whole[name], of_part[name], atol=1e-9) for name in of_whole)


def test_the_model_given_is_left_as_it_was(folder: Path) -> None:
    model = own_model(folder)
    before = weights_sha256(model)
    settings = TrainingConfig(epochs=2.0, min_steps=4, batch_size=4, lora_rank=4)
    expunge.unlearn(
        model, ROWS, "npo", forget=FORGET, held_out=HELD, id="id", tokenizer=TASK.tokenizer, training=settings,
        audit=AuditConfig(audits=("utility",), bootstrap=20),
    )  # fmt: skip
    assert weights_sha256(model) == before
    assert dataclasses.is_dataclass(settings)
