"""`expunge plan`: what it counts is what the run then costs, and what it says of single records holds by construction."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from conftest import Job, call, write_csv
from expunge.checks import Prepared, check
from expunge.config import RunConfig
from expunge.erase import execute
from expunge.memorisation import Memory, memorised
from expunge.plan import make_plan
from expunge.record import RunRecord
from expunge.record_table import as_csv, record_table
from expunge.scoring import ScoreTable
from test_bad_input import rows_of
from test_cli import digest

QUICK = {"training.min_steps": 12, "training.epochs": 1.0, "audit.bootstrap": 40, "audit.audits": ["utility"]}


def prepared(job: Job, **flags: object) -> Prepared:
    values = {
        "model": {"path": str(job.model)},
        "data": {"train": str(job.train), "held_out": str(job.held_out), "id": "id"},
        "privacy": {"salt_file": str(job.salt)},
    }
    request = {} if {"request.ids", "request.where"} & set(flags) else {"request.file": str(job.ids)}
    return check(RunConfig.from_dict(values, flags={**QUICK, **request, **flags}))


def table(margins: list[float], labels: list[int]) -> ScoreTable:
    found, classes = np.array(margins), np.array(labels)
    return ScoreTable(
        labels=classes, predictions=classes, margins=found, losses=np.logaddexp(0, -found),
        hidden=np.zeros((len(found), 0)), offsets=np.arange(len(found) + 1),
    )  # fmt: skip


def test_a_record_is_placed_among_unseen_ones_of_its_class() -> None:
    """Class 0 has 19 unseen margins 1 ... 19: above all of them p is 1/20; at 10 and more ten of them are, p = 11/20.
    Class 1 has four, too few to decide; class 2 none."""
    unseen = [table([float(i) for i in range(1, 11)], [0] * 10), table([*range(11, 20), 1, 2, 3, 4], [0] * 9 + [1] * 4)]
    found = memorised(table([20.0, 19.0, 18.5, 9.5, 0.0, 99.0, 1.0], [0, 0, 0, 0, 0, 1, 2]), unseen)
    assert found[0] == Memory(100.0, 19, "yes")
    assert found[1] == Memory(round(100 * 18.5 / 19, 1), 19, "undecided"), "one unseen record has as large a margin"
    assert found[2].answer == "undecided"
    assert found[3] == Memory(round(100 * 9 / 19, 1), 19, "no")
    assert found[4].answer == "no"
    assert found[5] == Memory(100.0, 4, "undecided")
    assert found[6] == Memory(None, 0, "undecided")


def test_of_records_never_seen_one_in_twenty_is_called_memorised() -> None:
    rng = np.random.default_rng(0)
    answers: list[str] = []
    for _ in range(60):
        records, unseen = (table(rng.gumbel(size=n).tolist(), [0] * n) for n in (50, 199))
        answers += [memory.answer for memory in memorised(records, [unseen])]
    assert answers.count("yes") / len(answers) == pytest.approx(0.05, abs=0.012)


@pytest.mark.parametrize("method", ["deepcut", "scrub", "bad-teacher", "salun", "finetune"])
def test_the_passes_it_counts_are_those_of_the_run(job: Job, method: str) -> None:
    """Steps, what comes before them, the original's outputs and the checks, when the stop rule lets all steps be done."""
    asked = prepared(job, **{"method.name": method, "stop.rule": "none", "retrain.base": str(job.base)})
    cost = make_plan(asked).cost
    spent = execute(asked).record.cost
    assert cost.passes == pytest.approx(spent["training"], rel=0.03)
    assert cost.checks == pytest.approx(spent["checks"], rel=0.01)
    assert cost.seconds is not None
    assert cost.seconds > 0
    assert cost.memory is not None
    assert cost.memory > 2**20


def test_micro_batches_cost_a_second_forward_pass(job: Job) -> None:
    whole, cut = (make_plan(prepared(job, **{"training.accumulation": n})).cost.passes for n in (1, 4))
    assert whole is not None
    assert cut == pytest.approx(whole * 4 / 3, rel=0.01)


def test_methods_without_steps(job: Job) -> None:
    retrain = {"method.name": "retrain", "retrain.base": str(job.base), "retrain.recipe": str(job.recipe)}
    assert make_plan(prepared(job, **retrain)).cost.passes == 40 * 216
    unknown = make_plan(prepared(job, **{"method.name": "task-vector"})).cost
    assert unknown.passes is unknown.seconds is None
    assert "not known" in unknown.basis
    solved = make_plan(prepared(job, **{"method.name": "deepcut-kernel", "retrain.base": str(job.base)})).cost
    assert solved.steps == 3
    assert solved.passes is not None
    assert solved.seconds is not None
    assert 0 < solved.checks <= 0.1 * solved.passes + 3 * 64 / 3


