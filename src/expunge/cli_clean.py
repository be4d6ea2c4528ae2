"""`expunge clean`: what interrupted runs have left, listed and removed; nothing of a run that is going on."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Annotated

import typer

from expunge.errors import RunError, UsageError

__all__ = ["clean", "must_be_free"]


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
    from expunge.folders import is_left_over, left_over
    from expunge.paused import described, folder_of, holder, paused_beside

    if outs:
        runs = [folder_of(out) for out in outs if folder_of(out).is_dir()]
        partial = [path for out in outs for path in left_over(out.expanduser().absolute())]
    else:
        runs = paused_beside(Path.cwd())
        partial = [path for path in sorted(Path.cwd().glob(".*.partial")) if is_left_over(path)]
    done = "would be removed" if dry_run else "removed"
    for folder in runs:
        who = holder(folder)
        if who is not None:
            shown = f"process {who['pid']} on {who['host']}" if "pid" in who else "another process"
            print(f"{folder}: in use by {shown}; left alone")
            continue
        words = f"{folder} ({described(folder)}, {_size(folder)})"
        _remove(folder, dry_run)
        print(f"{words}: {done}")
    for folder in partial:
        words = f"{folder} (half written, {_size(folder)})"
        _remove(folder, dry_run)
        print(f"{words}: {done}")
    if not runs and not partial:
        print("Nothing of interrupted runs is here.", file=sys.stderr)


def _remove(folder: Path, dry_run: bool) -> None:
    if dry_run:
        return
    try:
        shutil.rmtree(folder)
    except OSError as error:
        raise RunError(f'"{folder}" cannot be removed ({error.strerror or error}).') from error


def _size(folder: Path) -> str:
    files = {file.stat().st_ino: file.stat().st_size for file in folder.rglob("*") if file.is_file()}
    return f"{sum(files.values()) / 1e6:.1f} MB"
