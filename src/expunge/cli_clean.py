"""`expunge clean`: what interrupted runs have left, listed and removed; nothing of a run that is going on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from expunge.errors import RunError, UsageError

__all__ = ["clean", "must_be_free"]

_DONE = {False: "removed", True: "would be removed"}


def must_be_free(out: str) -> None:
    """Refuse an output that another process is making, before anything is read.

    Raises:
        UsageError: There is one.
    """
    from expunge.config_paths import path_problem
    from expunge.paused import busy, remove_if_finished

    if path_problem(out, "--out"):
        return  # told with everything else that is wrong
    if problems := busy(out):
        raise UsageError(problems)
    remove_if_finished(out)


def clean(
    outs: Annotated[
        list[Path] | None,
        typer.Argument(
            metavar="[OUT]...",
            help="Output folders whose runs were interrupted; left out: all beside each other in the working folder.",
            show_default=False,
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list what is there.")] = False,
) -> None:
    """Remove what interrupted runs keep to go on from, and folders that a killed process left half written."""
    from expunge.config_paths import expanded
    from expunge.errors import Collector
    from expunge.folders import is_left_over, left_over
    from expunge.paused import folder_of, paused_beside

    if outs:
        found = Collector()
        folders = [found.run(folder_of, out, where="OUT") for out in outs]
        found.finish()
        runs = [folder for folder in folders if folder.is_dir()]
        partial = [path for out in outs for path in left_over(expanded(out, "OUT").absolute())]
    else:
        runs = paused_beside(Path.cwd())
        partial = [path for path in sorted(Path.cwd().glob(".*.partial")) if is_left_over(path)]
    for folder in runs:
        print(_without_run(folder, dry_run))
    for folder in partial:
        words = f"{folder} (half written, {_size(folder)})"
        if not dry_run:
            _remove(folder)
        print(f"{words}: {_DONE[dry_run]}")
    if not runs and not partial:
        print("Nothing of interrupted runs is here.", file=sys.stderr)


def _without_run(folder: Path, dry_run: bool) -> str:
    """Remove a run's folder that no process holds, and say what became of it."""
    from filelock import FileLock, Timeout

    from expunge.paused import LOCK, described, holder

    who = holder(folder)
    if who is None:
        words = f"{folder} ({described(folder)}, {_size(folder)}): {_DONE[dry_run]}"
        if dry_run:
            return words
        lock = folder / LOCK
        try:
            lock.touch()
            seen = lock.stat().st_ino
            with FileLock(lock, timeout=0):  # a run may have begun there since; none can while we remove it
                if lock.stat().st_ino == seen:  # else the folder went, and one of that name is another run's
                    _remove(folder)
                    return words
        except (Timeout, FileNotFoundError):  # taken, or removed by a run that has just ended
            pass
        who = holder(folder) or {}
    shown = f"process {who['pid']} on {who['host']}" if "pid" in who else "another process"
    return f"{folder}: in use by {shown}; left alone"


def _remove(folder: Path) -> None:
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f'"{folder}" cannot be removed ({error.strerror or error}).') from error


def _size(folder: Path) -> str:
    files = {file.stat().st_ino: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return f"{sum(files.values()) / 1e6:.1f} MB"