def test_what_cannot_be_shown_is_told_before(job: Job, tmp_path: Path) -> None:
    few = " ".join(make_plan(prepared(job, **{"request.ids": ["r1-0000", "r1-0001"]})).cannot_show)
    assert "fewer than 20" in few
    assert "population-only" in few
    assert "true-positive rate at 0.1 %" in few
    assert "+-0.406" in few, "1.96 * sqrt((2 + 106 + 1) / (12 * 2 * 106)) with 106 evaluation records"
    beside = make_plan(prepared(job, **{"retrain.models": [str(job.model)]}))
    assert "noise floor" in " ".join(beside.cannot_show)
    assert "population-only" not in " ".join(beside.cannot_show)
    assert beside.memorised["yes"] + beside.memorised["no"] + beside.memorised["undecided"] == 24
    assert beside.memorised["by_chance"] == 1.2, "0.05 of 24"
    assert beside.needed.startswith("Yes: as a group")
    assert beside.membership.low > 0.5, "the original has learnt the records by heart"


def test_a_request_too_small_for_a_verdict_is_told_by_check(job: Job, tmp_path: Path) -> None:
    """24 records have one; 1 and 3 will not."""
    assert "A verdict takes" not in call(["check", *job.flags()])[2]
    few = tmp_path / "few.txt"
    for count, told in ((1, "here is 1: it will be no power"), (3, "here are 3")):
        few.write_text("".join(f"r1-000{i}\n" for i in range(count)), encoding="utf-8")
        code, _, error = call(["check", *job.flags(forget=few)])
        assert code == 0, error
        assert f"A verdict takes 20 records to forget, and {told}" in error


def test_where_the_original_passes_no_power_is_foretold(job: Job, tmp_path: Path) -> None:
    """Records the original was never trained on, passed off as training records to forget."""
    held = rows_of(job.held_out)
    more = [{**row, "id": f"x{i}"} for i, row in enumerate(held[:60])]
    data = write_csv(tmp_path / "data.csv", [*rows_of(job.train), *more])
    rest = write_csv(tmp_path / "held.csv", held[60:])
    flags = {"request.where": "id.str.startswith('x')", "data.train": str(data), "data.held_out": str(rest)}
    asked = prepared(job, **flags)
    assert make_plan(asked).needed.startswith("Not shown")
    assert "no power at best" in " ".join(make_plan(asked).cannot_show)


