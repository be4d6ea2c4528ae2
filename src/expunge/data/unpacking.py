"""Whether a file is what its name says, and does not unpack to more than anybody meant."""

from __future__ import annotations

from pathlib import Path

__all__ = ["must_be_parquet_of_its_size", "must_be_text"]

_BEGINNINGS = {
    b"\x1f\x8b": "a gzip archive",
    b"PK\x03\x04": "a zip archive, as an Excel workbook is one",
    b"BZh": "a bzip2 archive",
    b"\xfd7zXZ\x00": "an xz archive",
    b"\x28\xb5\x2f\xfd": "a zstd archive",
}
_MOST = 2**30  # bytes that any Parquet file may unpack to
_RATIO = 200  # times its own size that a larger one may; real tables of text reach 3 to 20
_A_VALUE = 8  # bytes of any value in a column of ours, be it none
_CHUNK = 2**22


def must_be_text(path: Path) -> None:
    """Refuse archives, UTF-16 and NUL bytes, of which readers of text make nothing, or something else.

    Raises:
        ValueError: It is none.
    """
    _must_be_no_archive(path)
    with path.open("rb") as file:
        start = file.read(4)
        if start[:2] in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError("it is UTF-16, not UTF-8; save it as UTF-8")
        if start == b"PAR1":
            raise ValueError("it is a Parquet file; name it .parquet")
        file.seek(0)
        done = 0
        while chunk := file.read(_CHUNK):
            if (place := chunk.find(b"\0")) >= 0:
                raise ValueError(f"byte {done + place} is NUL: it is no text, or not UTF-8; save it as UTF-8")
            done += len(chunk)


def must_be_parquet_of_its_size(path: Path) -> None:
    """Refuse a Parquet file that is small on disk and huge in memory.

    What a few bytes can stand for are rows that are all the same, and texts that a dictionary holds once. Both are
    counted before anything is unpacked.

    Raises:
        ValueError: It unpacks to more than 1 GiB and to more than 200 times its size.
    """
    import pyarrow.parquet

    _must_be_no_archive(path)
    size = path.stat().st_size
    most = max(_MOST, _RATIO * size)
    with pyarrow.parquet.ParquetFile(path, pre_buffer=False) as file:
        meta = file.metadata
        for i in range(meta.num_row_groups):  # a row raises what is wrong with a group; its metadata end the process
            next(file.iter_batches(batch_size=1, row_groups=[i]), None)
        groups = [meta.row_group(i) for i in range(meta.num_row_groups)]
        columns = [group.column(i) for group in groups for i in range(group.num_columns)]
        unpacked = sum(max(c.total_uncompressed_size, 0) + _A_VALUE * c.num_values for c in columns)
        if unpacked > most:
            _refuse(unpacked, size)
        named_once = {
            c.path_in_schema for c in columns if c.physical_type == "BYTE_ARRAY" and any("DICT" in e for e in c.encodings)
        }  # fmt: skip
    for path_in_schema in sorted(named_once):
        unpacked += _text_bytes(path, path_in_schema, (most - unpacked))
        if unpacked > most:
            _refuse(unpacked, size)


def _text_bytes(path: Path, column: str, most: int) -> int:
    """Bytes of a column's texts, each counted as often as it stands there; counting ends above `most`."""
    import numpy as np
    import pyarrow
    import pyarrow.compute
    import pyarrow.parquet

    total = 0
    with pyarrow.parquet.ParquetFile(path, read_dictionary=[column]) as file:
        for group in range(file.metadata.num_row_groups):
            table = file.read_row_group(group, columns=[column])
            for chunk in table.column(0).chunks:
                values = chunk
                while pyarrow.types.is_list(values.type) or pyarrow.types.is_large_list(values.type):
                    values = values.flatten()
                if not pyarrow.types.is_dictionary(values.type):
                    continue
                lengths = pyarrow.compute.binary_length(values.dictionary).to_numpy(zero_copy_only=False)  # pyright: ignore
                known = values.indices.drop_null().to_numpy(zero_copy_only=False)
                total += int(np.bincount(known, minlength=len(lengths)).astype(float) @ lengths)
            if total > most:
                break
    return total


def _must_be_no_archive(path: Path) -> None:
    with path.open("rb") as file:
        start = file.read(8)
    for beginning, kind in _BEGINNINGS.items():
        if start.startswith(beginning):
            raise ValueError(f"it is {kind}. Unpack it first, or save the table as CSV")


def _refuse(unpacked: int, size: int) -> None:
    shown = f"it unpacks to more than {unpacked / 2**30:.1f} GiB from {size / 2**20:.1f} MiB"
    raise ValueError(f"{shown}; if that is what it holds, write it without compression and dictionaries")
