"""The folder beside an output in which a run keeps what it would go on from: one run at a time, of one fingerprint."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import shutil
import socket
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout
from safetensors import SafetensorError

from expunge.config_paths import expanded
from expunge.errors import DivergedError, Problem, RunError, UsageError
from expunge.folders import left_over, must_be_new, whole_file
from expunge.progress import Progress
from expunge.snapshot import BrokenSnapshotError, Snapshot

__all__ = [
    "CHECKPOINT",
    "LOCK",
    "STAGES",
    "TRAINING",
    "PausedRun",
    "busy",
    "described",
    "folder_of",
    "holder",
    "opened",
    "paused_beside",
    "remove_if_finished",
]

CHECKPOINT = "checkpoint"
"""Stage under which the steps of unlearning are kept: its newest snapshot counts."""
TRAINING = "training"
"""Beginning of the stages under which the steps of other trainings are kept, such as ``training-retrained-7``."""
STAGES = "ensemble"
"""Stage under which SISA keeps the stages of its shards that are trained again."""

_SAID = {
    "retrained": "the retrained model of seed {}",
    "fitted": "a model trained from the base",
    "request": "the adapter of request {}",
    STAGES: "stages of the ensemble",
}
"""Beginning of a stage's name -> what it is called, with the rest of its name."""

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.EFBIG)
_SECONDS = 60.0
_SHARE = 0.02
_ABOUT, _HOLDER, _TEMPORARY = "run.json", "holder.json", "tmp"
LOCK = "lock"
"""File of a run's folder that its process locks."""
_STAGE = re.compile(r"(?P<name>[a-z0-9-]+)-(?P<number>\d+)")


def folder_of(out: str | Path, *, where: str = "--out") -> Path:
    """Where a run of this output folder keeps its state: ``.NAME.run`` beside it.

    Raises:
        UsageError: It can be no path, or is the root, which nothing lies beside.
    """
    target = expanded(out, where).absolute()
    if not target.name:
        what = f'"{out}" is a folder without a name, and nothing lies beside it'
        raise UsageError(Problem(where, what, "Name a folder in it."))
    return target.with_name(f".{target.name}.run")


class PausedRun:
    """What a run has kept so far, and where it keeps more. Held by one process at a time: see `opened`.

    Args:
        folder: ``.NAME.run``, locked by this process.
        every: Seconds between two writes; None: a minute, and as much longer as keeps writing under a fiftieth of the
            run; 0: nothing is kept.
        progress: Told what could not be read or written.

    Attributes:
        folder: As given.
    """

    def __init__(self, folder: Path, every: float | None, progress: Progress) -> None:
        self.folder = folder
        self._every, self._progress = every, progress
        self._wait = _SECONDS if every is None else every
        self._last = time.monotonic()

    def place(self, stage: str) -> Path | None:
        """A folder of a stage that writes what is whole by itself; None where nothing is to be kept."""
        return None if self._every == 0 else self.folder / f"{stage}-0"

    def due(self) -> bool:
        """Whether so much time has gone since the last write that it would be a pity to lose."""
        return self._every != 0 and time.monotonic() - self._last >= self._wait

    def newest(self, stage: str) -> tuple[Path, Snapshot] | None:
        """The last whole snapshot of a stage and its folder; broken ones are told, and removed."""
        for _, place in sorted(_stages(self.folder, stage), reverse=True):
            try:
                return place, Snapshot.read(place)
            except BrokenSnapshotError as error:
                self.unusable(place, error)
        return None

    def unusable(self, place: Path, error: Exception) -> None:
        """Say that something kept cannot be gone on from, and remove it."""
        self._progress.note(f"What an earlier process kept cannot be used, and is removed: {error}")
        shutil.rmtree(place, ignore_errors=True)

    def keep(self, stage: str, number: int, snapshot: Snapshot) -> Path | None:
        """Write a snapshot whole, then remove older ones of its stage; None where that fails: the run goes on without.

        Args:
            stage: Its name.
            number: Which one of the stage it is, such as the step; a higher one is newer.
            snapshot: What is kept.
        """
        start = time.monotonic()
        place = self.folder / f"{stage}-{number}"
        try:
            if not place.exists():
                snapshot.write(place)
        except RunError as error:
            self._progress.note(f"No checkpoint could be kept; the run goes on without: {error}")
            return None
        finally:
            self._last = time.monotonic()
            if self._every is None:
                self._wait = max(_SECONDS, (self._last - start) / _SHARE)
        for older, folder in _stages(self.folder, stage):
            if older < number:
                shutil.rmtree(folder, ignore_errors=True)
        return place

    def drop(self, stage: str) -> None:
        """Remove what a stage has kept, where a later one takes its place."""
        for _, folder in _stages(self.folder, stage):
            shutil.rmtree(folder, ignore_errors=True)

    @property
    def anything(self) -> bool:
        """Whether there is anything to go on from."""
        return any(file.is_file() for _, stage in _stages(self.folder) for file in stage.rglob("*"))

    def remember(self, name: str, value: str) -> None:
        """Note what the run stands on, known only once it has begun, such as the hash of the model's weights.

        Raises:
            UsageError: An earlier process of this run noted something else.
        """
        about = _read(self.folder / _ABOUT)
        if about.setdefault(name, value) != value:
            raise UsageError(_other(self.folder, [name]))
        whole_file(self.folder / _ABOUT, json.dumps(about, indent=1))