def test_on_the_command_line_nothing_is_written_and_nobody_named(job: Job, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = digest(job.folder)
    code, out, error = call(["plan", *job.flags(), "--out", "erased"])  # the options of the run
    assert code == 0, error
    for word in ("Is erasure needed?", "Membership AUC", "example-passes", "an estimate", "GiB", "not be able to show"):
        assert word in out
    secrets = job.ids.read_text(encoding="utf-8").split()
    assert not any(secret in out + error for secret in secrets)
    code, out, _ = call(["plan", *job.flags(), "--json"])
    found = json.loads(out)
    assert len(found["records"]) == 24
    assert set(found["records"][0]) >= {"id", "memorised", "percentile", "correct", "alike"}
    assert not any(secret in out for secret in secrets)
    assert digest(job.folder) == before
    assert list(tmp_path.iterdir()) == []
    code, _, error = call(["plan", *job.flags(text="body")])
    assert code == 2
    assert 'no column "body"' in error


@pytest.fixture(scope="module")
def incomplete(job: Job, tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The job with a copy and a near copy of requested records left in training, and a request of 24."""
    folder = tmp_path_factory.mktemp("incomplete")
    rows = rows_of(job.train)
    rows[0]["text"] = "river w10 w20 w30 w40 w50 w60 w70 w80 w90"
    rows += [
        {**rows[0], "id": "near", "text": rows[0]["text"] + " w5"},
        {**rows[1], "id": "copy", "text": rows[1]["text"].upper()},
    ]
    return {"data.train": str(write_csv(folder / "data.csv", rows))}


def test_an_erasure_whose_duplicates_stay_is_incomplete(job: Job, incomplete: dict[str, str]) -> None:
    """Even where the figures are as they should be: here the retrained model is the unlearned one."""
    record = execute(prepared(job, **incomplete, **{"retrain.models": [str(job.model)]})).record
    assert record.request["duplicates_left"] == record.request["near_duplicates_left"] == 1
    for judged in record.verdict["classes"].values():
        assert judged["outcome"] == "not reached"
        criterion = judged["criteria"][-1]
        assert (criterion["value"], criterion["holds"], criterion["side"]) == (2, False, "incomplete")
    assert record.verdict["sentence"].startswith("Incomplete: Of the retained records 1 is identical")
    for way_out in ("--with-duplicates", "--with-near-duplicates"):
        assert way_out in record.verdict["sentence"]
    finding = next(finding for finding in record.findings if finding.kind == "incomplete")
    assert finding.audit == "duplicates"
    rows = record_table(record)
    assert [(r["identical"], r["near"], r["duplicates left"]) for r in rows[:3]] == [(0, 1, 1), (1, 0, 1), (0, 0, 0)]


def test_with_them_forgotten_too_it_is_complete(job: Job, incomplete: dict[str, str]) -> None:
    record = execute(prepared(job, **incomplete, **{"request.with_near_duplicates": True})).record
    assert record.data["forget"] == 26
    assert not [finding for finding in record.findings if finding.kind == "incomplete"]
    assert "Incomplete" not in record.verdict["sentence"]
    assert record.verdict["classes"]["population"]["criteria"][-1]["holds"]
    rows = record_table(record)
    assert [row["because"] for row in rows].count("duplicate") == 2
    assert all(row["duplicates left"] == 0 for row in rows)


def sets(**values: object) -> list[str]:
    return [
        word for name, value in values.items() for word in ("--set", f"{name.replace('__', '.')}={json.dumps(value)}")
    ]


FAST = sets(training__min_steps=2, training__epochs=0.1, audit__bootstrap=30, audit__audits=["utility"])


def gated(job: Job, out: Path, *words: str, **flags: object) -> tuple[int, str]:
    code, _, error = call(["run", *job.flags(out=out, **flags), *FAST, *words])
    return code, error


def test_the_gate_holds_for_an_incomplete_erasure(job: Job, incomplete, tmp_path: Path) -> None:
    for require in ("population", "retrain-compared"):
        out = tmp_path / require
        flags = {"data": incomplete["data.train"], "require": require, "retrained": job.model}
        code, error = gated(job, out, **flags)
        assert code == 3, error
        assert f"--require {require}) was not reached" in error
        assert "Incomplete:" in error
        assert (out / "record.json").exists()


def test_a_verdict_that_so_few_records_cannot_have_is_refused_before_anything_runs(job: Job, tmp_path: Path) -> None:
    few = tmp_path / "few.txt"
    few.write_text("\n".join(job.ids.read_text(encoding="utf-8").split()[:3]), encoding="utf-8")
    code, error = gated(job, tmp_path / "out", forget=few, require="population")
    assert code == 2
    assert "population is required of 3 records, and a verdict needs 20" in error
    assert "gather requests" in error


def test_the_gate_of_audit(job: Job, tmp_path: Path) -> None:
    code, error = gated(job, tmp_path / "out", method="finetune")
    assert code == 0, error
    words = ["audit", str(tmp_path / "out"), "--out"]
    code, _, error = call([*words, str(tmp_path / "a"), "--require", "retrain-compared"])
    assert code == 2
    assert "no retrained model to compare with" in error
    assert not (tmp_path / "a").exists()
    for require, more in (("population", []), ("retrain-compared", ["--retrained", str(tmp_path / "out")])):
        code, _, error = call([*words, str(tmp_path / require), "--require", require, *more])
        assert code == 3, error
        assert f"--require {require}) was not reached" in error
        assert (tmp_path / require / "record.json").exists()


def test_the_table_of_records_can_be_handed_on(job: Job, tmp_path: Path) -> None:
    code, error = gated(job, tmp_path / "out")
    assert code == 0, error
    target = tmp_path / "records.csv"
    code, out, _ = call(["records", str(tmp_path / "out"), "--csv", str(target)])
    assert (code, out.strip()) == (0, str(target))
    with target.open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 24
    assert {row["because"] for row in rows} == {"requested"}
    assert {row["original predicted"] for row in rows} <= {"water", "machine", "music"}
    assert {row["memorised"] for row in rows} <= {"yes", "no", "undecided"}
    secrets = job.ids.read_text(encoding="utf-8").split()
    assert not any(secret in target.read_text(encoding="utf-8") for secret in secrets)
    code, out, _ = call(["records", str(tmp_path / "out"), "--json"])
    assert [row["record"] for row in json.loads(out)] == [row["record"] for row in rows]
    code, out, _ = call(["records", str(tmp_path / "out")])
    assert out == as_csv(record_table(RunRecord.read(tmp_path / "out")))
    code, _, error = call(["records", str(tmp_path / "nothing")])
    assert code == 2
    assert "no record.json" in error
    code, _, error = call(["records", str(tmp_path / "out"), "--csv", str(tmp_path / "no" / "x.csv")])
    assert code == 2
    assert "cannot be written" in error
