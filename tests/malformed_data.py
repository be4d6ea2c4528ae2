"""Malformed files, records, ids and requests: what each message must name, and the way out it must show."""

# ruff: noqa: E501 - a table, one case a line

from __future__ import annotations

import gzip
import io
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from conftest import write_csv
from malformed_desk import Bad, Desk, Words, jsonl

__all__ = ["DATA"]


def file(name: str, content: Callable[[Desk], bytes] | bytes | str, option: str = "data", **changes: object) -> Words:
    """A run with a file of its own in the place of one of the desk's."""

    def words(desk: Desk, tmp: Path) -> list[str]:
        made = content(desk) if callable(content) else content
        (tmp / name).write_bytes(made.encode() if isinstance(made, str) else made)
        return desk.run(tmp, **{option: tmp / name}, **changes)  # pyright: ignore

    return words


def rows(change: Callable[[list[dict[str, Any]]], object], kind: str = "classifier", **changes: object) -> Words:
    """A run on the task's own records as JSON lines, changed in place."""

    def words(desk: Desk, tmp: Path) -> list[str]:
        own = desk.rows("train.csv" if kind == "classifier" else f"{kind}.jsonl")
        change(own)
        return desk.run(tmp, kind, data=jsonl(tmp / "data.jsonl", own), **changes)

    return words


def first(kind: str = "classifier", **values: object) -> Words:
    """The first record with these values."""
    return rows(lambda own: own[0].update(values), kind)


def table(change: Callable[[list[dict[str, str]]], list[dict[str, str]]], **changes: object) -> Words:
    """A run on the records as CSV, changed."""
    return lambda desk, tmp: desk.run(tmp, data=write_csv(tmp / "data.csv", change(desk.rows())), **changes)


def request(content: str | bytes, name: str = "ids.txt", **changes: object) -> Words:
    """A run with a request file of its own."""
    return file(name, content, "forget", **changes)


def text_of(desk: Desk) -> str:
    return (desk.folder / "train.csv").read_text(encoding="utf-8")


def numbered(count: int = 40) -> Callable[[list[dict[str, str]]], list[dict[str, str]]]:
    """Ids 000, 001 ... in the place of the desk's."""
    return lambda own: [{**row, "id": f"{i:03}"} for i, row in enumerate(own[:count])]


def parquet(make: Callable[[Desk], Any], **options: Any) -> Callable[[Desk], bytes]:
    def content(desk: Desk) -> bytes:
        import pyarrow
        import pyarrow.parquet

        sink = io.BytesIO()
        pyarrow.parquet.write_table(pyarrow.table(make(desk)), sink, **options)
        return sink.getvalue()

    return content


def columns(desk: Desk) -> dict[str, list[Any]]:
    own = desk.rows()
    return {name: [row[name] for row in own] for name in own[0]}


def bomb(desk: Desk) -> Any:
    """A few hundred kilobytes that unpack to 3 GiB: one text of 1 MB, 3,000 times, which a dictionary holds once."""
    del desk
    import pyarrow

    texts = pyarrow.DictionaryArray.from_arrays(pyarrow.array([0] * 3000, pyarrow.int32()), ["river " * 170_000])
    return {"id": [str(i) for i in range(3000)], "text": texts, "label": ["water"] * 3000}


def rows_bomb(desk: Desk) -> Any:
    """500 million empty rows in a few kilobytes."""
    del desk
    import pyarrow

    return {"text": pyarrow.nulls(500_000_000, pyarrow.null())}


