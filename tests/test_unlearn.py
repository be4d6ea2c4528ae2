"""The front door from Python, on objects people already have."""

from __future__ import annotations

import copy
from pathlib import Path

import datasets
import numpy as np
import pandas
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer

from conftest import Job
from expunge import AuditConfig, DeepCUT, RequestConfig, StopConfig, TrainingConfig, UsageError, unlearn
from expunge.models import weights_sha256
from expunge.summary import warnings

QUICK = {
    "training": TrainingConfig(min_steps=12, epochs=1.0, learning_rate=2e-3),
    "audit": AuditConfig(bootstrap=50),
    "text": "text",
    "id": "id",
}


def read(path: Path) -> pandas.DataFrame:
    return pandas.read_csv(path, dtype=str)


@pytest.fixture(scope="module")
def objects(job: Job):
    """Model, tokenizer, training Dataset, held-out DataFrame, ids."""
    model = AutoModelForSequenceClassification.from_pretrained(job.model)
    tokenizer = AutoTokenizer.from_pretrained(job.model)
    train = datasets.Dataset.from_pandas(read(job.train))
    return model, tokenizer, train, read(job.held_out), job.ids.read_text(encoding="utf-8").split()


@pytest.fixture(scope="module")
def erased(objects):
    model, tokenizer, train, held_out, ids = objects
    before = copy.deepcopy(model.state_dict())
    training = model.training
    erased = unlearn(model, train, DeepCUT(), forget=ids, held_out=held_out, tokenizer=tokenizer, **QUICK)
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert model.training is training
    return erased


def test_objects_in_five_lines(erased, objects, tmp_path: Path) -> None:
    assert erased.record.data["forget"] == 24
    assert weights_sha256(erased.model) == erased.record.models["unlearned"]["sha256"]
    assert weights_sha256(objects[0]) == erased.record.models["original"]["sha256"]
    erased.save(str(tmp_path / "erased"))
    again = AutoModelForSequenceClassification.from_pretrained(tmp_path / "erased")
    assert weights_sha256(again) == weights_sha256(erased.model)


def test_scores_are_probabilities(erased) -> None:
    texts = ["river w1", "engine w2", "violin"]
    found = erased.score(texts)
    assert found.shape == (3, 3)
    np.testing.assert_allclose(found.sum(axis=1), 1, atol=1e-6)
    inputs = erased.prepared.task.tokenizer(texts, padding=True, return_tensors="pt")
    with torch.no_grad():
        wanted = erased.model(**inputs).logits.softmax(-1).numpy()
    np.testing.assert_allclose(found, wanted, atol=1e-5)


def test_paths_and_objects_give_the_same_model(erased, job: Job, objects) -> None:
    by_path = unlearn(str(job.model), str(job.train), "deepcut", forget=objects[4], held_out=str(job.held_out), **QUICK)
    assert weights_sha256(by_path.model) == weights_sha256(erased.model)


def test_more_can_be_forgotten_next(erased) -> None:
    first = {erased.prepared.train.ids[i] for i in erased.prepared.request.forget}
    following = [i for i in erased.prepared.train.ids if i not in first][:10]
    second = erased.forget_next(following)
    assert second.record.data["forget"] == 10
    assert second.record.data["train"] == 240
    assert second.record.data["retain"] == 240 - 24 - 10, "what was forgotten before is out of retain"
    retained = {second.prepared.train.ids[i] for i in second.prepared.request.retain}
    assert not retained & {*first, *following}
    assert second.record.models["original"]["sha256"] == erased.record.models["unlearned"]["sha256"]
    with pytest.raises(UsageError, match=r"1 of the requested records was erased from this model before \(request 1\)"):
        second.forget_next([next(iter(first))])


def test_a_request_by_rows_where_there_are_no_ids(job: Job, objects, tmp_path: Path) -> None:
    from expunge.checks import check
    from expunge.config import RunConfig

    rows = read(job.train).head(3).drop(columns="id")
    rows.to_csv(tmp_path / "forget.csv", index=False)
    values = {
        "model": {"path": str(job.model)},
        "data": {"train": str(job.train), "held_out": str(job.held_out)},
        "request": {"file": str(tmp_path / "forget.csv")},
        "privacy": {"salt_file": str(job.salt)},
    }
    prepared = check(RunConfig.from_dict(values))
    assert prepared.request.forget == (0, 1, 2)
    assert all(i.endswith("-1") for i in prepared.train.ids[:3])


