"""Kill -9 at 25 moments drawn by a seed: the output is not there or whole, and the run that goes on ends at the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.paused import folder_of
from expunge.record import RunRecord
from test_interruption import Small, same, small, weights

CHOSEN = {
    "texts, all weights": ("texts", 0, 7),
    "texts, low rank": ("texts", 4, 6),
    "sentences, all weights": ("tagger", 0, 6),
    "sentences, low rank": ("tagger", 4, 6),
}
EVERY = 0.1  # seconds between checkpoints
STEPS = 40

# One process imports everything, and forks for each run: what is killed is a process that does nothing but the run.
WARM = """
import gc, json, os, signal, sys, time, traceback
from pathlib import Path
import torch
torch.set_num_threads(1)
import expunge.audits.utility, expunge.report, expunge.methods.deepcut, peft, scipy.stats
from expunge.config import RunConfig
from test_interruption import carried_out
expunge.report.render = lambda *args: ""  # it takes longer than all else, and says nothing of weights
gc.collect()
gc.freeze()  # else every child looks through all that was imported
for line in sys.stdin:
    order = json.loads(line)
    start = time.monotonic()
    child = os.fork()
    if child == 0:
        log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(log, 1)
        os.dup2(log, 2)
        try:
            carried_out(RunConfig.from_dict(order["config"]), Path(order["out"]))
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    ended = 0
    while not ended and (order["after"] is None or time.monotonic() - start < order["after"]):
        ended, status = os.waitpid(child, os.WNOHANG)
        time.sleep(0.002)
    if not ended:
        os.kill(child, signal.SIGKILL)
        ended, status = os.waitpid(child, 0)
    print(json.dumps({"code": os.waitstatus_to_exitcode(status), "seconds": time.monotonic() - start}), flush=True)
"""


class Warm:
    """Carries out runs in processes of their own."""

    def __init__(self, process: subprocess.Popen[str], log: Path) -> None:
        self._process, self.log = process, log

    def run(self, job: Small, out: Path, after: float | None = None) -> dict[str, Any]:
        """The exit code (-9: it was killed) and the seconds of a run that is killed after so many."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        order = {"config": job.values, "out": str(out), "after": after, "log": str(self.log)}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        return json.loads(self._process.stdout.readline())


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Warm]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            yield Warm(process, tmp_path_factory.mktemp("log") / "log")
        finally:
            process.kill()


def test_there_are_25_moments() -> None:
    assert sum(count for _, _, count in CHOSEN.values()) == 25


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CHOSEN])
def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path, runs: Warm, name: str) -> None:
    """A moment is drawn from each of as many equal parts of the time that the run takes when it is left alone."""
    task, rank, count = CHOSEN[name]
    job = small(tmp_path / "job", task, rank, steps=STEPS)
    job.values["training"]["checkpoint_every"] = EVERY
    job.values["stop"]["every"] = 10
    whole = tmp_path / "whole" / "erased"
    first = runs.run(job, whole)
    assert first["code"] == 0, runs.log.read_text(encoding="utf-8")
    expected, seconds = same(RunRecord.read(whole)), first["seconds"]
    shares = (np.random.default_rng([7, [*CHOSEN].index(name)]).random(count) + np.arange(count)) / count
    found = []
    for number, share in enumerate(shares):
        out = tmp_path / str(number) / "erased"
        while (killed := runs.run(job, out, after=share * seconds))["code"] != -9:
            assert weights(out) == weights(whole), "it ended before its moment had come"
            out, seconds = out.parent.with_name(f"{out.parent.name}-again") / "erased", killed["seconds"]
        kept = folder_of(out)
        stages = sorted(path.name for path in kept.glob("*-*") if not path.name.startswith("."))
        if out.exists():
            found.append("the whole output")
        else:
            found.append(stages[-1] if stages else "nothing")
            assert not kept.exists() or kept.stat().st_mode & 0o777 == 0o700
            went_on = runs.run(job, out)
            assert went_on["code"] == 0, runs.log.read_text(encoding="utf-8")
            assert os.listdir(out.parent) == ["erased"]
        assert weights(out) == weights(whole), (share, stages)
        assert same(RunRecord.read(out)) == expected
        print(f"{name}: killed at {share:.2f} of {seconds:.1f} s, which left {found[-1]}; equal", flush=True)
    assert any(stage.startswith("checkpoint-") for stage in found), "else nothing was gone on from"