def zipped(desk: Desk) -> bytes:
    """An archive of 64 MB of zeros, as an Excel workbook is an archive."""
    del desk
    sink = io.BytesIO()
    with zipfile.ZipFile(sink, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("data.csv", b"0" * 64_000_000)
    return sink.getvalue()


def zip_bomb(name: str) -> Words:
    return file(name, zipped)


NESTED = '{"id": ' + "[" * 200_000 + "}\n"

DATA: list[Bad] = [
    # encodings and bytes
    Bad("a Latin-1 CSV", file("d.csv", lambda d: text_of(d).replace("river", "río").encode("latin-1")),
        ("d.csv", "not UTF-8"), "save it as UTF-8"),
    Bad("JSON lines in UTF-16", file("d.jsonl", lambda d: '{"id": "a"}'.encode("utf-16")), ("d.jsonl", "not UTF-8"), "save it as UTF-8"),
    Bad("JSON in Latin-1", file("d.json", '[{"text": "río"}]'.encode("latin-1")), ("d.json", "not UTF-8"), "save it as UTF-8"),
    Bad("a request in UTF-16", request("r1-0000\n".encode("utf-16")), ("ids.txt", "not UTF-8"), "one id a line"),
    Bad("a NUL byte in a CSV", file("d.csv", lambda d: text_of(d).replace("river", "ri\0ver").encode()), ("d.csv", "NUL"), "UTF-8"),
    Bad("a NUL character in a text", first(text="ri\0ver"), ("NUL", "row 1"), "Every row needs text"),
    Bad("a NUL byte in a request", request("r1-0\0000\n"), ("ids.txt", "NUL"), "one id a line"),
    Bad("a control character in an id", first(id="r\x1b[2J"), ("r\\x1b[2J",), "printable"),
    Bad("a line break in an id", first(id="r1\n0000"), ("r1\\n0000",), "printable"),
    Bad("half an emoji in an id", first(id="r\ud83d"), ("r\\ud83d",), "printable"),
    Bad("half an emoji in a label", first(label="water\ud83d"), ("water\\ud83d",), "water, machine, music"),
    Bad("a gzip archive named .csv", file("d.csv", lambda d: gzip.compress(text_of(d).encode())), ("d.csv", "gzip"), "Unpack"),
    Bad("a zip bomb named .csv", zip_bomb("d.csv"), ("d.csv", "zip archive"), "Unpack"),
    Bad("a zip bomb named .jsonl", zip_bomb("d.jsonl"), ("d.jsonl", "zip archive"), "Unpack"),
    Bad("a zip bomb named .parquet", zip_bomb("d.parquet"), ("d.parquet", "zip archive"), "Unpack"),
    Bad("a compressed CSV", file("d.csv.gz", lambda d: gzip.compress(text_of(d).encode())), ("d.csv.gz", "unknown kind"), "Known: .csv"),
    Bad("a Parquet bomb of one text", file("d.parquet", parquet(bomb)), ("d.parquet", "GiB"), "without compression"),
    Bad("a Parquet bomb of rows", file("d.parquet", parquet(rows_bomb)), ("d.parquet", "GiB"), "without compression"),
    # tables that are none
    Bad("an empty CSV", file("d.csv", ""), ("d.csv",), "Mend the file"),
    Bad("a CSV of a header alone", file("d.csv", "id,text,label\n"), ("d.csv", "no rows"), "at least one record"),
    Bad("a CSV row too long", file("d.csv", "id,text,label\na,river,water\nb,one,two,three,water\n"), ("d.csv", "line 3"), "Mend"),
    Bad("a CSV row too short", file("d.csv", "id,text,label\na,river,water\nb,river\n"), ("''", "1 records"), "water, machine, music"),
    Bad("a CSV with an open quote", file("d.csv", 'id,text,label\na,river,water\nb,"river,water\n'), ("d.csv", "EOF"), "Mend"),
    Bad("a column twice in a CSV", file("d.csv", "id,text,label,label\na,river,water,music\n"), ("d.csv", '"label"', "twice"), "Mend"),
    Bad("a key twice in a JSON line", file("d.jsonl", '{"id": "a", "text": "x", "id": "b"}\n'), ('"id"', "twice", "line 1"), "Mend"),
    Bad("half a JSON line", file("d.jsonl", '{"id": "a", "text": "riv'), ("d.jsonl", "line 1"), "Mend"),
    Bad("JSON lines of lists", file("d.jsonl", '["a", "river"]\n'), ("line 1", "not a JSON object"), "Mend"),
    Bad("JSON nested without end", file("d.jsonl", NESTED), ("d.jsonl", "nested"), "Mend"),
    Bad("a JSON list nested without end", file("d.json", "[" * 200_000), ("d.json", "nested"), "Mend"),
    Bad("a JSON list of texts", file("d.json", '["river", "engine"]'), ("item 1", "not a JSON object"), "Mend"),
    Bad("a number of 5,000 digits", file("d.jsonl", '{"id": 1' + "0" * 5000 + "}\n"), ("d.jsonl",), "Mend"),
    Bad("text named .parquet", file("d.parquet", "id,text\n"), ("d.parquet", "cannot be read"), "Mend"),
    Bad("an empty Parquet file", file("d.parquet", ""), ("d.parquet", "cannot be read"), "Mend"),
    Bad("a cut Parquet file", file("d.parquet", lambda d: parquet(columns)(d)[:-200]), ("d.parquet", "cannot be read"), "Mend"),
    Bad("a folder that is no dataset", lambda d, t: d.run(t, data=d.folder / "classifier"), ("no saved dataset",), "save_to_disk"),
    Bad("a device", lambda d, t: d.run(t, data="/dev/zero"), ("/dev/zero",), "Give a"),
    Bad("a request from a device without end", lambda d, t: d.run(t, forget="/dev/zero"), ("/dev/zero",), "one id a line"),
    Bad("a name with a NUL", lambda d, t: d.run(t, set='data.train="d\\u0000.csv"', data=None), ("d\\x00.csv",), "Give a"),
    Bad("a name of 5,000 letters", lambda d, t: d.run(t, data="d" * 5000 + ".csv"), ("ddd", "too long"), "Give a"),
    Bad("nobody's home", lambda d, t: d.run(t, data="~nobody-at-all/d.csv"), ("~nobody-at-all",), "Write the whole path"),
    # huge fields
    Bad("a text of two million letters", first(text="a b " * 500_000), ("2,000,000 characters", "row 1"), "1,000,000"),
    Bad("an id of 5,000 letters", first(id="r" * 5000), ("5,000 characters",), "1,000"),
    Bad("a quote that swallows the file", file("d.csv", lambda d: ('id,text,label\na,"' + "river\n" * 300_000 + '",water\nb,river,water\n').encode()),
        ("1,800,000 characters", "row 1"), "quote"),
    # texts, labels, words
    Bad("a number for a text", first(text=7), ("no text", "row 1"), "Every row needs text"),
    Bad("a text that is a list", first(text=["river"]), ("no text", "row 1"), "Every row needs text"),
    Bad("a label out of range", first(label=3), ("3", "1 records"), "water, machine, music"),
    Bad("a negative label", first(label=-1), ("-1",), "water, machine, music"),
    Bad("a label between two", first(label=0.5), ("0.5",), "water, machine, music"),
    Bad("no label", first(label=None), ("None",), "water, machine, music"),
    Bad("a label of the wrong case", first(label="Water"), ("'Water'",), "water, machine, music"),
    Bad("a script for a label", first(label="<script>alert(1)</script>"), ("<script>alert(1)</script>",), "water, machine, music"),
    Bad("a label that clears the screen", first(label="\x1b[2J"), ("\\x1b[2J",), "water, machine, music"),
    Bad("a sentence that is a string", first("tagger", tokens="Anna sings"), ("tokens", "row 1"), "Give lists"),
    Bad("a tag too many", rows(lambda own: own[0]["ner_tags"].append("O"), "tagger"), ("row 1", "words"), "Give each word one tag"),
    Bad("an unknown tag", rows(lambda own: own[0]["ner_tags"].__setitem__(0, "B-wind"), "tagger"), ("'B-wind'",), "B-water"),
    Bad("a tag out of range", rows(lambda own: own[0]["ner_tags"].__setitem__(0, 99), "tagger"), ("99",), "B-water"),
    Bad("a sentence without a word", first("tagger", tokens=[], ner_tags=[]), ("row 1", "no word"), "Leave empty"),
    Bad("a word that is a number", first("tagger", tokens=[7], ner_tags=["O"]), ("tokens", "row 1"), "Give lists"),
    Bad("an empty answer", first("causal", answer=" "), ("empty answer", "row 1"), "leave them out"),
    Bad("no answer", first("causal", answer=None), ("no text", "row 1"), "Every row needs text"),
    Bad("an answer behind the cut", first("causal", prompt="x" * 400), ("1 ",), "model.max_length"),
    # ids
    Bad("ids that lost their zeros", lambda d, t: d.run(
        t, data=write_csv(t / "d.csv", numbered()(d.rows())), set=('request.ids=["7", "12"]',), forget=None),
        ("2 of 2", "7, 12"), 'Did you mean "007" for "7"?'),
    Bad("ids that gained zeros", rows(lambda own: [row.update(id=i) for i, row in enumerate(own)], forget=None,
        set='request.ids=["007"]'), ("1 of 1", "007"), 'Did you mean "7" for "007"?'),
    Bad("ids of another case", request("R1-0000\n"), ("R1-0000",), 'Did you mean "r1-0000" for "R1-0000"?'),
    Bad("ids with a space", first(id=" r1-0000 "), ("r1-0000",), 'Did you mean " r1-0000 " for "r1-0000"?'),
    Bad("an id that is a list", first(id=["r1"]), ("['r1']",), "text or a whole number"),
    Bad("an id that is an object", first(id={"n": 1}), ("{'n': 1}",), "text or a whole number"),
    Bad("a script for an id, twice", rows(lambda own: [row.update(id="<script>alert(1)</script>") for row in own[:2]]),
        ("<script>alert(1)</script>", "several rows"), "Ids must be unique"),
    Bad("numbers and texts that are the same id", rows(lambda own: [own[0].update(id=1), own[1].update(id="1")]),
        ('"1"', "several rows"), "Ids must be unique"),
    # requests
    Bad("a request that is a folder", lambda d, t: d.run(t, forget=d.folder), ("cannot be read",), "one id a line"),
    Bad("a request table without the id column", request("key,text\nr1-0000,river\n", "ids.csv"), ('no column "id"',), "Its columns: key, text"),
    Bad("a request table without ids", request('id,text\n"",river\n', "ids.csv"), ("no id", "ids.csv"), "Give every row an id"),
    Bad("a request table without rows", request("id,text\n", "ids.csv"), ("ids.csv", "no rows"), "at least one"),
    Bad("a request of all records", lambda d, t: d.run(t, forget=d.folder / "train.csv"), ("all 40 records",), "Some records must stay"),
    Bad("a request of binary rubbish", request(bytes(range(128, 256))), ("ids.txt", "not UTF-8"), "one id a line"),
    Bad("a request of no ids by --set", lambda d, t: d.run(t, forget=None, set="request.ids=[]"), ("no records to forget",), "--forget"),
    Bad("ids that are numbers in --set", lambda d, t: d.run(t, forget=None, set="request.ids=[1, 2]"), ("request.ids", "(1, 2)"), "string"),
    Bad("a mention of nothing", lambda d, t: d.run(t, forget=None, forget_mention=" \t"), ("' \\t'",), "Give a name"),
    Bad("a condition with code", lambda d, t: d.run(t, forget=None, forget_where="__import__('os').system('true')"),
        ("__import__",), "column == 'value'"),
    Bad("a condition that writes", lambda d, t: d.run(t, forget=None, forget_where="label.to_csv('written.csv')"), (".to_csv",), "column == 'value'"),
    Bad("a label that no record has", rows(lambda own: [row.update(label="water") for row in own], forget=None, forget_label="music"),
        ('"music"', "no record"), "Name a class that is there"),
    # held-out
    Bad("held-out the training data", lambda d, t: d.run(t, held_out=d.folder / "train.csv"), ("40 of 40",), "--drop-overlap"),
    Bad("calibration the held-out data", lambda d, t: d.run(t, calibration=d.folder / "held.csv"), ("30 calibration records",), "Give files without"),
    Bad("held-out without labels", file("h.csv", "id,text\na,river\nb,engine\n", "held_out"), ('no column "label"',), "Its columns: id, text"),
    Bad("held-out of other classes", file("h.csv", "id,text,label\na,river,wind\n", "held_out"), ("data.held_out", "'wind'"), "water, machine, music"),
    Bad("earlier records of a fresh model", lambda d, t: d.run(t, past_records=d.folder / "train.csv"), ("no earlier requests",), "Leave --past-records out"),
]  # fmt: skip