def test_a_calibration_file_of_its_own(job: Job, objects) -> None:
    from expunge.checks import Inputs, check
    from expunge.config import RunConfig

    model, tokenizer, train, held_out, ids = objects
    inputs = Inputs(model, tokenizer, train, held_out.head(50), held_out.tail(30), ids)
    prepared = check(RunConfig.from_dict({"data": {"id": "id"}}), inputs)
    assert (len(prepared.evaluation), len(prepared.calibration), prepared.halved) == (50, 30, False)
    with pytest.raises(UsageError, match="10 calibration records are also in data"):
        check(
            RunConfig.from_dict({"data": {"id": "id"}}),
            Inputs(model, tokenizer, train, held_out.head(50), held_out[40:80], ids),
        )
    dropping = RunConfig.from_dict({"data": {"id": "id", "overlap": "drop"}})
    found = check(dropping, Inputs(model, tokenizer, train, held_out.head(50), held_out[40:80], ids))
    assert (len(found.evaluation), len(found.calibration), found.dropped) == (50, 30, 10)


def test_held_out_records_found_in_training_can_be_dropped(job: Job, objects) -> None:
    from expunge.checks import Inputs, check
    from expunge.config import RunConfig

    model, tokenizer, train, held_out, ids = objects
    mixed = pandas.concat([held_out.head(60), read(job.train).head(4)])
    config = RunConfig.from_dict({"data": {"id": "id", "overlap": "drop"}})
    prepared = check(config, Inputs(model, tokenizer, train, mixed, None, ids))
    assert prepared.dropped == 4
    assert len(prepared.calibration) + len(prepared.evaluation) == 60


def test_a_bfloat16_model_stays_one(objects) -> None:
    model, tokenizer, train, held_out, ids = objects
    small = copy.deepcopy(model).to(torch.bfloat16)
    found = unlearn(small, train, forget=ids, held_out=held_out, tokenizer=tokenizer, **QUICK)
    assert next(found.model.parameters()).dtype == torch.bfloat16
    assert weights_sha256(found.model) == found.record.models["unlearned"]["sha256"]


def test_the_stop_rule_keeps_the_step_it_names(objects) -> None:
    model, tokenizer, train, held_out, ids = objects
    found = unlearn(model, train, forget=ids, held_out=held_out, tokenizer=tokenizer, stop=StopConfig(every=3), **QUICK)
    log = found.record.training
    kept = next(check for check in log["checks"] if check["step"] == log["kept_step"])
    accuracy = found.record.find("accuracy", "unlearned", "forget")
    assert accuracy is not None
    assert accuracy.value == kept["forget"] > 0, "the model handed back is the one of that check"


def test_a_few_records_are_looked_at_on_the_way_unless_told_when(objects) -> None:
    """One step a pass: what a tenth of the run pays for is a look behind the last one."""
    model, tokenizer, train, held_out, ids = objects

    def looked(**stop: int) -> list[int]:
        training = TrainingConfig(epochs=10.0, min_steps=1, learning_rate=2e-3, batch_size=6)
        found = unlearn(
            model, train, "gradient-ascent", forget=ids[:6], held_out=held_out, tokenizer=tokenizer, text="text", id="id",
            training=training, stop=StopConfig(**stop), audit=AuditConfig(bootstrap=20),
        )  # fmt: skip
        return [check["step"] for check in found.record.training["checks"]]

    on_the_way = looked()
    assert len(on_the_way) <= 4
    assert 1 < on_the_way[1] <= on_the_way[-1] < 10, "a look on the way ends it"
    assert looked(every=10) == [0, 10]


def test_a_single_record_can_be_forgotten(objects) -> None:
    model, tokenizer, train, held_out, ids = objects
    gentle = {**QUICK, "training": TrainingConfig(min_steps=10, learning_rate=1e-4), "stop": StopConfig(every=1)}
    found = unlearn(model, train, forget=ids[0], held_out=held_out, tokenizer=tokenizer, **gentle)
    assert found.record.data["forget"] == 1
    assert len(found.record.records) == 1
    assert found.record.models["unlearned"] != found.record.models["original"]
    assert found.record.verdict["outcome"] == "no power"


def test_bfloat16_arithmetic_leaves_a_plain_model(objects, job: Job) -> None:
    model, tokenizer, train, held_out, ids = objects
    quick = {**QUICK, "training": TrainingConfig(min_steps=6, epochs=1.0, learning_rate=5e-4, precision="bfloat16")}
    quick["stop"] = StopConfig(every=2)
    found = unlearn(model, train, forget=ids, held_out=held_out, tokenizer=tokenizer, **quick)
    assert next(found.model.parameters()).dtype == torch.float32
    assert found.model(torch.tensor([[2, 5, 3]])).logits.dtype == torch.float32
    assert "_original_forward" not in vars(found.model), "no autocast is left around it"
    assert weights_sha256(found.model) != weights_sha256(model)


