"""Several processes share a run: the same losses, gradients, weights and figures as one process, and one voice."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import rank_runs
from conftest import Job
from expunge.sampling import StepPlan

RUNS = [
    *(f"{name}/plain" for name in rank_runs.CASES),
    "deepcut/accumulated", "npo/accumulated", *(f"{name}/fsdp" for name in rank_runs.FSDP), "npo/fsdp, accumulated",
]  # fmt: skip


def launched(*command: str, **environment: str) -> subprocess.Popen[str]:
    """Two processes, as `torchrun` starts them."""
    kept = {name: value for name, value in os.environ.items() if name != "EXPUNGE_SALT_FILE"}
    start = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    return subprocess.Popen(
        [*start, *command], env={**kept, "OMP_NUM_THREADS": "1", **environment}, text=True, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )  # fmt: skip


@pytest.fixture(scope="module")
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any]]:
    """What one process finds, and what two find: name/key -> tensor."""
    folder = tmp_path_factory.mktemp("ranks")
    two = launched(str(Path(rank_runs.__file__)), str(folder))
    one = {name: rank_runs.trained(name) for name in rank_runs.CASES}
    said = two.communicate(timeout=300)
    assert two.returncode == 0, said[1][-3000:]
    return one, load_file(folder / "found.safetensors")


def relative(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((mine.double() - theirs.double()).norm() / mine.double().norm())


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_are_one(both: tuple[dict[str, Any], dict[str, Any]], run: str) -> None:
    """Ten steps of the same global batch and partners, the third of them with one forget record: the second process has none.

    The bar is 1e-5 relative in float64. What is compared of the weights is how far they moved.
    """
    one, two = both
    mine = one[run.partition("/")[0]]
    theirs = {key: two[f"{run}/{key}"] for key in mine}
    assert relative(mine["losses"], theirs["losses"]) < 1e-9
    for step, (gradient, other) in enumerate(zip(mine["gradients"], theirs["gradients"], strict=True)):
        assert gradient.norm() > 0, f"step {step} has no gradient to compare"
        assert relative(gradient, other) < 1e-9, f"step {step}"
    assert relative(mine["moved"], theirs["moved"]) < 1e-9
    # The two score the model as one does: each a part of the batches, and both have all.
    assert relative(mine["margins"], theirs["margins"]) < 1e-9
    assert mine["hidden"].shape == theirs["hidden"].shape
    # Accumulation costs one more forward pass of each step, a third of an example-pass; sharing costs nothing.
    steps = rank_runs.passes_of_steps(run.partition("/")[0])
    assert float(theirs["passes"] - mine["passes"]) == pytest.approx(steps / 3 if "accumulated" in run else 0.0)


def test_parts_of_a_step_are_disjoint_and_whole() -> None:
    plan = StepPlan((4, 1, 7), (0, 3, 5, 9, 2))
    parts = plan.split(4)
    assert [part.forget for part in parts] == [(4,), (1,), (7,), ()]
    assert sum((part.retain for part in parts), ()) == plan.retain
