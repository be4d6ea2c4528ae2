"""Several processes share a run: the same losses, gradients, weights and figures as one process, and one voice."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

import expunge
import rank_runs
from conftest import Job
from expunge import processes
from expunge.collectives import share
from expunge.config import RetrainConfig, RunConfig
from expunge.sampling import StepPlan
from expunge.shareable import unshareable

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
def both(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, Any], list[dict[str, Any]]]:
    """What one process finds, and what two find: name/key -> tensor; and what these two say of each other's failures."""
    folder = tmp_path_factory.mktemp("ranks")
    two = launched(str(Path(rank_runs.__file__)), str(folder))
    one = {name: rank_runs.trained(name) for name in rank_runs.CASES}
    said = two.communicate(timeout=300)
    assert two.returncode == 0, said[1][-3000:]
    failures = [json.loads((folder / f"said{number}.json").read_text(encoding="utf-8")) for number in (0, 1)]
    return one, load_file(folder / "found.safetensors"), failures


def relative(mine: torch.Tensor, theirs: torch.Tensor) -> float:
    return float((mine.double() - theirs.double()).norm() / mine.double().norm())


@pytest.mark.parametrize("run", RUNS)
def test_two_processes_are_one(both: Any, run: str) -> None:
    """Ten steps of the same global batch and partners, the third of them with one forget record: the second process has none.

    The bar is 1e-5 relative in float64. What is compared of the weights is how far they moved.
    """
    one, two, _ = both
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


def test_processes_fail_together_and_one_says_why(both: Any) -> None:
    """Where one fails at a place where all meet, the other ends with its exit code and leaves the message to it."""
    first, second = (said["agreed"] for said in both[2])
    assert second == {"code": 1, "told": False, "message": "the second process's disk is full."}
    assert (first["code"], first["told"]) == (1, True)


def test_a_process_that_is_gone_is_told_and_not_waited_for(both: Any) -> None:
    assert "another process of this run has ended or cannot be reached" in both[2][0]["gone"]


@pytest.fixture
def second_of_three(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"WORLD_SIZE": "3", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)


@pytest.mark.usefixtures("second_of_three")
def test_shares_are_in_order_and_whole() -> None:
    """Seven things among three: 3, 2 and 2."""
    assert (processes.count(), processes.number(), processes.first()) == (3, 1, False)
    assert share(7) == slice(3, 5)
    assert share(1) == slice(1, 1)
    with processes.alone():
        assert (processes.count(), share(7), processes.first()) == (1, slice(0, 7), False)


def test_a_scheduler_that_names_a_world_alone_starts_no_group(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "4")
    assert processes.count() == 1


@pytest.mark.usefixtures("second_of_three")
@pytest.mark.parametrize(
    "method", [expunge.Retrain(), expunge.KGA(), expunge.Offset(), expunge.TaskVector(), expunge.Rewind()]
)
def test_what_cannot_be_shared_is_refused_with_a_way_out(method: Any) -> None:
    (problem,) = unshareable(RunConfig(method=method))
    assert problem.where == "method.name"
    assert "cannot be shared among 3 processes" in problem.what
    assert "as one process" in problem.way_out


@pytest.mark.usefixtures("second_of_three")
def test_fsdp_is_asked_for_as_accelerate_does(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("EXPUNGE_FSDP", raising=False)
    monkeypatch.setenv("EXPUNGE_FSDP", "false")  # put back afterwards
    assert not processes.sharded()
    assert not unshareable(RunConfig(method=expunge.RMU()))
    monkeypatch.setenv("ACCELERATE_USE_FSDP", "true")
    assert processes.sharded()
    assert "ACCELERATE_USE_FSDP" not in os.environ, "transformers would load weights in the first process alone"
    (problem,) = unshareable(RunConfig(method=expunge.RMU()))
    assert "FSDP" in problem.what
    retraining = RunConfig(method=expunge.NPO(), retrain=RetrainConfig(enabled=True))
    assert [problem.where for problem in unshareable(retraining)] == ["retrain"]


@pytest.mark.slow
def test_torchrun_from_the_shell_is_the_run_of_one_process(job: Job, tmp_path: Path) -> None:
    """One voice, one folder, one link of the history; the figures are those of one process."""
    flags = ["-m", "expunge", "run", *job.flags(base=job.base, method="deepcut-calibrated")]
    alone = subprocess.run(
        [sys.executable, *flags, "--out", str(tmp_path / "one")], capture_output=True, text=True, check=False,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    assert alone.returncode == 0, alone.stderr
    one = record(tmp_path / "one")
    for name, environment in (("two", {}), ("cut", {"ACCELERATE_USE_FSDP": "true"})):
        two = launched(*flags, "--out", str(tmp_path / name), **environment)
        out, err = two.communicate(timeout=300)
        assert two.returncode == 0, err
        assert out.count("Report: ") == err.count("auditing: done") == out.count("History: request 1") == 1
        same(one, record(tmp_path / name))
    assert not list(tmp_path.glob(".*partial"))
    again = launched(
        "-m", "expunge", "audit", str(tmp_path / "two"), "--forget", str(job.ids), "--out", str(tmp_path / "a")
    )
    _, err = again.communicate(timeout=300)
    assert again.returncode == 0, err
    same({"measurements": one["measurements"]}, {"measurements": record(tmp_path / "a")["measurements"]})


@pytest.mark.slow
def test_torchrun_tells_problems_once(job: Job, tmp_path: Path) -> None:
    two = launched(
        "-m", "expunge", "run", *job.flags(method="retrain", data="nowhere.csv"), "--out", str(tmp_path / "x")
    )
    out, err = two.communicate(timeout=300)
    assert two.returncode == 1, "torchrun's own, whatever the processes' codes are"
    assert "exitcode  : 2" in err
    assert err.count("nothing was done") == err.count("nowhere.csv") == err.count("cannot be shared among 2") == 1
    assert not out
    assert not (tmp_path / "x").exists()


def record(folder: Path) -> dict[str, Any]:
    """What a run's record says, times and hashes of weights apart."""
    found = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    del found["timings"], found["models"]["unlearned"]
    return found


def same(one: Any, two: Any, path: str = "") -> None:
    """Equal, numbers to the third decimal: sums in float32 have another order."""
    if isinstance(one, dict):
        assert one.keys() == two.keys(), path
        for key in one:
            same(one[key], two[key], f"{path}/{key}")
    elif isinstance(one, list):
        assert len(one) == len(two), path
        for place, (mine, theirs) in enumerate(zip(one, two, strict=True)):
            same(mine, theirs, f"{path}/{place}")
    elif isinstance(one, float):
        assert two == pytest.approx(one, rel=1e-3, abs=2e-3), path
    else:
        assert one == two, path
