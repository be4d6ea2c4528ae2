"""Read one table from a file into plain columns: CSV, TSV, JSON lines, JSON, Parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

from expunge.data.long_text import joined
from expunge.data.records import Columns
from expunge.data.unpacking import must_be_parquet_of_its_size, must_be_text

__all__ = ["TABLES", "from_rows"]

_ROWS = 10_000  # read in one go
_DEEP = "nested too deeply"


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys each stand there once: of two values one would be lost."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f'"{next(name for name in names if names.count(name) > 1)}" stands there twice')
    return found


_JSON = json.JSONDecoder(object_pairs_hook=_once)


def _read_csv(path: Path, separator: str = ",") -> Columns:
    import pandas

    must_be_text(path)
    if separator == "\t":
        _must_close_its_quotes(path)
    how: dict[str, Any] = {"dtype": str, "keep_default_na": False, "sep": separator, "encoding": "utf-8-sig"}
    try:
        names = [str(name) for name in pandas.read_csv(path, header=None, nrows=1, **how).iloc[0]]
        frames: Any = pandas.read_csv(path, chunksize=_ROWS, **how)
        with frames:
            columns = joined(map(_of_frame, frames), names)
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from None
    except pandas.errors.ParserError as error:
        with path.open(encoding="utf-8-sig") as file:
            semicolons = file.readline().count(";")
        hint = "; its values seem to be separated by semicolons: save it with commas" if semicolons else ""
        raise ValueError((str(error).splitlines() or ["no table"])[0] + hint) from None
    if len(names) == 1 and ";" in names[0]:
        raise ValueError("its values seem to be separated by semicolons: save it with commas, or as .tsv with tabs")
    if twice := [name for name in names if names.count(name) > 1]:
        raise ValueError(f'the column "{twice[0]}" stands in its header twice')
    return columns


def _must_close_its_quotes(path: Path) -> None:
    """Tables with tabs are often written without quoting: there a quote mark is part of a text, and would be lost."""
    with path.open(encoding="utf-8-sig", errors="replace", newline="") as lines:
        for number, line in enumerate(lines, start=1):
            if '"' not in line:
                continue
            for value in line.rstrip("\r\n").split("\t"):
                quoted = value.startswith('"')
                if quoted and (len(value) < 2 or not value.endswith('"') or '"' in value[1:-1].replace('""', "")):
                    raise ValueError(
                        f"line {number}: a value begins with a quote mark that does not close it; put it in quotes whole, with "
                        "quote marks inside doubled and no line break, or save the table as .jsonl"
                    )


def _of_frame(frame: Any) -> Columns:
    import pandas

    if not isinstance(frame.index, pandas.RangeIndex):  # pandas would take the first column for the rows' names
        raise ValueError(f"its rows have more values than the {len(frame.columns)} names of its header")
    return {str(name): frame[name].tolist() for name in frame.columns}


def _read_tsv(path: Path) -> Columns:
    return _read_csv(path, separator="\t")


def _read_jsonl(path: Path) -> Columns:
    must_be_text(path)
    rows = _json_lines(path)
    return joined(map(from_rows, iter(lambda: list(islice(rows, _ROWS)), [])))


def _json_lines(path: Path) -> Iterator[Mapping[str, Any]]:
    line = 0
    with path.open(encoding="utf-8-sig") as lines:
        try:
            for text in lines:
                line += 1
                if text.strip():
                    row = _JSON.decode(text)
                    if not isinstance(row, dict):
                        raise ValueError("not a JSON object")
                    yield row
        except UnicodeDecodeError as error:
            raise ValueError(f"it is not UTF-8: {error.reason}; save it as UTF-8") from None
        except (ValueError, RecursionError) as error:
            raise ValueError(f"line {line}: {_reason(error)}") from None


def _read_json(path: Path) -> Columns:
    must_be_text(path)
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"it is not UTF-8: {error.reason} at byte {error.start}; save it as UTF-8") from None
    if not text.lstrip().startswith("["):
        return _read_jsonl(path)
    try:
        rows = _JSON.decode(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"line {error.lineno}: {error.msg}") from None
    except RecursionError:
        raise ValueError(_DEEP) from None
    if bad := [number for number, row in enumerate(rows, start=1) if not isinstance(row, dict)]:
        raise ValueError(f"item {bad[0]}: not a JSON object")
    return from_rows(rows)


def _reason(error: Exception) -> str:
    if isinstance(error, RecursionError):
        return _DEEP
    return error.msg if isinstance(error, json.JSONDecodeError) else str(error)


def _read_parquet(path: Path) -> Columns:
    import pyarrow.parquet

    must_be_parquet_of_its_size(path)
    with pyarrow.parquet.ParquetFile(path) as file:
        return joined((piece.to_pydict() for piece in file.iter_batches(_ROWS)), file.schema_arrow.names)


def from_rows(rows: Sequence[Mapping[str, Any]]) -> Columns:
    """Columns of rows; a row that lacks one has None there."""
    names = list(dict.fromkeys(name for row in rows for name in row))
    return {name: [row.get(name) for row in rows] for name in names}


TABLES: dict[str, Callable[[Path], Columns]] = {
    ".csv": _read_csv,
    ".tsv": _read_tsv,
    ".jsonl": _read_jsonl,
    ".json": _read_json,
    ".parquet": _read_parquet,
}
"""How a file of a suffix is read; each raises a ValueError (of pandas, pyarrow or our own), an OSError or a KeyError."""
