"""The command line end to end on a real (tiny) job; the first run, and what is slow, in processes of their own."""

from __future__ import annotations

import hashlib
import html
import json
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest

from conftest import Job, in_process
from expunge.erase import Erased
from expunge.errors import UsageError
from expunge.record import RunRecord

QUICK = ["--set", "training.min_steps=12", "--set", "audit.bootstrap=200", "--set", "training.learning_rate=2e-3"]


def expunge(*words: str, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "expunge", *words],
        capture_output=True, text=True, cwd=cwd, env={**os.environ, **env}, check=False,
    )  # fmt: skip


def digest(folder: Path) -> dict[str, str]:
    return {
        str(file.relative_to(folder)): hashlib.sha256(file.read_bytes()).hexdigest()
        for file in sorted(folder.rglob("*"))
        if file.is_file()
    }


@pytest.fixture(scope="module")
def ran(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, subprocess.CompletedProcess[str]]:
    """One full run: unlearn, retrain, audit, report."""
    out = tmp_path_factory.mktemp("ran") / "erased"
    before = digest(job.folder)
    done = expunge("run", *job.flags(retrain=True, base=job.base, recipe=job.recipe, out=out), *QUICK, cwd=out.parent)
    assert done.returncode == 0, done.stderr
    assert digest(job.folder) == before, "inputs are untouched"
    return out, done


def test_a_run_leaves_a_model_a_record_and_a_report(ran, job: Job) -> None:
    out, done = ran
    names = {file.name for file in out.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "record.json", "report.html"} <= names
    assert [p.name for p in out.parent.iterdir()] == ["erased"], "nothing else is left beside it"
    assert done.stdout.rstrip().endswith(f"Report: {out / 'report.html'}")
    for word in (
        "original",
        "unlearned",
        "retrained",
        "accuracy, forget",
        "membership AUC (loss or margin)",
        "Verdict",
    ):
        assert word in done.stdout
    assert "unlearning: done in" in done.stderr
    assert "Traceback" not in done.stderr


def test_the_record_says_what_was_done(ran, job: Job) -> None:
    record = RunRecord.read(ran[0])
    assert record.data["forget"] == 24
    assert record.data["retain"] == 216
    assert record.data["held_out_halved"]
    assert {m.model for m in record.measurements} == {"original", "unlearned", "retrained"}
    for m in record.measurements:
        assert m.low <= m.value <= m.high
        assert m.n > 0
    assert record.training["history"][0]["loss"] > 0
    assert record.cost["retraining"] == 40 * 216
    assert record.cost["ratio_to_retraining"] == pytest.approx(record.cost["total"] / 8640, abs=1e-4)
    original = record.find("accuracy", "original", "forget")
    assert original is not None
    assert original.value > 0.95, "the original has learnt the records by heart"
    assert record.verdict["evidence"] == "retrain-compared"
    assert RunRecord.from_json(record.to_json()) == record


def test_the_unlearned_model_loads_and_differs(ran, job: Job) -> None:
    import torch
    from safetensors.torch import load_file
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(ran[0])
    tokenizer = AutoTokenizer.from_pretrained(ran[0])
    assert model.config.id2label == {0: "water", 1: "machine", 2: "music"}
    logits = model(**tokenizer("w1 river w2", return_tensors="pt")).logits
    assert logits.argmax().item() == 0
    mine, theirs = load_file(ran[0] / "model.safetensors"), load_file(job.model / "model.safetensors")
    assert mine.keys() == theirs.keys()
    assert not torch.equal(mine["classifier.weight"], theirs["classifier.weight"])


