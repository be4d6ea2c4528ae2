"""A record.json from which something is missing: every command that reads one says so, and none ends in a traceback."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Job, call
from expunge.compare_page import comparison_page
from expunge.compare_runs import compare_runs
from expunge.errors import UsageError
from expunge.record import RunRecord
from expunge.record_table import as_csv, record_table
from expunge.report import render
from expunge.summary import print_summary
from report_records import real_record

EACH = "[]"
"""In a path: of each row of a list."""
Path_ = tuple[str, ...]


@pytest.fixture(scope="module")
def whole(job: Job) -> dict[str, Any]:
    return json.loads(real_record(job).to_json())


def paths(value: Any, above: Path_ = ()) -> Iterator[Path_]:
    """Of everything within a value that has a name, what lies deeper first."""
    if isinstance(value, list):
        yield from dict.fromkeys(path for row in value for path in paths(row, (*above, EACH)))
    elif isinstance(value, dict):
        for name, inner in value.items():
            yield from paths(inner, (*above, name))
            yield (*above, name)


def without(value: Any, path: Path_) -> Any:
    """The same value, without what the path names."""
    first, *rest = path
    if first == EACH:
        return [without(row, tuple(rest)) for row in value]
    if first not in value:
        return value
    if rest:
        return {**value, first: without(value[first], tuple(rest))}
    return {name: inner for name, inner in value.items() if name != first}


def read(values: dict[str, Any]) -> RunRecord | None:
    """The record, or None where it is refused as none."""
    try:
        return RunRecord.from_json(json.dumps(values))
    except UsageError:
        return None


@pytest.mark.parametrize("containers", [False, True])
def test_what_may_be_missing_is_missed_by_no_reader(whole: dict[str, Any], containers: bool) -> None:
    """All is taken away that the record may do without: single values, then whole tables and lists as well."""
    left = copy.deepcopy(whole)
    tables = {path for path in paths(whole) if any(other[: len(path)] == path != other for other in paths(whole))}
    for path in paths(whole):
        if len(path) > 1 and (containers or path not in tables):
            less = without(left, path)
            left = left if read(less) is None else less
    assert list(left["environment"]) == ["expunge"], "what no reader asks for is gone"
    record = read(left)
    assert record is not None
    comparison_page(compare_runs({"a": record, "b": record}))
    as_csv(record_table(record))
    print_summary(record)
    assert "Erasure report" in render(record)


@pytest.mark.parametrize(
    "path",
    [
        ("config", "audit"), ("config", "audit", "confidence"), ("models", "retrained"), ("cost", "total"),
        ("data", "hmac", "train"), ("verdict", "outcome"), ("verdict", "classes", "retrain-compared"),
        ("training", "checks", EACH, "auc"), ("records", EACH, "duplicates"), ("figures", "margins", "edges"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("words", [["compare", "RECORD"], ["records"], ["show"], ["report"]])
def test_every_command_refuses_a_record_that_lacks_what_any_of_them_reads(
    whole: dict[str, Any], tmp_path: Path, words: list[str], path: Path_
) -> None:
    file = tmp_path / "record.json"
    file.write_text(json.dumps(without(whole, path)), encoding="utf-8")
    code, _, error = call([*(str(file) if word == "RECORD" else word for word in words), str(file)])
    assert code == 2
    assert "it is no run record" in error
    assert "`expunge run` wrote" in error
    assert not (tmp_path / "report.html").exists()


def test_one_row_that_lacks_what_the_others_have_is_refused_too(whole: dict[str, Any]) -> None:
    for rows in ("records", "history"):
        broken = copy.deepcopy(whole)
        row = broken["records"][3] if rows == "records" else broken["training"]["history"][1]
        del row[next(name for name in row if name in ("log ratio, population", "retain"))]
        assert read(broken) is None
