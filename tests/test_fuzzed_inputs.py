"""Any bytes in a file of records, ids or settings end in records or in an error of ours, never in another exception."""

from __future__ import annotations

import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from expunge.config import Recipe, RequestConfig, RunConfig, read_recipe
from expunge.data import sources
from expunge.data.request import read_request
from expunge.errors import Problem, UsageError, printable
from expunge.history.link import BrokenLinkError, Link
from expunge.reading import Kind, read_records
from expunge.record import RunRecord
from expunge.tasks.generation import Generation
from expunge.tasks.text_classification import TextClassification
from expunge.tasks.token_classification import TokenClassification

FUZZ = settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])

# Bytes at random rarely get past the first character of a format: most are of its own pieces, in any order.
PIECES: dict[str, list[bytes]] = {
    ".csv": [b"id", b"text", b"label", b",", b'"', b"\n", b"\r", b"\r\n", b"water", b"7", b"\xef\xbb\xbf", b"\xff", b"\0",
             b";"],
    ".jsonl": [b'{"id": "a", "text": "x", "label": "water"}', b"\n", b"{", b"}", b"[", b"]", b'"id"', b":", b"1e999", b"NaN",
               b'"\\ud83d"',
               b",", b"null", b"\xff", b"\0", b"9" * 5000],
    ".conll": [b"Anna", b"\t", b" ", b"B-water", b"O", b"\n", b"\r", b"# id: a", b"# ", b"-DOCSTART-", b"\xff", b"\0"],
}  # fmt: skip
PIECES[".tsv"], PIECES[".json"] = [*PIECES[".csv"], b"\t"], PIECES[".jsonl"]
TOML = ["[model]", "[training]", "[[data]]", "seed", "method", "name", "epochs", " = ", "1", "-1", "1e400", "nan", "'npo'",
        '"', "[", "]", "{", "}", "\n", "true", "2024-01-01", ".", "path", "x\\u0000"]  # fmt: skip
KINDS = (
    (Kind(TextClassification, ("water", "music")), ("text",), "label"),
    (Kind(TokenClassification, ("O", "B-water")), ("tokens",), "ner_tags"),
    (Kind(Generation, ("a", "b")), ("prompt",), "answer"),
)


def refused(function: Callable[..., Any], *args: Any) -> list[Problem]:
    """The problems a call is refused for, each with its way out; none where it is not."""
    try:
        function(*args)
    except UsageError as error:
        problems = list(error.problems)
    else:
        return []
    assert problems
    assert all(problem.what and problem.way_out for problem in problems)
    return problems


def read_and_use(path: Path) -> None:
    """Whatever columns a file has, records of every task are read of them, or every problem is told."""
    columns = sources.read(path, where="data.train")
    assert len({len(values) for values in columns.values()}) == 1
    some = list(columns)
    for kind, _, _ in KINDS:
        config = RunConfig.from_dict({"data": {"text": [str(some[0])], "label": str(some[-1]), "id": str(some[0])}})
        if not refused(read_records, columns, config, kind, "data.train", True):
            records = read_records(columns, config, kind, "data.train", True)
            assert len(records) == len(columns[some[0]])
            assert len(set(records.ids)) == len(records)
            records.sha256()


@pytest.mark.parametrize("suffix", PIECES)
@FUZZ
@given(data=st.data())
def test_readers_of_text(tmp_path: Path, suffix: str, data: st.DataObject) -> None:
    pieces = st.lists(st.sampled_from(PIECES[suffix]) | st.binary(max_size=6), max_size=24).map(b"".join)
    path = tmp_path / f"data{suffix}"
    path.write_bytes(data.draw(pieces))
    assert all(path.name in problem.what for problem in refused(read_and_use, path))