class _Page(HTMLParser):
    """Tags, attributes and text of a page; fails on tags that do not close in order."""

    void = frozenset({"meta", "link", "br", "img", "input", "use", "path"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text: list[str] = []

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in self.void:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        if tag not in self.void:
            assert self.open.pop() == tag

    def handle_data(self, data) -> None:
        self.text.append(data)


def test_the_report_is_one_whole_page_without_text_ids_or_network(ran, job: Job) -> None:
    source = (ran[0] / "report.html").read_text(encoding="utf-8")
    page = _Page()
    page.feed(source)
    assert page.open == []
    assert [tag for tag, _ in page.tags].count("svg") == 5
    for tag, attributes in page.tags:
        assert tag not in ("iframe", "link", "img", "object", "embed")
        for name in ("src", "href", "xlink:href"):
            assert (attributes.get(name) or "#").startswith("#"), "nothing is fetched"
    ids = [attributes["id"] for _, attributes in page.tags if attributes.get("id")]
    assert len(ids) == len(set(ids))
    text = " ".join(page.text)
    for word in ("Erasure report", "optimizer states", "ensembles", "Latent map", "it is no proof"):
        assert word in " ".join(text.split())
    assert len(source) < 1_500_000


def test_neither_text_nor_ids_of_erased_records_are_left_anywhere(ran, job: Job) -> None:
    import csv

    wanted = set(job.ids.read_text(encoding="utf-8").split())
    with job.train.open(encoding="utf-8") as file:
        texts = [row["text"] for row in csv.DictReader(file) if row["id"] in wanted]
    for file in ("record.json", "report.html"):
        content = html.unescape((ran[0] / file).read_text(encoding="utf-8"))
        for secret in (*wanted, *texts):
            assert secret not in content
    assert not any(secret in ran[1].stdout + ran[1].stderr for secret in (*wanted, *texts))


def test_ids_are_shown_as_pseudonyms_that_only_the_salt_opens(ran, job: Job) -> None:
    import hmac

    wanted = job.ids.read_text(encoding="utf-8").split()
    expected = {hmac.new(job.salt.read_bytes(), i.encode(), "sha256").hexdigest()[:12] for i in wanted}
    assert {row["id"] for row in RunRecord.read(ran[0]).records} == expected
    assert all(name in (ran[0] / "report.html").read_text(encoding="utf-8") for name in expected)


@pytest.mark.slow
def test_two_equal_runs_leave_equal_weights_and_records(job: Job, tmp_path: Path) -> None:
    for name in ("one", "two"):
        done = expunge("run", *job.flags(out=tmp_path / name), *QUICK)
        assert done.returncode == 0, done.stderr
    first, second = (digest(tmp_path / name) for name in ("one", "two"))
    assert first["model.safetensors"] == second["model.safetensors"]
    records = [json.loads((tmp_path / name / "record.json").read_text(encoding="utf-8")) for name in ("one", "two")]
    for record in records:
        assert record.pop("timings")
    assert records[0] == records[1]


def test_of_many_held_out_records_some_are_used_and_it_is_said(job: Job, tmp_path: Path) -> None:
    sample = ["--set", "data.held_out_sample=20"]
    checked = in_process("check", *job.flags(), *sample)
    assert "20 for calibration, 20 for evaluation. Method: deepcut." in checked.stdout
    assert "held-out records are left unused" in checked.stderr
    in_process("run", *job.flags(out=tmp_path / "few", method="finetune"), *sample, *QUICK)
    record = RunRecord.read(tmp_path / "few")
    assert record.data["evaluation"] == 20
    assert record.data["held_out_unused"] > 0
    refused = in_process("check", *job.flags(), "--set", "data.held_out_sample=1")
    assert refused.returncode == 2
    assert "1 calibration and 1 evaluation records are left" in refused.stderr


def test_a_config_file_does_the_same(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    text = in_process("init", "gradient-difference").stdout
    for name, path in (
        ("my-model", job.model),
        ("train.csv", job.train),
        ("test.csv", job.held_out),
        ("ids.txt", job.ids),
    ):
        text = text.replace(f'"{name}"', f'"{path}"')
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    sets = ["--set", 'data.id="id"', "--salt-file", str(job.salt)]
    checked = in_process("check", "run.toml", *sets)
    assert checked.returncode == 0, checked.stderr
    assert "240 training records: 24 to forget, 216 to retain" in checked.stdout
    done = in_process("run", "run.toml", "--out", "erased", "--json", *sets, *QUICK)
    assert done.returncode == 0, done.stderr
    record = RunRecord.from_json(done.stdout)
    assert record.config["method"]["name"] == "gradient-difference"
    assert record.verdict["evidence"] == "population"


def test_require_ends_with_3_when_the_verdict_was_not_reached(job: Job, tmp_path: Path) -> None:
    done = in_process("run", *job.flags(out=tmp_path / "kept", method="finetune", require="population"), *QUICK)
    assert done.returncode == 3, done.stderr
    assert "--require population) was not reached" in done.stderr
    assert (tmp_path / "kept" / "report.html").exists(), "the run ended well, its result is kept"


def test_audit_report_show_and_list(ran, job: Job, tmp_path: Path) -> None:
    out, _ = ran
    before = RunRecord.read(out)
    # The erased model again, against the original passed off as a retrained model.
    done = in_process("audit", str(out), "--out", str(tmp_path / "again"), "--retrained", str(job.model))
    assert done.returncode == 0, done.stderr
    again = RunRecord.read(tmp_path / "again")
    for name, model, group in (
        ("accuracy", "unlearned", "forget"),
        ("membership AUC (loss or margin)", "original", "forget vs evaluation"),
    ):
        mine, theirs = before.find(name, model, group), again.find(name, model, group)
        assert mine is not None
        assert theirs is not None
        assert mine.value == pytest.approx(theirs.value, abs=1e-6)
    passed_off = again.find("accuracy", "retrained", "forget")
    original = before.find("accuracy", "original", "forget")
    assert passed_off is not None
    assert original is not None
    assert passed_off.value == original.value
    drawn = in_process("report", str(out / "record.json"), "--out", str(tmp_path / "drawn.html"))
    assert drawn.returncode == 0, drawn.stderr
    drawn_text = (tmp_path / "drawn.html").read_text(encoding="utf-8")
    whole = (out / "report.html").read_text(encoding="utf-8")
    assert f"the folder <code>{out}</code>, " in whole, "it says which single folder was changed"
    assert drawn_text == whole.replace(f"the folder <code>{out}</code>, ", "")
    assert "accuracy, forget" in in_process("show", str(out)).stdout
    assert re.search(r"gamma +0\.\d+ +weight of the forgetting term", in_process("show", "deepcut").stdout)
    listed = json.loads(in_process("list", "--json").stdout)
    assert set(listed) == {"methods", "audits", "tasks"}
    assert "deepcut" in listed["methods"]


def test_an_audit_of_something_else_is_refused(ran, job: Job, tmp_path: Path) -> None:
    """Another request, other data, a typing mistake in the model's name: the old training log would stand beside them."""
    from expunge.reaudit import reaudit

    fewer = tmp_path / "ids.txt"
    fewer.write_text("\n".join(job.ids.read_text(encoding="utf-8").split()[:20]), encoding="utf-8")
    with pytest.raises(UsageError, match="not that of the run"):
        reaudit(ran[0], forget=str(fewer))
    half = tmp_path / "half.csv"
    half.write_text("\n".join(job.held_out.read_text(encoding="utf-8").splitlines()[:101]), encoding="utf-8")
    with pytest.raises(UsageError, match="the calibration and evaluation records are not those of the run"):
        reaudit(ran[0], sets=[f"data.held_out={half}"])
    with pytest.raises(UsageError, match=r'--model: "\./typo" is no folder'):
        reaudit(ran[0], model="./typo")
    (tmp_path / "salt").write_bytes(b"another salt of the tests")
    with pytest.raises(UsageError, match="or the salt is another"):
        reaudit(ran[0], sets=[f"privacy.salt_file={tmp_path / 'salt'}"])


@pytest.mark.slow
def test_code_in_a_folder_runs_at_the_readers_word_not_at_its_own_records(ran, job: Job, tmp_path: Path) -> None:
    out, _ = ran
    foreign, ran_it = tmp_path / "foreign", tmp_path / "ran"
    shutil.copytree(out, foreign)
    record = json.loads((foreign / "record.json").read_text(encoding="utf-8"))
    record["config"]["model"] |= {"trust_remote_code": True, "path": str(foreign)}
    (foreign / "record.json").write_text(json.dumps(record), encoding="utf-8")
    config = json.loads((foreign / "config.json").read_text(encoding="utf-8"))
    config |= {"model_type": "own", "auto_map": {"AutoConfig": "own.Config"}}
    (foreign / "config.json").write_text(json.dumps(config), encoding="utf-8")
    (foreign / "own.py").write_text(f"open({str(ran_it)!r}, 'w').close()\n", encoding="utf-8")
    with pytest.raises(UsageError, match="trust_remote_code"):
        Erased.load(foreign)
    done = in_process("audit", str(foreign), "--out", str(tmp_path / "again"), "--forget", str(job.ids))
    assert done.returncode == 2
    assert "trust_remote_code=true only" in done.stderr
    assert not ran_it.exists()
    with pytest.raises(UsageError):
        Erased.load(foreign, trust_remote_code=True)  # there is no class Config in it
    assert ran_it.exists()


def test_retrain_as_a_method(job: Job, tmp_path: Path) -> None:
    done = expunge("run", *job.flags(method="retrain", base=job.base, recipe=job.recipe, out=tmp_path / "re"), *QUICK)
    assert done.returncode == 0, done.stderr
    record = RunRecord.read(tmp_path / "re")
    assert record.cost["ratio_to_retraining"] == 1.0
    forget = record.find("accuracy", "unlearned", "forget")
    assert forget is not None
    assert forget.value < 0.95, "a model that never saw the records is not right on all of them"
