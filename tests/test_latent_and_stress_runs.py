"""The layer probe and the stress audits in whole runs: on planted failures, and what they cost."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pandas
import pytest
import torch
from torch.nn import functional
from transformers import AutoModelForSequenceClassification

from conftest import Job, write_csv
from expunge import AuditConfig, StopConfig, TrainingConfig, registry, unlearn
from expunge.checks import check
from expunge.config import Recipe, RunConfig
from expunge.execution import Run
from expunge.fit import fit
from expunge.reaudit import reaudit
from expunge.stress import STRESSES
from expunge.testing import toy_records

STRESSFUL = ("relearning", "int8", "reworded")


@pytest.fixture(scope="module")
def ids(job: Job, tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("request") / "ids.txt"
    file.write_text("\n".join(pandas.read_csv(job.train)["id"][:80]) + "\n", encoding="utf-8")
    return file


def run_of(job: Job, ids: Path, audits: tuple[str, ...], retrained: tuple[str, ...] = ()) -> Run:
    values = {
        "model": {"path": str(job.model)},
        "data": {"train": str(job.train), "held_out": str(job.held_out), "id": "id", "text": ["text"]},
        "request": {"file": str(ids)},
        "privacy": {"salt_file": str(job.salt)},
        "audit": {"audits": list(audits), "bootstrap": 50, "retain_sample": 10_000},
        "retrain": {"models": list(retrained)},
    }
    return Run(check(RunConfig.from_dict(values)))


def loaded(path: object):
    return AutoModelForSequenceClassification.from_pretrained(path, attn_implementation="eager").eval()


@pytest.fixture(scope="module")
def retrained(job: Job, ids: Path, tmp_path_factory: pytest.TempPathFactory) -> str:
    run = run_of(job, ids, ("utility",))
    task, retain = run.prepared.task, run._encode()["retain"]
    recipe = Recipe(epochs=40.0, learning_rate=3e-3, batch_size=16)
    model = fit(str(job.base), task, retain, recipe, seed=1, label_names=task.label_names)
    folder = tmp_path_factory.mktemp("retrained")
    model.save_pretrained(folder)
    task.tokenizer.save_pretrained(folder)
    return str(folder)


def with_a_new_head(run: Run, job: Job, retrained: str):
    """The original with a last layer that answers for the forget records as the retrained model does, and else as before."""
    model, teacher, encoded = loaded(job.model), loaded(retrained), run._encode()

    def inputs(group: str) -> dict[str, torch.Tensor]:
        return run.prepared.task.collate(encoded[group], range(len(encoded[group]))).inputs

    with torch.no_grad():
        states = [model.bert(**inputs(group)).pooler_output for group in ("forget", "calibration")]
        wanted = [teacher(**inputs("forget")).logits, model(**inputs("calibration")).logits]
    head = model.classifier
    optimizer = torch.optim.LBFGS(head.parameters(), max_iter=500, line_search_fn="strong_wolfe")

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        loss = sum(
            functional.kl_div(head(x).log_softmax(-1), y.log_softmax(-1), log_target=True, reduction="batchmean")
            for x, y in zip(states, wanted, strict=True)
        )  # fmt: skip
        loss.backward()
        return loss

    optimizer.step(closure)
    return model


@pytest.mark.parametrize("compare", [True, False])
def test_a_changed_head_over_latents_that_still_know_is_a_trace(job, ids, retrained, compare: bool) -> None:
    run = run_of(job, ids, ("membership", "latent-probe"), (retrained,) if compare else ())
    encoded = run._encode()
    original = [run._score(loaded(job.model), encoded, "original")]
    changed = [run._score(with_a_new_head(run, job, retrained), encoded, "unlearned")]
    others, _ = run._retrained(encoded)
    record = run._record(original, changed, others, {}, {}, 0.0, None)
    assert [(f.audit, f.kind) for f in record.findings] == [("latent-probe", "trace")]
    assert "though its outputs look unseen" in record.findings[0].sentence
    assert "label probe" in record.findings[0].sentence


def test_a_run_and_an_audit_of_its_folder_make_what_audits_need(job, ids, retrained, tmp_path: Path) -> None:
    """And the original put in the place of the unlearned model is caught by every audit that can see memory."""
    erased = unlearn(
        str(job.model), str(job.train), "gradient-difference", forget=ids.read_text().split(), held_out=str(job.held_out),
        text="text", id="id", retrained=[retrained], salt_file=str(job.salt), stop=StopConfig(rule="none"),
        training=TrainingConfig(min_steps=2, epochs=0.1, learning_rate=1e-4),
        audit=AuditConfig(bootstrap=50, audits=("latent-probe", *STRESSFUL)),
    )  # fmt: skip
    record = erased.record
    assert not record.not_measured
    assert {m.audit for m in record.measurements} == {"latent-probe", *STRESSFUL}
    records = 80 + 160 + record.data["calibration"] + record.data["evaluation"]
    assert record.cost["scoring"] == pytest.approx(3 * records / 3)
    evaluated = 80 + record.data["evaluation"]
    assert record.cost["stress"]["int8"] == pytest.approx(3 * evaluated / 3)
    assert record.cost["stress"]["reworded"] == pytest.approx(3 * 2 * evaluated / 3)
    needed = {need for name in STRESSFUL for need in registry.find("audits", name).needs}
    assert needed < STRESSES.keys(), "the others are of language models"
    assert record.cost["stress"].keys() == needed
    assert {f"stress, {name}" for name in needed} <= record.timings.keys()
    erased.save(str(tmp_path / "erased"))
    again = reaudit(tmp_path / "erased", model=str(job.model), forget=str(ids))
    assert again.cost["stress"] == record.cost["stress"]
    flagged = {f.audit for f in again.findings if f.kind == "trace"}
    assert flagged == {"latent-probe", "relearning", "reworded"}, "nothing comes back by rounding: it never left"
    same = reaudit(tmp_path / "erased", forget=str(ids))
    assert same.measurements == record.measurements
    assert same.findings == record.findings


def of_size(job: Job, folder: Path, records: int) -> Job:
    """The same model beside so many new records, three in five of them for training."""
    folder.mkdir(exist_ok=True)
    train, held_out = (toy_records(n, seed=seed) for n, seed in ((records * 3 // 5, 11), (records * 2 // 5, 12)))
    (folder / "ids.txt").write_text("\n".join(row["id"] for row in train[: records // 20]) + "\n", encoding="utf-8")
    return replace(
        job, train=write_csv(folder / "train.csv", train), held_out=write_csv(folder / "held_out.csv", held_out),
        ids=folder / "ids.txt",
    )  # fmt: skip


def test_population_audits_of_10_000_records_cost_one_forward_pass_over_them(job, tmp_path: Path) -> None:
    """Counted at the model: rows of all forward calls, over the records scored."""
    population = tuple(n for n in registry.names("audits") if registry.find("audits", n).needs <= {"layers"})
    assert "latent-probe" in population
    assert "membership" in population
    job = of_size(job, tmp_path / "data", 10_000)
    run = run_of(job, job.ids, population)
    encoded, model, rows = run._encode(), loaded(job.model), []
    model.register_forward_pre_hook(lambda m, a, k: rows.append(len(k["input_ids"])), with_kwargs=True)
    tables = run._score(model, encoded, "original")
    records = sum(map(len, tables.values()))
    assert records == 10_000, "all of them are scored"
    assert sum(rows) == records + 1, "one more to find the last layer"
    assert sum(rows) <= 1.3 * records
    run._record([tables], [tables], [], {}, {}, 0.0, None)
    assert sum(rows) == records + 1, "audits run no model"


def test_what_no_audit_needs_is_not_made(job, ids) -> None:
    run = run_of(job, ids, ("utility",))
    tables = run._score(loaded(job.model), run._encode(), "original")
    assert all(table.layers is None for table in tables.values())
    assert not run.stressed
    assert not run.stress_passes
