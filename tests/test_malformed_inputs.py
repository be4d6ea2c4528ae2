"""Malformed input of any kind: an exit code, the value and the way out, no traceback, no file left, inputs untouched."""

from __future__ import annotations

import html
from pathlib import Path

import pytest

from conftest import call
from malformed_data import DATA
from malformed_desk import Bad, Desk, jsonl, make_desk
from malformed_settings import SETTINGS
from test_bad_input import CASES
from test_cli import digest

ALL = [*DATA, *SETTINGS]


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("desk"))


@pytest.mark.parametrize("bad", ALL, ids=[bad.name for bad in ALL])
def test_it_is_refused(desk: Desk, tmp_path: Path, monkeypatch, bad: Bad) -> None:
    temporary = tmp_path / "temporary"
    temporary.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(temporary))
    words = bad.words(desk, tmp_path)
    before = digest(desk.folder), digest(tmp_path)
    code, out, error = call(words)
    said = error if bad.code != 3 else out
    assert code == bad.code, said
    for word in (*bad.seen, bad.way_out):
        assert word in said
    assert "Traceback" not in out + error
    assert "\x1b" not in out + error, "no control character of an input reaches the terminal"
    assert (digest(desk.folder), digest(tmp_path)) == before, "nothing is written, inputs are untouched"
    assert not any(temporary.iterdir())


def test_the_table_is_long_and_names_each_case_once() -> None:
    names = [bad.name for bad in ALL] + [name for name, _, _ in CASES]
    assert len(ALL) >= 80
    assert len(set(names)) == len(names)


@pytest.mark.parametrize("kind", ["classifier", "tagger", "causal"])
def test_nothing_is_wrong_with_the_desk_itself(desk: Desk, tmp_path: Path, kind: str) -> None:
    """Else a case could be refused for another reason than its own."""
    words = desk.run(tmp_path, kind, "check")
    code, out, error = call(words)
    assert code == 0, error
    assert "Nothing wrong found. 40 training records: 1 to forget, 39 to retain" in out


def test_scripts_in_ids_and_class_names_are_shown_as_text(desk: Desk, tmp_path: Path) -> None:
    """They are no mistake: a run goes through, and its report shows them as what they are."""
    import json

    script = "<script>alert('x')</script>"
    rows = [{**row, "label": row["label"].replace("water", script)} for row in desk.rows()]
    rows[0]["id"] = "<img src=x onerror=alert(1)>"
    held = [{**row, "label": row["label"].replace("water", script)} for row in desk.rows("held.csv")]

    def renamed(folder: Path) -> None:
        values = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        values["id2label"]["0"] = script
        (folder / "config.json").write_text(json.dumps(values), encoding="utf-8")

    (tmp_path / "ids.txt").write_text(rows[0]["id"] + "\n", encoding="utf-8")
    words = desk.run(
        tmp_path, model=desk.model(tmp_path, renamed), data=jsonl(tmp_path / "data.jsonl", rows), show_ids=True,
        held_out=jsonl(tmp_path / "held.jsonl", held), forget=tmp_path / "ids.txt",
    )  # fmt: skip
    code, _, error = call(words)
    assert code == 0, error
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "<script>alert" not in page
    assert page.count("<script") == 2, "the report's own script, and its data"
    assert "<img" not in page
    assert html.escape(rows[0]["id"]) in page