@FUZZ
@given(place=st.integers(0, 3000), change=st.binary(min_size=1, max_size=8), cut=st.integers(0, 200))
@example(place=400, change=b"u", cut=100)  # sizes for which pyarrow 26 ends the process when asked for metadata
@example(place=803, change=b"\x8c", cut=100)
def test_reader_of_parquet(tmp_path: Path, place: int, change: bytes, cut: int) -> None:
    """A good file with some bytes changed and its end cut off."""
    import pyarrow
    import pyarrow.parquet

    sink = io.BytesIO()
    rows = {"id": ["a", "b"] * 20, "text": ["river", "engine"] * 20, "label": [0, 1] * 20, "tokens": [["x"], []] * 20}
    pyarrow.parquet.write_table(pyarrow.table(rows), sink)
    content = bytearray(sink.getvalue())
    place %= len(content)
    content[place : place + len(change)] = change
    path = tmp_path / "data.parquet"
    path.write_bytes(bytes(content[: len(content) - (cut if cut < 100 else 0)]))
    assert all(path.name in problem.what for problem in refused(read_and_use, path))


@FUZZ
@given(
    content=st.lists(
        st.sampled_from([b"r1", b"\n", b"\r", b" ", b"\0", b"\xff", b"\xe2\x80\xa8"]) | st.binary(max_size=4)
    ).map(b"".join)
)
def test_lists_of_ids(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "ids.txt"
    path.write_bytes(content)
    config = RequestConfig(file=str(path))
    if not refused(read_request, config, "id", None):
        ids = read_request(config, "id", None)
        assert ids
        assert all(record_id == record_id.strip() != "" for record_id in ids)


@FUZZ
@given(text=st.lists(st.sampled_from(TOML) | st.text(max_size=4), max_size=24).map("".join))
def test_configs_and_recipes(tmp_path: Path, text: str) -> None:
    path = tmp_path / "run.toml"
    path.write_bytes(text.encode(errors="surrogatepass"))
    for read, kind in ((RunConfig.load, RunConfig), (read_recipe, Recipe)):
        assert refused(read, path) or isinstance(read(path), kind)


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from(["npo", "x\0", "~x/y", "nan"]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)


def keys() -> list[tuple[str, str]]:
    config = RunConfig.from_dict({}).as_dict()
    return [(section, key) for section, values in config.items() if isinstance(values, dict) for key in values]


@settings(max_examples=300, deadline=None)
@given(key=st.sampled_from(keys()), value=VALUES)
def test_any_value_of_any_setting(key: tuple[str, str], value: Any) -> None:
    """It is taken as it is, and then written and read back to the same, or it is refused by its name."""
    section, name = key
    values = {section: {name: value}}
    problems = refused(RunConfig.from_dict, values)
    assert all(problem.where.startswith(section) for problem in problems)
    if not problems:
        config = RunConfig.from_dict(values)
        assert RunConfig.from_dict(config.as_dict()) == config


@settings(max_examples=150, deadline=None)
@given(words=st.lists(st.text(max_size=6) | st.builds("{}.{}={}".format, st.sampled_from(["stop", "seed", "x", ""]),
       st.text(max_size=6), st.sampled_from(["1", "[", "'", "{a=1}", "nan", "9" * 5000, "x\0"])), max_size=3))  # fmt: skip
def test_words_of_set(words: list[str]) -> None:
    problems = refused(RunConfig.from_dict, {}, words)
    assert problems or all("=" in word for word in words)


@FUZZ
@given(content=st.binary(max_size=40) | st.builds(lambda value: json.dumps(value).encode(), VALUES)
       | st.dictionaries(st.sampled_from(["schema", "measurements", "records", "content", "sha256"]), st.just(1) | VALUES).map(
           lambda value: json.dumps(value).encode()))  # fmt: skip
def test_records_and_links(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(UsageError):
        RunRecord.read(tmp_path)
    with pytest.raises(BrokenLinkError):
        Link.from_bytes(content)


@given(text=st.text())
def test_what_a_terminal_is_given_holds_no_control_character_but_line_breaks(text: str) -> None:
    shown = printable(text)
    shown.encode()
    assert all(letter == "\n" or not (letter < " " or "\x7f" <= letter <= "\x9f") for letter in shown)
    assert printable(shown) == shown
