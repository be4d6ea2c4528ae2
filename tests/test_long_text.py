"""Columns of much text lie on disk, in a file without a name, and read as lists do; tokens are made as they are needed."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet
import pytest

from expunge.config import RequestConfig
from expunge.data import long_text, sources
from expunge.data.long_text import LongText, joined
from expunge.data.records import Records
from expunge.data.request import matching, resolve
from expunge.tasks import on_demand
from expunge.tasks.on_demand import OnDemand
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_tokenizer

VALUES = ["water w1", None, "", "день 水 \ud83d", "engine"]


def test_it_reads_as_the_list_does() -> None:
    column = LongText()
    column.extend(VALUES[:2])
    assert list(column) == VALUES[:2]
    column.extend(VALUES[2:])
    assert len(column) == 5
    assert list(column) == VALUES
    assert [column[i] for i in range(5)] == VALUES
    assert (column[-1], column[1:4]) == (VALUES[-1], VALUES[1:4])
    with pytest.raises(IndexError):
        column[5]


def test_columns_of_nothing_but_empty_texts_are_read() -> None:
    column = LongText()
    column.extend(["", None])
    assert list(column) == ["", None]


def test_no_folder_lists_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a process that is killed leaves no text behind."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    column = LongText()
    column.extend(["a secret"])
    assert list(column) == ["a secret"]
    assert os.listdir(tmp_path) == []


def test_only_columns_of_much_text_go_there(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_text, "_LONG", 20)
    pieces: list[dict[str, list[Any]]] = [
        {"text": ["x" * 15, "y"], "n": [1, 2]},
        {"text": ["z" * 9], "n": [10**30], "late": ["l" * 30]},
        {"text": [None], "late": [4]},
    ]
    columns = joined(pieces, ["text"])
    assert isinstance(columns["text"], LongText)
    assert {name: list(values) for name, values in columns.items()} == {
        "text": ["x" * 15, "y", "z" * 9, None],
        "n": [1, 2, 10**30, None],
        "late": [None, None, "l" * 30, 4],
    }
    assert isinstance(columns["n"], list)
    assert isinstance(columns["late"], list)  # it is no text throughout


@pytest.fixture
def long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(long_text, "_LONG", 40)
    monkeypatch.setattr("expunge.data.tables._ROWS", 3)
    monkeypatch.setattr("expunge.data.sources._ROWS", 3)


ROWS = [{"id": f"{i:03}", "text": f"water engine w{i}, said {i}", "label": "water"} for i in range(10)]


def written(kind: str, folder: Path) -> Path:
    path = folder / f"data.{kind}"
    if kind == "csv":
        path.write_text("id,text,label\n" + "".join(f'{r["id"]},"{r["text"]}",{r["label"]}\n' for r in ROWS))
    elif kind == "jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    elif kind == "parquet":
        pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path)
    else:
        import datasets

        datasets.Dataset.from_list(ROWS).save_to_disk(str(path))
    return path


@pytest.mark.usefixtures("long")
@pytest.mark.parametrize("kind", ["csv", "jsonl", "parquet", "saved"])
def test_every_kind_of_file_is_read_in_pieces(kind: str, tmp_path: Path) -> None:
    columns = sources.read(written(kind, tmp_path), where="data.train")
    assert isinstance(columns["text"], LongText)
    assert isinstance(columns["id"], list)
    assert {name: list(values) for name, values in columns.items()} == {n: [r[n] for r in ROWS] for n in ROWS[0]}


@pytest.mark.usefixtures("long")
def test_requests_find_records_in_it(tmp_path: Path) -> None:
    columns = sources.read(written("csv", tmp_path), where="data.train")
    assert matching(columns, "text == 'water engine w3, said 3'") == [3]
    texts, labels = TextClassification.read(columns, ["text"], "label", ["water"], where="data.train")
    assert not isinstance(texts, tuple)
    request = resolve(Records(tuple(r["id"] for r in ROWS), texts, labels), ["004"], RequestConfig())
    assert (request.forget, len(request.retain)) == ((4,), 9)
    assert texts[4] == ("water engine w4, said 4",)
    assert list(texts[8:]) == [(ROWS[8]["text"],), (ROWS[9]["text"],)]


def test_tokens_on_demand_are_those_of_all_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    texts = tuple((f"water engine w{i}" + " w7" * (i % 5),) for i in range(30))
    records = Records(tuple(map(str, range(30))), texts, tuple(i % 3 for i in range(30)))
    task = TextClassification(tiny_tokenizer(), 16, ("a", "b", "c"))
    whole = task.encode(records)
    monkeypatch.setattr("expunge.tasks.text_classification.MANY", 25)
    monkeypatch.setattr(on_demand, "MANY", 12)
    monkeypatch.setattr(on_demand, "_KEPT", 4)
    lazy = task.encode(records)
    assert isinstance(lazy.input_ids, OnDemand)
    assert list(lazy.input_ids) == list(whole.input_ids)
    assert (lazy.labels, lazy.lengths, lazy.offsets) == (whole.labels, whole.lengths, whole.offsets)
    assert (lazy.token_types is None) == (whole.token_types is None)
    many = lazy.take(range(5, 30))
    assert isinstance(many.input_ids, OnDemand)
    assert list(many.input_ids) == whole.input_ids[5:]
    few = many.take([3, 0, 3])
    assert few.input_ids == [whole.input_ids[i] for i in (8, 5, 8)]
    for name, tensor in task.collate(many, [20, 1]).inputs.items():
        assert tensor.equal(task.collate(whole, [25, 6]).inputs[name])