@contextlib.contextmanager
def opened(
    out: str | Path, fingerprint: dict[str, str], *, every: float | None, progress: Progress
) -> Iterator[PausedRun]:
    """Hold the run of an output folder, going on with what an earlier process kept.

    Ends the block well: the folder is removed. Ends it otherwise: it stays where there is something to go on from, and that
    is said. Files for the time of the run lie in it too, so that a killed process leaves nothing elsewhere.

    Args:
        out: The output folder, which the block writes.
        fingerprint: What decides the run, by what a user calls it; no record's text, no id.
        every: As in `PausedRun`.
        progress: Told what is gone on from, and what stays.

    Raises:
        UsageError: Another process holds it, the output is there already, or the run kept has another fingerprint.
        RunError: The folder cannot be made.
    """
    folder = folder_of(out)
    with _locked(folder, out):
        if problems := must_be_new(out):  # it appeared while we were waiting to begin
            shutil.rmtree(folder, ignore_errors=True)
            raise UsageError(problems)
        kept = PausedRun(folder, every, progress)
        _follow(folder, fingerprint, progress)
        before = tempfile.tempdir
        try:
            for path in (folder / _TEMPORARY, *left_over(Path(out).expanduser().absolute()), *left_over_in(folder)):
                shutil.rmtree(path, ignore_errors=True)
            (folder / _TEMPORARY).mkdir(mode=0o700)
            tempfile.tempdir = str(folder / _TEMPORARY)
            yield kept
        except BaseException as error:
            shutil.rmtree(folder / _TEMPORARY, ignore_errors=True)
            if kept.anything and not isinstance(error, DivergedError):  # which would only come again
                progress.note(
                    f'What the run has done is kept in "{folder}": the same command goes on from there, and '
                    f"`expunge clean {out}` removes it."
                )
            else:
                shutil.rmtree(folder, ignore_errors=True)
            if isinstance(error, SafetensorError) or (isinstance(error, OSError) and error.errno in _OF_THE_DISK):
                raise RunError(f"a file could not be written or read ({error}). No output was written.") from error
            raise
        finally:
            tempfile.tempdir = before
        shutil.rmtree(folder, ignore_errors=True)


def left_over_in(folder: Path) -> list[Path]:
    """Folders in a run's folder that a killed process was writing."""
    return [path for path in folder.glob(".*.partial") if path.is_dir()]


@contextlib.contextmanager
def _locked(folder: Path, out: str | Path) -> Iterator[None]:
    lock = FileLock(folder / LOCK, timeout=0, thread_local=False)
    try:
        while True:
            folder.parent.mkdir(parents=True, exist_ok=True)
            folder.mkdir(mode=0o700, exist_ok=True)
            folder.chmod(0o700)
            (folder / LOCK).touch()
            seen = os.stat(folder / LOCK).st_ino
            try:
                lock.acquire()
            except Timeout:
                raise UsageError(_taken(folder, out)) from None
            # Who held it may have finished, and removed the folder, while we were opening the file: then ours is of no folder.
            with contextlib.suppress(FileNotFoundError):
                if os.stat(folder / LOCK).st_ino == seen:
                    break
            lock.release()
        who = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        whole_file(folder / _HOLDER, json.dumps(who))
    except OSError as error:
        reason = error.strerror or error
        raise RunError(f'the folder "{folder}", in which a run keeps its state, cannot be used ({reason}).') from error
    try:
        yield
    finally:
        (folder / _HOLDER).unlink(missing_ok=True)
        lock.release()


