"""`expunge compare`: several runs in one table and one page, and what forbids to compare them."""

from __future__ import annotations

import dataclasses
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from conftest import Job
from expunge.cli import app
from expunge.compare_page import comparison_page
from expunge.compare_runs import compare_runs
from expunge.errors import UsageError
from expunge.record import RunRecord
from report_records import real_record


@pytest.fixture(scope="module")
def record(job: Job) -> RunRecord:
    return real_record(job)


def other(record: RunRecord, **changes: Any) -> RunRecord:
    """The same run as another method's, its unlearned model a tenth lower in everything."""
    lower = tuple(
        dataclasses.replace(m, value=m.value - 0.1, low=m.low - 0.1, high=m.high - 0.1) if m.model == "unlearned" else m
        for m in record.measurements
    )
    config = {**record.config, "method": {"name": "npo", "beta": 0.1}}
    return dataclasses.replace(record, measurements=lower, config=config, **changes)


def call(*words: str) -> tuple[int, str, Any]:
    done = CliRunner().invoke(app, ["compare", *words])
    return done.exit_code, done.output, done.exception


def test_each_measure_is_a_row_and_each_run_a_column(record: RunRecord) -> None:
    found = compare_runs({"a": record, "b": other(record)})
    assert found["warnings"] == []
    assert [(run["name"], run["method"]) for run in found["runs"]] == [("a", "deepcut"), ("b", "npo")]
    assert found["runs"][1]["settings"] == {"beta": 0.1}
    row = next(row for row in found["rows"] if row["measure"] == "accuracy, forget")
    wanted = {model: record.find("accuracy", model, "forget") for model in ("original", "unlearned", "retrained")}
    for model in ("original", "retrained"):
        assert (row[model]["value"], row[model]["n"]) == (wanted[model].value, 24)
    assert row["unlearned"]["a"]["value"] == wanted["unlearned"].value
    assert row["unlearned"]["b"]["value"] == pytest.approx(wanted["unlearned"].value - 0.1)
    for figure in row["unlearned"].values():
        assert figure["low"] <= figure["value"] <= figure["high"]
        assert figure["noise_floor"] == wanted["unlearned"].noise_floor


@pytest.mark.parametrize(
    ("change", "said", "shared"),
    [
        (lambda r: {"models": {**r.models, "original": {"sha256": "0"}}}, "different models", False),
        (lambda r: {"request": {**r.request, "hmac": "0"}}, "forget different records", False),
        (lambda r: {"data": {**r.data, "hmac": {**r.data["hmac"], "train": "0"}}}, "training data", False),
        (
            lambda r: {"data": {**r.data, "hmac": {**r.data["hmac"], "evaluation": "0"}}},
            "evaluation records",
            False,
        ),
        (lambda r: {"data": {**r.data, "hmac": {**r.data["hmac"], "calibration": "0"}}}, "calibration records", False),
        (lambda r: {"verdict": {**r.verdict, "evidence": "population"}}, "different evidence classes", True),
        (lambda r: {"environment": {**r.environment, "torch": "0"}}, "different versions", True),
    ],
)
def test_what_forbids_to_compare_is_said(record: RunRecord, change, said: str, shared: bool) -> None:
    found = compare_runs({"a": record, "b": other(record, **change(record))})
    assert len(found["warnings"]) == 1
    assert said in found["warnings"][0]
    row = next(row for row in found["rows"] if row["measure"] == "accuracy, forget")
    assert (row["original"] is not None) == shared, "no figure stands for runs that do not share it"


def test_samples_of_retained_records_and_losses_allowed_must_be_the_same(record: RunRecord) -> None:
    def sampled(seed: int, loss: float) -> RunRecord:
        audit = {**record.config["audit"], "retain_sample": 50, "max_utility_loss": loss}
        return dataclasses.replace(record, config={**record.config, "seed": seed, "audit": audit})

    found = compare_runs({"a": sampled(0, 0.03), "b": sampled(1, 0.5)})
    assert [word for word in ("different samples", "losses of utility") if word in " ".join(found["warnings"])] == [
        "different samples", "losses of utility",
    ]  # fmt: skip
    rows = {row["measure"]: row for row in found["rows"]}
    assert rows["accuracy, retain"]["original"] is None
    assert rows["accuracy, forget"]["original"] is not None


def test_what_one_run_did_not_measure_is_empty_and_not_zero(record: RunRecord) -> None:
    less = dataclasses.replace(record, measurements=tuple(m for m in record.measurements if m.audit != "latent-probe"))
    found = compare_runs({"a": less, "b": record})
    row = next(row for row in found["rows"] if row["audit"] == "latent-probe")
    assert row["unlearned"]["a"] is None
    assert row["unlearned"]["b"] is not None


def test_the_page_escapes_names_and_fetches_nothing(record: RunRecord) -> None:
    evil = "<script>alert(1)</script>$x$"
    drawn = comparison_page(compare_runs({evil: record, "b": other(record)}))
    assert "<script" not in drawn
    assert html.escape(evil) in drawn
    assert "default-src 'none'" in html.unescape(drawn)
    assert not re.search(r"(?:src|href)=\"(?!#)", drawn)
    for m in record.measurements:
        assert f'{m.value:.3f} <span class="ci">[{m.low:.3f}, {m.high:.3f}]' in drawn


def test_the_command_prints_a_table_json_and_a_page(record: RunRecord, tmp_path: Path) -> None:
    for name, one in (("first", record), ("second", other(record))):
        (tmp_path / name).mkdir()
        (tmp_path / name / "record.json").write_text(one.to_json(), encoding="utf-8")
    folders = (str(tmp_path / "first"), str(tmp_path / "second" / "record.json"))
    code, said, _ = call(*folders, "--out", str(tmp_path / "compare.html"))
    assert code == 0, said
    for words in ("accuracy, forget", "first", "second", "second: npo, ", f"Page: {tmp_path / 'compare.html'}"):
        assert words in " ".join(said.split()) or words in said.replace("\n", "")
    assert (tmp_path / "compare.html").read_text(encoding="utf-8").startswith("<!doctype html>")
    code, said, _ = call(*folders, "--json")
    assert code == 0
    assert [run["name"] for run in json.loads(said)["runs"]] == ["first", "second"]
    code, said, _ = call(folders[0], folders[0], "--json")
    assert [run["name"] for run in json.loads(said)["runs"]] == [f"{folders[0]} (1)", f"{folders[0]} (2)"]


def test_all_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    _, _, error = call(str(tmp_path / "nothing"), "--out", str(tmp_path / "no" / "page.html"))
    assert isinstance(error, UsageError)
    assert [problem.where for problem in error.problems] == ["compare", "--out", str(tmp_path / "nothing")]
