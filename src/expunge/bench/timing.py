"""Times taken side by side: medians, spread and ratio of alternating repeats, and the machine they are of."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

__all__ = ["SideBySide", "Spent", "bar_met", "machine", "markdown", "side_by_side"]


@dataclass(frozen=True)
class Spent:
    """What a piece of work took.

    Attributes:
        wall: Seconds on the clock.
        cpu: Seconds of processor time, over all threads: less hangs there on what else the machine does.
    """

    wall: float
    cpu: float

    @staticmethod
    def now() -> Spent:
        """The clocks as they stand, once a GPU in use has done all it was given."""
        torch = sys.modules.get("torch")  # not imported for this: without it no GPU is in use
        if torch is not None and torch.cuda.is_initialized():
            torch.cuda.synchronize()
        return Spent(time.perf_counter(), time.process_time())

    def since(self, start: Spent) -> Spent:
        """What has passed since an earlier reading."""
        return Spent(self.wall - start.wall, self.cpu - start.cpu)


@dataclass(frozen=True)
class SideBySide:
    """Two ways of the same work, timed in turn: repeat i of one stands beside repeat i of the other.

    Attributes:
        ours: Seconds of each repeat.
        other: Seconds of what it is compared with, as many.
    """

    ours: tuple[float, ...]
    other: tuple[float, ...]

    def __post_init__(self) -> None:
        if len(self.ours) != len(self.other) or not self.ours:
            raise ValueError(f"{len(self.ours)} and {len(self.other)} repeats are not as many, or none")

    def over(self, *, swapped: bool = False) -> tuple[float, float, float]:
        """Median, least and greatest of ours / other over the repeats; `swapped`: of other / ours."""
        first, second = (self.other, self.ours) if swapped else (self.ours, self.other)
        ratios = np.array(first) / np.array(second)
        return float(np.median(ratios)), float(ratios.min()), float(ratios.max())

    def row(self, *, swapped: bool = False) -> dict[str, Any]:
        """All of it in plain values, seconds to the tenth of a millisecond."""
        median, low, high = self.over(swapped=swapped)
        return {
            "n": len(self.ours),
            "ours": {"median": round(float(np.median(self.ours)), 4), "all": [round(t, 4) for t in self.ours]},
            "other": {"median": round(float(np.median(self.other)), 4), "all": [round(t, 4) for t in self.other]},
            "ratio": round(median, 3),
            "low": round(low, 3),
            "high": round(high, 3),
        }


def side_by_side(ours: Sequence[Spent], other: Sequence[Spent], *, swapped: bool = False) -> dict[str, Any]:
    """A row of both clocks: wall as `SideBySide.row`, and under ``cpu`` the ratio of processor times with its spread."""
    wall = SideBySide(tuple(t.wall for t in ours), tuple(t.wall for t in other))
    cpu = SideBySide(tuple(t.cpu for t in ours), tuple(t.cpu for t in other))
    median, low, high = (round(value, 3) for value in cpu.over(swapped=swapped))
    return {**wall.row(swapped=swapped), "cpu": {"ratio": median, "low": low, "high": high}}


def bar_met(row: Mapping[str, Any]) -> bool | None:
    """Whether a row's median ratio reaches its bar: at most (`most`) or at least (`least`); None without a bar."""
    if "most" in row:
        return row["ratio"] <= row["most"]
    if "least" in row:
        return row["ratio"] >= row["least"]
    return None


def machine(threads: int) -> str:
    """The machine in a line: GPU if one is in use, processor, cores, threads used and torch's version; no name of it."""
    import torch

    gpu = f"{torch.cuda.get_device_name()}, " if torch.cuda.is_initialized() else ""
    name = "CPU"
    info = Path("/proc/cpuinfo")
    if info.is_file():
        named = [line for line in info.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        name = named[0].partition(":")[2].strip() if named else name
    return f"{gpu}{name}, {os.cpu_count()} cores, {threads} threads, torch {torch.__version__}"


def markdown(rows: Sequence[Mapping[str, Any]], columns: tuple[str, str]) -> str:
    """A table of rows as `side_by_side` makes them, with `name` and, where there is one, a bar.

    Args:
        rows: The rows.
        columns: Headings of the two ways.
    """
    lines = [
        f"| row | {columns[0]}, s | {columns[1]}, s | ratio (least to greatest) | of processor time | n | bar |",
        "|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        met = bar_met(row)
        bar = "none" if met is None else (f"<= {row['most']:.2f}" if "most" in row else f">= {row['least']:.1f}")
        verdict = "" if met is None else ", reached" if met else ", missed"
        lines.append(
            f"| {row['name']} | {row['ours']['median']:.3f} | {row['other']['median']:.3f} | {row['ratio']:.2f} "
            f"({row['low']:.2f} to {row['high']:.2f}) | {row['cpu']['ratio']:.2f} | {row['n']} | {bar}{verdict} |"
        )
    return "\n".join(lines) + "\n"
