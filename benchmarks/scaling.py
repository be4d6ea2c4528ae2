"""Does unlearning cost what the request costs, or what the data set does? `python benchmarks/scaling.py [--json OUT]`.

Times whole unlearnings of a small untrained encoder, for which bookkeeping weighs the most: the same request out of ever larger
data sets, then ever larger requests out of one. No stop rule, so that all take their limit of steps. Reading the data is apart
(`benchmarks/scale.py`). "Steps" is from the first step's beginning to the last one's end; "all" adds what comes before.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import torch
import workloads

from expunge.bench.timing import Spent, machine
from expunge.config import StopConfig, TrainingConfig
from expunge.folders import whole_file
from expunge.methods.deepcut import DeepCUT
from expunge.methods.deepcut_calibrated import CalibratedDeepCUT
from expunge.tasks.base import Encoded
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_classifier, tiny_tokenizer
from expunge.trainer import UnlearnTrainer
from expunge.unlearning import Unlearning

METHODS = {"deepcut": DeepCUT(), "deepcut-calibrated": CalibratedDeepCUT()}
REQUEST, SIZES = 100, (1_000, 10_000, 100_000, 1_000_000)
DATA, REQUESTS = 100_000, (100, 1_000, 10_000)
NAMES = ("water", "machine", "music")


def records(count: int, seed: int) -> Encoded:
    """Records of 8 to 16 tokens."""
    rng = np.random.default_rng(seed)
    tokens = rng.integers(10, 100, (count, 16)).tolist()
    lengths, labels = rng.integers(8, 17, count).tolist(), rng.integers(0, 3, count).tolist()
    ids = [row[:length] for row, length in zip(tokens, lengths, strict=True)]
    return Encoded(ids, None, [(label,) for label in labels])


def run(method: Any, data: Encoded, request: int, calibration: Encoded) -> tuple[Spent, Spent, int]:
    """What steps took and what all did, and how many steps there were."""
    task = TextClassification(tiny_tokenizer(), 48, NAMES)
    job = Unlearning(
        method=method, task=task, forget=data.take(range(request)), retain=data.take(range(request, len(data))),
        calibration=calibration, forget_ids=[f"f{i}" for i in range(request)], retain_ids=[],
        training=TrainingConfig(learning_rate=1e-6), stop=StopConfig(rule="none"), seed=0, label_names=NAMES,
    )  # fmt: skip
    marks: list[Spent] = []
    plain = UnlearnTrainer.train

    def train(self: UnlearnTrainer, *args: Any, **options: Any) -> Any:
        timing = workloads.Between(lambda number: None)
        self.add_callback(timing)
        found = plain(self, *args, **options)
        marks.append(Spent(sum(t.wall for t in timing.spent), sum(t.cpu for t in timing.spent)))
        return found

    UnlearnTrainer.train = train
    try:
        start = Spent.now()
        steps = job.run(tiny_classifier()).log["steps"]
        return marks[0], Spent.now().since(start), steps
    finally:
        UnlearnTrainer.train = plain


def curve(name: str, along: str, cells: list[tuple[int, int]], repeats: int, seconds: float) -> list[dict[str, Any]]:
    """A row for each size of data set and request: what each repeat took, in turn over all cells.

    Args:
        name: The method.
        along: What grows: ``records`` or ``request``.
        cells: Records of the data set, and of the request.
        repeats: Of each cell.
        seconds: How long to run a cell again and again within a repeat, of which the mean is taken: one run of a second
            meets one mood of a busy machine, a run of minutes many.
    """
    calibration = records(2000, 2)
    sizes = sorted({size for size, _ in cells})
    data = {size: records(size, 1) for size in sizes}
    run(METHODS[name], data[sizes[0]], cells[0][1], calibration)  # the first one also loads libraries
    found: dict[tuple[int, int], list[tuple[Spent, Spent, int]]] = {cell: [] for cell in cells}
    runs: dict[tuple[int, int], list[int]] = {cell: [] for cell in cells}
    for _ in range(repeats):
        for size, request in cells:
            own = [run(METHODS[name], data[size], request, calibration)]
            while sum(whole.wall for _, whole, _ in own) < seconds:
                own.append(run(METHODS[name], data[size], request, calibration))
            found[size, request].append((_mean([row[0] for row in own]), _mean([row[1] for row in own]), own[0][2]))
            runs[size, request].append(len(own))
    return [
        {
            "method": name, "along": along, "records": size, "request": request, "n": repeats, "runs": runs[size, request],
            "steps": spent[0][2],
            **{
                f"{what} {clock}": [round(getattr(row[place], clock), 3) for row in spent]
                for place, what in enumerate(("steps", "all")) for clock in ("wall", "cpu")
            },
        }
        for (size, request), spent in found.items()
    ]  # fmt: skip


def cell(row: dict[str, Any]) -> tuple[str, str, int, int]:
    """What a row is of; measured again it takes the place of the one before."""
    return row["method"], row["along"], row["records"], row["request"]


def _mean(spent: list[Spent]) -> Spent:
    return Spent(float(np.mean([one.wall for one in spent])), float(np.mean([one.cpu for one in spent])))


def table(rows: list[dict[str, Any]]) -> str:
    """Seconds of processor time and how many times those of the row before."""
    lines = [
        "| method | records | request | steps | first to last step, s | times | all, s | times | n |",
        "|---" * 9 + "|",
    ]
    before: dict[str, Any] = {}
    for row in rows:
        cells = []
        for what in ("steps cpu", "all cpu"):
            own = float(np.median(row[what]))
            fits = before.get("method") == row["method"] and "records" in before
            same = fits and (before["records"] == row["records"]) != (before["request"] == row["request"])
            cells += [f"{own:.2f}", f"{own / float(np.median(before[what])):.2f}" if same else ""]
        lines.append(
            f"| {row['method']} | {row['records']:,} | {row['request']:,} | {row['steps']} | {' | '.join(cells)} | {row['n']} |"
        )
        before = row
    return "\n".join(lines) + "\n"


def drawn(rows: list[dict[str, Any]], out: Path) -> None:
    """Both curves, in one SVG."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "expunge"
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(1, 2, figsize=(9, 3.6), layout="constrained")
    for axis, along, fixed, text in (
        (axes[0], "records", ("request", REQUEST), f"records in the data set, {REQUEST} of them to forget"),
        (axes[1], "request", ("records", DATA), f"records to forget, out of {DATA:,}"),
    ):
        for name in METHODS:
            own = sorted(
                (r[along], float(np.median(r["steps cpu"])))
                for r in rows
                if r["method"] == name and r["along"] == along and r[fixed[0]] == fixed[1]
            )
            if own:
                axis.plot(*zip(*own, strict=True), marker="o", label=name)
        axis.set(xscale="log", yscale="log", xlabel=text, ylabel="first to last step, s of processor time")
        axis.grid(alpha=0.3)
        axis.legend()
    top = max(axis.get_ylim()[1] for axis in axes)
    for axis in axes:
        axis.set_ylim(min(a.get_ylim()[0] for a in axes), top)
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, metadata={"Date": None, "Creator": None})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--largest", type=int, default=SIZES[-1], help="data sets up to so many records")
    parser.add_argument("--most", type=int, default=REQUESTS[-1], help="requests of up to so many records")
    parser.add_argument("--least", type=int, default=REQUESTS[0], help="requests of so many records and more")
    parser.add_argument("--seconds", type=float, default=0, help="run each cell for so long within a repeat")
    parser.add_argument("--methods", nargs="*", default=list(METHODS), choices=METHODS)
    parser.add_argument("--json", type=Path, default=None)
    parser.add_argument("--svg", type=Path, default=None)
    given = parser.parse_args()
    rows = []
    for name in given.methods:
        if sizes := [(size, REQUEST) for size in SIZES if size <= given.largest]:
            rows += curve(name, "records", sizes, given.repeats, given.seconds)
        requests = [(DATA, request) for request in REQUESTS if given.least <= request <= given.most]
        if requests:
            rows += curve(name, "request", requests, given.repeats, given.seconds)
        print(table(rows), flush=True)
        if given.json:
            stored = json.loads(given.json.read_text(encoding="utf-8")) if given.json.is_file() else []
            made = {cell(row): {**row, "machine": machine(torch.get_num_threads())} for row in rows}
            merged = {**{cell(row): row for row in stored}, **made}
            whole_file(given.json, json.dumps([merged[key] for key in sorted(merged)], indent=1) + "\n")
    if given.svg:
        drawn(json.loads(given.json.read_text(encoding="utf-8")) if given.json else rows, given.svg)


if __name__ == "__main__":
    main()
