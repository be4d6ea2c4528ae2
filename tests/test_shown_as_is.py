"""Ids and names of the user's, on a terminal: shown letter by letter, whatever they mean to the library that draws there."""

from __future__ import annotations

import dataclasses
import io

import pytest

from conftest import Job
from expunge.cli_plan import show_plan
from expunge.compare_runs import compare_runs, print_comparison
from expunge.plan import make_plan
from expunge.progress import ConsoleProgress
from expunge.record import RunRecord
from expunge.summary import print_summary
from report_records import real_record
from test_plan import prepared

NAMES = ("thread[msg]17", "[/b]", "[red]x", ":cat:", "C:\\[1]")
"""What rich would swallow, refuse, colour and turn into a picture; and a backslash before a bracket."""


@pytest.fixture(scope="module")
def record(job: Job) -> RunRecord:
    return real_record(job)


@pytest.mark.parametrize("name", NAMES)
def test_in_the_plan(job: Job, capsys: pytest.CaptureFixture[str], name: str) -> None:
    plan = make_plan(prepared(job, **{"request.ids": ["r1-0000"]}))
    show_plan(dataclasses.replace(plan, records=[{**row, "id": name} for row in plan.records]))
    assert f" {name} " in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_in_the_summary(record: RunRecord, capsys: pytest.CaptureFixture[str], name: str) -> None:
    measured = tuple(dataclasses.replace(m, name=name) for m in record.measurements)
    found = tuple(dataclasses.replace(finding, sentence=name) for finding in record.findings)
    print_summary(dataclasses.replace(record, measurements=measured, findings=found))
    assert f" {name}, forget" in capsys.readouterr().out


@pytest.mark.parametrize("name", NAMES)
def test_in_a_comparison(record: RunRecord, capsys: pytest.CaptureFixture[str], name: str) -> None:
    measured = tuple(dataclasses.replace(m, name=name) for m in record.measurements)
    print_comparison(compare_runs({name: dataclasses.replace(record, measurements=measured), "b": record}))
    out = capsys.readouterr().out
    assert f" {name}, forget" in out
    assert f"\n{name}: deepcut, " in out


def test_work_shown_in_a_file_is_told_once_a_minute(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of 10 records every 20 seconds: two lines, and the one when it is done."""
    shown, seconds = io.StringIO(), iter(range(0, 1000, 20))
    monkeypatch.setattr("sys.stderr", shown)
    monkeypatch.setattr("time.perf_counter", lambda: float(next(seconds)))
    with ConsoleProgress().stage("scoring", total=2000) as advance:
        for _ in range(7):
            advance(10)
    assert shown.getvalue().splitlines() == [
        "scoring: 30 of 2,000 after 60 s", "scoring: 60 of 2,000 after 120 s", "scoring: done in 160.0 s",
    ]  # fmt: skip


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.mark.parametrize("name", NAMES)
def test_in_the_progress_of_work(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    """Its bar, a note, and the line when it is done."""
    terminal = Terminal()
    monkeypatch.setattr("sys.stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    progress = ConsoleProgress()
    with progress.stage(name, total=2) as advance:
        advance(1)
    progress.note(f"of {name}")
    shown = terminal.getvalue()
    assert f"{name} " in shown.partition("0/2")[0] or f"{name} " in shown.partition("1/2")[0]
    assert f"{name}: done in " in shown
    assert f"of {name}\n" in shown
