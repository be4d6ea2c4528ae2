"""How near our steps are to the least they can cost: `python benchmarks/speed.py [ROW ...] [--json OUT.json]`.

The least is one bare forward and backward pass with the model's own loss and AdamW's step over the same non-padding tokens,
views of records included, without clipping, bookkeeping or padding. Trainer and bare step take turns in one process, on the
same weights and optimizer; the first two of each are left out, and of a last one floating-point operations are counted. Prints
a JSON line a row, then a table.

`--turns` times steps in two turns (`expunge.in_turns`) beside the same steps in one pass instead.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
import workloads
from torch.utils.flop_counter import FlopCounterMode

from expunge.bench.timing import Spent, machine, markdown, side_by_side
from expunge.folders import whole_file
from expunge.methods.contrastive import ContrastiveUnlearning
from expunge.methods.deepcut import DeepCUT
from expunge.methods.deepcut_calibrated import CalibratedDeepCUT
from expunge.methods.gradient_difference import GradientDifference
from expunge.methods.npo import NPO
from expunge.methods.rmu import RMU
from expunge.methods.undial import UNDIAL

BAR = 1.10
WARM = 2
FEW = 64  # retained records: all of them come up in the first steps, so that what the original says of them is known
MANY = 4096  # hardly one comes up twice

# name -> (workload, method, retained records, whether there is a bar)
ROWS: dict[str, tuple[Callable[[], workloads.Workload], Any, int, bool]] = {
    "minilm/deepcut": (workloads.minilm, DeepCUT(), MANY, True),
    "minilm/deepcut, 2 views": (workloads.minilm, DeepCUT(views=2, partners="both"), MANY, True),
    "minilm/deepcut-calibrated": (workloads.minilm, CalibratedDeepCUT(), MANY, True),
    "minilm/deepcut-calibrated, cached": (workloads.minilm, CalibratedDeepCUT(), FEW, True),
    "minilm/gradient-difference": (workloads.minilm, GradientDifference(), MANY, True),
    "minilm/contrastive": (workloads.minilm, ContrastiveUnlearning(), MANY, False),
    "minilm/deepcut, 8 to 32 tokens": (lambda: workloads.minilm(shortest=8), DeepCUT(), MANY, False),
    "smollm2/gradient-difference": (workloads.smollm2, GradientDifference(retain_ratio=1), FEW, True),
    "smollm2/npo": (workloads.smollm2, NPO(), FEW, True),
    "smollm2/npo-kl": (workloads.smollm2, NPO(retain="kl"), FEW, True),
    "smollm2/ga-kl": (workloads.smollm2, GradientDifference(retain="kl", retain_ratio=1), FEW, True),
    "smollm2/rmu": (workloads.smollm2, RMU(), FEW, False),
    "smollm2/undial": (workloads.smollm2, UNDIAL(), FEW, False),
    "smollm2/deepcut": (workloads.smollm2, DeepCUT(retain_ratio=1), FEW, True),
}


def measured(name: str, repeats: int, precision: str, batch: int | None) -> dict[str, Any]:
    """A row: our steps beside bare ones."""
    make, method, retain, has_bar = ROWS[name]
    work = make()
    work = replace(work, batch=batch or work.batch)
    bare: list[Spent] = []
    counter = FlopCounterMode(display=False)

    def between(trainer: Any, number: int) -> None:
        inputs, targets = workloads.same_tokens(trainer.train_dataset[number - 1])
        with counter if number > repeats + WARM else nullcontext():
            bare.append(workloads.bare_step(trainer.model, trainer.optimizer, inputs, targets, precision))

    ours, before, operations = workloads.timed_steps(
        work, method, steps=repeats + WARM, retain=retain, precision=precision, between=between, counted=True
    )
    found = side_by_side(ours[WARM:], bare[WARM:-1])
    least = counter.get_total_flops()
    rows = sum(len(b) for b in _parts(work, method))
    return {
        "name": name, **found, **({"most": BAR} if has_bar else {}), "precision": precision, "rows": rows,
        "operations": {"ours": operations, "bare": least, "ratio": round(operations / least, 3)},
        "before_first_step": round(before.wall, 2), "machine": machine(torch.get_num_threads()),
    }  # fmt: skip


def turns_beside_one_pass(name: str, repeats: int) -> dict[str, Any]:
    """A row: steps in two turns beside steps in one pass, every other step of one training."""
    make, method, retain, _ = ROWS[name]
    kept: list[Any] = []

    def between(trainer: Any, number: int) -> None:
        kept.append(trainer._turns)
        trainer._turns = kept[0] if number % 2 == 0 else None

    took, before, _ = workloads.timed_steps(make(), method, steps=2 * (repeats + 1), retain=retain, between=between)
    if kept[0] is None:
        raise SystemExit(f"{name} takes no turns.")
    found = side_by_side(took[2::2], took[3::2])  # the first of each is left out
    return {
        "name": f"{name}, in two turns", **found, "precision": "float32",
        "before_first_step": round(before.wall, 2), "machine": machine(torch.get_num_threads()),
    }  # fmt: skip


def _parts(work: workloads.Workload, method: Any) -> list[range]:
    forget = work.batch * getattr(method, "views", 1)
    return [range(forget), range(work.batch * getattr(method, "retain_ratio", 1))]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("rows", nargs="*", help=f"any of {', '.join(ROWS)}, or the beginning of some; left out: all")
    parser.add_argument("--batch", type=int, default=None, help="forget records a step, in place of 32 and 8")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--precision", choices=("float32", "bfloat16"), default="float32")
    parser.add_argument("--turns", action="store_true", help="steps in two turns beside steps in one pass")
    parser.add_argument("--json", type=Path, default=None, help="file that rows are put into, beside those in it")
    given = parser.parse_args()
    asked = [name for name in ROWS if not given.rows or any(name.startswith(row) for row in given.rows)]
    if not asked:
        parser.error(f"there is no such row: {', '.join(given.rows)}")
    made = []
    for name in asked:
        made.append(
            turns_beside_one_pass(name, given.repeats)
            if given.turns
            else measured(name, given.repeats, given.precision, given.batch)
        )
        print(json.dumps(made[-1]), flush=True)
        if given.json:
            kept = json.loads(given.json.read_text(encoding="utf-8")) if given.json.is_file() else []
            own = made[-1]["name"], given.precision
            others = [row for row in kept if (row["name"], row["precision"]) != own]
            whole_file(given.json, json.dumps([*others, made[-1]], indent=1) + "\n")
    print("\n" + markdown(made, ("two turns", "one pass") if given.turns else ("a step", "bare")))


if __name__ == "__main__":
    main()
