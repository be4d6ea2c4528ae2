"""Columns of much text, kept on disk and read again value by value."""

from __future__ import annotations

import mmap
import tempfile
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import pairwise
from typing import Any, overload

__all__ = ["LongText", "joined", "text_rows"]

_LONG = 2**25
"""Characters of a column from which on it is kept on disk: less does not weigh beside a model."""


class LongText(Sequence["str | None"]):
    """Many texts, in a temporary file that no folder lists: it is gone when the process ends, however it ends.

    (On Windows a folder lists it until then.) The system keeps in memory what of it is read often.
    """

    def __init__(self) -> None:
        self._file: Any = tempfile.TemporaryFile(prefix="expunge-")  # noqa: SIM115
        weakref.finalize(self, self._file.close)
        self._ends = array("q", [0])
        self._missing: set[int] = set()
        self._bytes: mmap.mmap | None = None

    def extend(self, values: Iterable[str | None]) -> None:
        """Write further texts behind those that are there."""
        end, written = self._ends[-1], []
        for value in values:
            if value is None:
                self._missing.add(len(self._ends) - 1)
            else:
                written.append(value.encode("utf-8", "surrogatepass"))
                end += len(written[-1])
            self._ends.append(end)
        self._file.seek(0, 2)
        self._file.write(b"".join(written))
        self._bytes = None

    def __len__(self) -> int:
        return len(self._ends) - 1

    @overload
    def __getitem__(self, index: int) -> str | None: ...
    @overload
    def __getitem__(self, index: slice) -> list[str | None]: ...
    def __getitem__(self, index: int | slice) -> str | list[str | None] | None:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        place = index if index >= 0 else len(self) + index
        if not 0 <= place < len(self):
            raise IndexError(index)
        return self._read(place, self._ends[place], self._ends[place + 1])

    def __iter__(self) -> Iterator[str | None]:
        for place, (start, end) in enumerate(pairwise(self._ends)):
            yield self._read(place, start, end)

    def _read(self, place: int, start: int, end: int) -> str | None:
        if start == end:  # an empty file cannot be mapped
            return None if place in self._missing else ""
        if self._bytes is None:
            self._file.flush()
            self._bytes = mmap.mmap(self._file.fileno(), 0, access=mmap.ACCESS_READ)
        return self._bytes[start:end].decode("utf-8", "surrogatepass")


class _Rows(Sequence["tuple[Any, ...]"]):
    """Columns side by side, a tuple a row, made when it is asked for."""

    def __init__(self, columns: Sequence[Sequence[Any]]) -> None:
        self._columns = columns

    def __len__(self) -> int:
        return len(self._columns[0])

    @overload
    def __getitem__(self, index: int) -> tuple[Any, ...]: ...
    @overload
    def __getitem__(self, index: slice) -> list[tuple[Any, ...]]: ...
    def __getitem__(self, index: int | slice) -> tuple[Any, ...] | list[tuple[Any, ...]]:
        if isinstance(index, slice):
            return [self[i] for i in range(*index.indices(len(self)))]
        return tuple(column[index] for column in self._columns)

    def __iter__(self) -> Iterator[tuple[Any, ...]]:
        return zip(*self._columns, strict=True)


def text_rows(columns: Sequence[Sequence[Any]]) -> Sequence[tuple[Any, ...]]:
    """The rows of columns: in memory, or read as they are asked for where one of them lies on disk."""
    return _Rows(columns) if any(isinstance(c, LongText) for c in columns) else tuple(zip(*columns, strict=True))


def joined(chunks: Iterable[Mapping[str, Sequence[Any]]], names: Iterable[str] = ()) -> dict[str, Sequence[Any]]:
    """The columns of a table that comes in pieces; a column of more than 32 million characters is kept on disk.

    Args:
        chunks: Columns of equal length, piece after piece. A column that a piece lacks has None there.
        names: Columns that there are even where no piece has them.
    """
    columns: dict[str, Any] = {name: [] for name in names}
    characters: dict[str, float] = {}
    count = 0
    for chunk in chunks:
        size = len(next(iter(chunk.values()), ()))
        columns |= {name: [None] * count for name in chunk if name not in columns}
        for name in columns:
            values = chunk[name] if name in chunk else [None] * size
            text = all(value is None or isinstance(value, str) for value in values)
            if not text and isinstance(columns[name], LongText):
                columns[name] = list(columns[name])
            columns[name].extend(values)
            characters[name] = characters.get(name, 0) + sum(map(len, filter(None, values))) if text else float("-inf")
            if characters[name] > _LONG and isinstance(columns[name], list):
                kept, columns[name] = columns[name], LongText()
                columns[name].extend(kept)
        count += size
    return columns
