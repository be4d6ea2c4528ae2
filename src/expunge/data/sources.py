"""Read records from files, saved datasets, hub ids and in-memory objects into plain columns.

Nothing is cached on disk but what `datasets` itself downloads for a hub id.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.config_paths import meant_beside
from expunge.data.conll import CONLL_SUFFIXES, read_conll
from expunge.data.long_text import joined
from expunge.data.records import Columns
from expunge.data.tables import TABLES, from_rows
from expunge.errors import Problem, UsageError
from expunge.options import did_you_mean

__all__ = ["SUFFIXES", "Columns", "pick", "read"]

SUFFIXES = (*TABLES, *CONLL_SUFFIXES)
_ROWS = 10_000  # read in one go
_SHOWN = "a .csv, .tsv, .jsonl, .json, .parquet or .conll file"


def read(source: Any, *, where: str, split: str | None = None, file_format: str | None = None) -> Columns:
    """All columns of a source, as lists of equal length.

    Args:
        source: A path (``.csv``, ``.tsv``, ``.jsonl``, ``.json`` (an object a line, or one list of them), ``.parquet``,
            ``.conll`` and its like, or a folder written by ``save_to_disk``), a hub id, a `datasets.Dataset`, a
            `pandas.DataFrame`, or a list of dicts. CSV values are read as text, so an id like ``007`` keeps its zeros.
            Class numbers that the source itself has names for are given by name.
        where: The setting this source was given in, for messages.
        split: Split to take where the source has splits.
        file_format: ``"conll"`` reads a text file of any other suffix as `expunge.data.conll.read_conll` does.

    Raises:
        UsageError: It cannot be read, or has no rows.
    """
    if isinstance(source, str | Path):
        columns = _read_path(Path(source).expanduser(), str(source), where, split, file_format)
    else:
        columns = _read_object(source, where, split)
    if not columns or not len(next(iter(columns.values()))):
        raise UsageError(Problem(where, f"{_shown(source)} has no rows", "Give a source with at least one record."))
    return columns


def pick(columns: Columns, names: Sequence[str], *, where: str, source: Any) -> list[Problem]:
    """One problem for each of `names` that is no column."""
    named = " --text, --label and --id (data.text, ...) name others." if where.startswith("data.") else ""
    chats = [name for name in ("messages", "conversations") if name in columns]
    told = f"Bring each record's {chats[0]} to a prompt and an answer. " if chats else ""
    return [
        Problem(
            where,
            f'{_shown(source)} has no column "{name}"',
            f"{did_you_mean(name, columns)}{told}Its columns: {', '.join(map(str, columns))}.{named}",
        )
        for name in names
        if name not in columns
    ]


def _shown(source: Any) -> str:
    return f'"{source}"' if isinstance(source, str | Path) else f"the {type(source).__name__} given"


def _read_path(path: Path, name: str, where: str, split: str | None, file_format: str | None) -> Columns:
    suffix = path.suffix.lower()
    if path.is_dir():
        return _read_saved(path, where, split)
    if path.is_file():
        readers = {**TABLES, **dict.fromkeys(CONLL_SUFFIXES, read_conll)}
        if file_format == "conll" and suffix not in (".jsonl", ".json", ".parquet"):
            readers[suffix] = read_conll
        if suffix not in readers:
            way_out = f"Known: {', '.join(SUFFIXES)}, or a saved dataset. A word and its tag a line: --format conll."
            raise UsageError(Problem(where, f'"{name}" is of an unknown kind', way_out))
        try:
            return readers[suffix](path)
        except UsageError:
            raise
        except (ValueError, OSError, KeyError) as error:  # parse errors of pandas and pyarrow are ValueErrors
            problem = Problem(
                where, f'"{name}" cannot be read ({_first_line(error)})', "Mend the file or give another."
            )
            raise UsageError(problem) from None
    if suffix in SUFFIXES or path.is_absolute() or name.startswith(".") or name.count("/") > 1 or not name:
        way_out = f"{meant_beside(path)}Give {_SHOWN}, a folder from save_to_disk, or a hub id."
        raise UsageError(Problem(where, f'"{name}" does not exist', way_out))
    return _read_hub(name, where, split)


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]


def _read_saved(path: Path, where: str, split: str | None) -> Columns:
    import datasets

    try:
        loaded = datasets.load_from_disk(str(path))
    except (FileNotFoundError, ValueError, OSError):
        way_out = "Give a file, or a folder written by datasets' save_to_disk."
        raise UsageError(Problem(where, f'the folder "{path}" holds no saved dataset', way_out)) from None
    return _read_object(loaded, where, split)


def _read_hub(name: str, where: str, split: str | None) -> Columns:
    import datasets

    try:
        loaded = datasets.load_dataset(name, split=split)
    except Exception as error:  # the hub client raises many kinds; each means the source cannot be had
        way_out = f"{meant_beside(name)}Give a file that exists, or a hub id you can reach."
        what = f'"{name}" is no file and could not be loaded as a hub id ({_first_line(error)})'
        raise UsageError(Problem(where, what, way_out)) from None
    return _read_object(loaded, where, split)


def _read_object(source: Any, where: str, split: str | None) -> Columns:
    import datasets
    import pandas

    if isinstance(source, datasets.DatasetDict):
        if split not in source:
            problem = Problem(where, f'there is no split "{split}"', f"Splits: {', '.join(map(str, source))}.")
            raise UsageError(problem)
        source = source[split]
    if isinstance(source, datasets.Dataset):
        pieces: Any = source.with_format(None).iter(_ROWS)
        columns = joined(pieces, source.column_names)
        for name, feature in source.features.items():
            inner = getattr(feature, "feature", None)
            if isinstance(feature, datasets.ClassLabel):  # the names say more than the numbers
                columns[name] = [_named(v, feature) for v in columns[name]]
            elif isinstance(inner, datasets.ClassLabel):
                columns[name] = [row and [_named(v, inner) for v in row] for row in columns[name]]
        return columns
    if isinstance(source, pandas.DataFrame):
        return {str(name): [_plain(value) for value in source[name].tolist()] for name in source.columns}
    if isinstance(source, Mapping):
        return {str(name): list(values) for name, values in source.items()}
    if isinstance(source, Sequence) and all(isinstance(row, Mapping) for row in source):
        return from_rows(source)
    way_out = "Give a path, a datasets.Dataset, a pandas.DataFrame or a list of dicts."
    raise UsageError(Problem(where, f"a {type(source).__name__} cannot be read", way_out))


def _named(number: Any, names: Any) -> str | None:
    return None if number is None or number < 0 else names.int2str(number)


def _plain(value: Any) -> Any:
    """Lists within a data frame may be arrays, and a gap of a nullable column is no value."""
    if type(value).__name__ == "NAType":
        return None
    return value.tolist() if hasattr(value, "tolist") and getattr(value, "ndim", 0) else value
