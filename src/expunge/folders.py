"""Folders and files that appear whole or not at all."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from expunge.config_paths import path_problem
from expunge.errors import Problem, RunError, UsageError

__all__ = [
    "is_left_over",
    "left_over",
    "must_be_apart",
    "must_be_new",
    "size_of",
    "whole_arrays",
    "whole_file",
    "whole_folder",
]

_LONGEST = 230  # bytes of a name, that those of the folders beside it, with more letters, have 255 at most
_PARTIAL = re.compile(r"\.(?P<name>.+)\.[a-z0-9_]{8}\.partial")


def must_be_new(path: str | Path, *, where: str = "--out") -> list[Problem]:
    """What keeps a folder from being written at `path`."""
    if (problem := path_problem(str(path), where)) is not None:
        return [problem]
    target = Path(path).expanduser()
    if (long := len(target.name.encode(errors="replace"))) > _LONGEST:
        what = f'"{target.name[:60]}...", a name of {long} bytes, is too long for a folder that is written beside its place'
        return [Problem(where, what, f"Give a name of {_LONGEST} bytes at most.")]
    if target.exists() or target.is_symlink():
        return [
            Problem(where, f'"{path}" exists already', "Name a folder that does not exist; nothing is overwritten.")
        ]
    parent = next((p for p in target.absolute().parents if p.exists()), None)
    if parent is None or not parent.is_dir() or not os.access(parent, os.W_OK):
        return [Problem(where, f'"{path}" cannot be made: "{parent}" is not a writable folder', "Name another place.")]
    return []


def must_be_apart(path: str | Path, folder: str | Path, *, where: str = "--out") -> list[Problem]:
    """Why a folder that is read would be changed by writing to `path`."""
    target, read = Path(path).expanduser().resolve(), Path(folder).expanduser()
    if not str(folder) or not read.is_dir() or not target.is_relative_to(read.resolve()):
        return []
    return [Problem(where, f'"{path}" lies within the model "{folder}", which is never changed', "Name another place.")]


@contextlib.contextmanager
def whole_folder(path: str | Path) -> Iterator[Path]:
    """A new folder to fill; it takes its name when the block ends well, and vanishes otherwise.

    Raises:
        UsageError: The folder exists, or its place cannot be written.
        RunError: Writing failed (a full disk, say).
    """
    target = Path(path).expanduser().absolute()
    if problems := must_be_new(target):
        raise UsageError(problems)
    target.parent.mkdir(parents=True, exist_ok=True)
    try:
        beside = Path(tempfile.mkdtemp(prefix=f".{target.name}.", suffix=".partial", dir=target.parent))
    except OSError as error:
        raise RunError(f'writing "{target}" failed ({error.strerror or error}). Nothing was written.') from error
    with _owned(beside):
        yield from _filled(beside, target)


def _filled(beside: Path, target: Path) -> Iterator[Path]:
    try:
        yield beside
        os.chmod(beside, 0o777 & ~_umask())
        for file in sorted(beside.rglob("*")):
            _sync(file)
        _sync(beside)
        os.rename(beside, target)
        _sync(target.parent)
    except OSError as error:
        shutil.rmtree(beside, ignore_errors=True)
        reason = error.strerror or error
        raise RunError(f'writing "{target}" failed ({reason}). Nothing was written.') from error
    except BaseException:
        shutil.rmtree(beside, ignore_errors=True)
        raise


def left_over(target: Path) -> list[Path]:
    """Folders beside `target` that a killed process was filling to take its name, and that no process fills now."""
    found = (path for path in sorted(target.parent.glob(".*.partial")) if is_left_over(path))
    return [path for path in found if _name_of(path) == target.name]


def is_left_over(path: Path) -> bool:
    """Whether a folder was being filled by a process that is no more. False where that cannot be told."""
    if _name_of(path) is None or not path.is_dir() or path.is_symlink():
        return False
    try:
        import fcntl
    except ImportError:  # Windows: nobody knows whose it is
        return False
    try:
        handle = os.open(path, os.O_RDONLY)
    except OSError:
        return False
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    finally:
        os.close(handle)
    return True


def _name_of(partial: Path) -> str | None:
    found = _PARTIAL.fullmatch(partial.name)
    return None if found is None else found["name"]


@contextlib.contextmanager
def _owned(folder: Path) -> Iterator[None]:
    """Hold a lock on a folder, which goes with the process however it ends."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    handle = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # a disk without locks: then it never counts as left over
            fcntl.flock(handle, fcntl.LOCK_SH)
        yield
    finally:
        os.close(handle)


def whole_file(path: str | Path, text: str) -> None:
    """Write a text file in one move; a file of that name is replaced.

    Raises:
        RunError: Writing failed; what was there stays.
    """
    with _replacing(Path(path).expanduser().absolute()) as beside:
        beside.write_text(text, encoding="utf-8")


def whole_arrays(file: Path, arrays: Mapping[str, Any]) -> None:
    """Write named arrays as compressed .npz in one move; a file of that name is replaced.

    Raises:
        RunError: Writing failed; what was there stays.
    """
    import numpy as np

    with _replacing(file.absolute()) as beside, beside.open("xb") as stream:  # of a path numpy changes the name
        np.savez_compressed(stream, **arrays)


@contextlib.contextmanager
def _replacing(target: Path) -> Iterator[Path]:
    """A file to write, of a name that no other writer has; it takes its place when the block ends well, or vanishes."""
    beside = target.with_name(f".{target.name}.{os.getpid()}.{secrets.token_hex(4)}.partial")
    try:
        yield beside
        _sync(beside)
        os.replace(beside, target)
    except BaseException as error:
        with contextlib.suppress(OSError):  # of a name too long, say: why it could not be written is told, not this
            beside.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise RunError(f'writing "{target}" failed ({error.strerror or error}).') from error
        raise


def size_of(folder: str | Path) -> int:
    """Bytes of all files in a folder."""
    return sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())


def _umask() -> int:
    mask = os.umask(0)  # it can only be read by setting it
    os.umask(mask)
    return mask


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