def test_nothing_of_the_run_sticks_to_what_is_saved(objects, erased, tmp_path: Path) -> None:
    """Truncation is a state of the tokenizer, and the trainer changes the config: neither is saved."""
    model, tokenizer, *_ = objects
    erased.save(tmp_path / "erased")
    tokenizer.save_pretrained(tmp_path / "before")
    assert (tmp_path / "erased" / "tokenizer.json").read_bytes() == (
        tmp_path / "before" / "tokenizer.json"
    ).read_bytes()
    changed = {k for k, v in erased.model.config.to_dict().items() if v != model.config.to_dict().get(k)}
    assert changed <= {"_name_or_path"}


def test_a_file_of_ids_and_numbers_as_ids(objects, job: Job) -> None:
    model, tokenizer, train, held_out, ids = objects
    found = unlearn(model, train, forget=job.ids, held_out=held_out, tokenizer=tokenizer, **QUICK)
    assert found.record.data["forget"] == len(ids)
    numbered = read(job.train).assign(id=range(240))
    found = unlearn(model, numbered, forget=[3, 5], held_out=held_out, tokenizer=tokenizer, **QUICK)
    assert [found.prepared.train.ids[i] for i in found.prepared.request.forget] == ["3", "5"]


def test_a_list_of_nothing_and_a_number_of_a_table_are_taken_as_meant(objects, job: Job) -> None:
    model, tokenizer, train, held_out, _ = objects
    numbered = train.remove_columns("id").add_column("id", list(range(len(train))))
    erased = unlearn(
        model,
        numbered,
        "gradient-ascent",
        forget=np.int64(3),
        held_out=held_out,
        tokenizer=tokenizer,
        past_records=[],
        **QUICK,
    )
    assert erased.record.data["forget"] == 1
    with pytest.raises(UsageError) as refused:
        unlearn(str(job.model), train, forget=["x"], held_out=held_out, retrained="~/none-there", **QUICK)
    assert str(Path("~/none-there").expanduser()) in str(refused.value)


def test_every_method_runs_on_every_kind_of_request(objects) -> None:
    model, tokenizer, train, held_out, _ = objects
    whole_class = [row["id"] for row in train if row["label"] == "music"]
    for method in ("deepcut", "contrastive", "gradient-difference", "finetune"):
        for forget in (0.05, whole_class):
            found = unlearn(model, train, method, forget=forget, held_out=held_out, tokenizer=tokenizer, **QUICK)
            assert all(np.isfinite(row["loss"]) for row in found.record.training["history"])
            if forget is whole_class and method == "deepcut":
                assert found.record.training["history"][0]["anchors_without_same_class"] == 16
                assert any("forgetting term was 0" in line for line in warnings(found.record))


def test_problems_of_objects_are_told_at_once(objects) -> None:
    model, _, train, _, _ = objects
    with pytest.raises(UsageError) as error:
        unlearn(model, train, forget=["nobody"], held_out=[{"text": "x", "label": "wind"}], id="id")
    message = str(error.value)
    for word in ("tokenizer", "nobody", "'wind'"):
        assert word in message


def test_a_procedure_leaves_a_report_too(objects, tmp_path: Path) -> None:
    """Task vectors have candidates instead of steps: the report draws them, the record says which was kept."""
    model, tokenizer, train, held_out, ids = objects
    erased = unlearn(model, train, "task-vector", forget=ids, held_out=held_out, tokenizer=tokenizer, **QUICK)
    erased.save(str(tmp_path / "erased"))
    assert erased.record.training["kept_step"] in range(1, 7)
    assert f"candidate {erased.record.training['kept_step']} of 6" in erased.record.training["reason"]
    assert "candidate (0: the original)" in (tmp_path / "erased" / "report.html").read_text(encoding="utf-8")


def test_a_class_erased_whole_is_pushed_to_zero_though_calibration_has_nothing_else(objects) -> None:
    """No retained record has the class: there is no calibration accuracy to stop at, and none to lose."""
    model, tokenizer, train, held_out, _ = objects
    music, others = (held_out[(held_out["label"] == "music") == is_music] for is_music in (True, False))
    erased = unlearn(
        model, train, "gradient-difference", forget=RequestConfig(label="music"), held_out=others, calibration=music,
        tokenizer=tokenizer, overlap="drop", **{**QUICK, "training": TrainingConfig(min_steps=30, learning_rate=2e-3)},
    )  # fmt: skip
    checks = erased.record.training["checks"]
    assert all(check["unknown"] == 1.0 and check["calibration"] == 0.0 for check in checks)
    assert checks[-1]["forget"] <= 1 / 3
    assert checks[0]["forget_confidence"] > 0.9
