"""Rows of a benchmark: one JSON each, made once, whoever asks first."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from expunge.folders import whole_file

__all__ = ["cost", "locked_in", "make_rows"]


def make_rows(
    names: Iterable[str], out: Path, locked: Callable[[str], AbstractContextManager[Any]], row: Callable[[str], dict[str, Any]],
    say: Callable[[str], None], *, passes: tuple[type[Exception], ...] = (Timeout,),
) -> int:  # fmt: skip
    """Make every row that has no JSON yet; several workers on one folder share them.

    Args:
        names: The rows, in order.
        out: Folder of the results: rows lie in ``rows/``.
        locked: Name -> what keeps others from making that row.
        row: Name -> its content.
        say: Shows a line of progress.
        passes: What `locked` or `row` raises for a row that is another worker's.

    Returns:
        How many this worker made.
    """
    (out / "rows").mkdir(parents=True, exist_ok=True)
    done = 0
    for name in names:
        file = out / "rows" / f"{name}.json"
        try:
            with locked(name):
                if file.is_file():
                    continue
                start = time.perf_counter()
                whole_file(file, json.dumps(row(name), indent=1, sort_keys=True) + "\n")
        except passes:
            continue
        done += 1
        say(f"{name}: {time.perf_counter() - start:.0f} s")
    return done


def locked_in(folder: Path) -> Callable[[str], FileLock]:
    """Locks of rows in a folder, which is made; who does not get one at once is refused with `Timeout`."""
    folder.mkdir(parents=True, exist_ok=True)
    return lambda name: FileLock(folder / f"{name}.row.lock", timeout=0)


def cost(passes: float, checks: float, retraining: float, seconds: float) -> dict[str, Any]:
    """Example-passes beside those of retraining, in plain values."""
    return {
        "passes": round(passes, 1), "checks": round(checks, 1), "retraining": retraining,
        "ratio": round((passes + checks) / retraining, 4), "seconds": round(seconds, 1),
    }  # fmt: skip