def _follow(folder: Path, fingerprint: dict[str, str], progress: Progress) -> None:
    """Go on with the run kept in the folder, or begin one there."""
    there = _read(folder / _ABOUT).get("fingerprint", {})
    if not any(_stages(folder)):
        for path in folder.iterdir():
            if path.is_dir() and there != fingerprint:
                shutil.rmtree(path, ignore_errors=True)
        whole_file(folder / _ABOUT, json.dumps({"started": time.time(), "fingerprint": fingerprint}, indent=1))
        return
    if changed := sorted(name for name in {*there, *fingerprint} if there.get(name) != fingerprint.get(name)):
        raise UsageError(_other(folder, changed))
    progress.note(f"Going on with a run that was interrupted ({described(folder)}).")


def _other(folder: Path, changed: list[str]) -> Problem:
    out = folder.name.removeprefix(".").removesuffix(".run")
    what = (
        f'an interrupted run for "{out}" is kept in "{folder}", and this one differs from it in: {", ".join(changed)}'
    )
    way_out = f"Name another folder, go on with the same settings and data, or remove it: expunge clean {folder.parent / out}."
    return Problem("--out", what, way_out)


def _taken(folder: Path, out: str | Path) -> Problem:
    who = _read(folder / _HOLDER)
    known = f" (process {who['pid']} on {who['host']})" if "pid" in who else ""
    return Problem("--out", f'"{out}" is being made by another run{known}', "Wait for it, or name another folder.")


def busy(out: str | Path) -> list[Problem]:
    """What to say where another process is making this output now."""
    folder = folder_of(out)
    return [_taken(folder, out)] if holder(folder) is not None else []


def remove_if_finished(out: str | Path) -> None:
    """Remove the folder of a run that was killed after its output had appeared: there is nothing left to go on with."""
    target, folder = Path(out).expanduser().absolute(), folder_of(out)
    if folder.is_dir() and (target / "record.json").is_file() and holder(folder) is None:
        shutil.rmtree(folder, ignore_errors=True)


def holder(folder: Path) -> dict[str, Any] | None:
    """Process and host that hold a run's folder, as far as they are known; None where nobody does."""
    if not (folder / LOCK).is_file():
        return None
    lock = FileLock(folder / LOCK, timeout=0)
    try:
        with lock:
            return None
    except Timeout:
        return _read(folder / _HOLDER)
    except OSError:  # it went, or it is not ours to open
        return None if not folder.exists() else _read(folder / _HOLDER)


def paused_beside(folder: Path) -> list[Path]:
    """Folders of runs in a folder, held or not."""
    return [path for path in sorted(folder.glob(".*.run")) if path.is_dir() and (path / LOCK).is_file()]


def described(folder: Path) -> str:
    """What a run's folder holds, in words."""
    held = "; ".join(sorted(_words(*_parts(path)) for _, path in _stages(folder))) or "nothing to go on from"
    started = _read(folder / _ABOUT).get("started")
    return held if started is None else f"{held}; begun {time.strftime('%Y-%m-%d %H:%M', time.localtime(started))}"


def _words(stage: str, number: int) -> str:
    if stage == CHECKPOINT:
        return f"training up to step {number}"
    name, _, rest = stage.partition("-")
    if name == TRAINING:
        return f"{_words(rest, 0)} up to step {number}"
    return _SAID.get(name, f"the {name} model").format(rest)


def _parts(path: Path) -> tuple[str, int]:
    found = _STAGE.fullmatch(path.name)
    return ("", -1) if found is None else (found["name"], int(found["number"]))


def _stages(folder: Path, stage: str | None = None) -> list[tuple[int, Path]]:
    """Number and folder of each snapshot, of a stage or of all."""
    paths = [path for path in folder.glob("*-*") if path.is_dir() and _STAGE.fullmatch(path.name)]
    return [(_parts(path)[1], path) for path in paths if stage is None or _parts(path)[0] == stage]


def _read(file: Path) -> dict[str, Any]:
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
