"""Kill -9 at 25 moments drawn by a seed: the output is not there or whole, and the run that goes on ends at the same bits."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
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
MOMENTS = 25
EVERY = 0.2  # seconds between checkpoints
STEPS = 80

# One process imports everything, and forks for each run: what is killed is a process that does nothing but the run.
WARM = """
import json, os, signal, sys, time, traceback
from pathlib import Path
import torch
torch.set_num_threads(1)
import expunge.audits.utility, expunge.report, expunge.methods.deepcut, peft, scipy.stats
from expunge.config import RunConfig
from test_interruption import carried_out
expunge.report.render = lambda *args: ""  # it takes longer than all else, and says nothing of weights
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


@contextmanager
def warm(log: Path) -> Iterator[Warm]:
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": str(Path(__file__).parent)}
    with subprocess.Popen(
        [sys.executable, "-c", WARM], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env
    ) as process:
        try:
            yield Warm(process, log)
        finally:
            process.kill()


@pytest.mark.slow
def test_kill_9_at_any_moment_loses_nothing(tmp_path: Path) -> None:
    assert sum(count for _, _, count in CHOSEN.values()) == MOMENTS
    rng = np.random.default_rng(7)
    found: Counter[str] = Counter()
    with warm(tmp_path / "log") as runs:
        for name, (task, rank, count) in CHOSEN.items():
            job = small(tmp_path / name / "job", task, rank, steps=STEPS)
            job.values["training"]["checkpoint_every"] = EVERY
            job.values["stop"]["every"] = 10
            whole = tmp_path / name / "whole" / "erased"
            first = runs.run(job, whole)
            assert first["code"] == 0, runs.log.read_text(encoding="utf-8")
            seconds, expected = first["seconds"], same(RunRecord.read(whole))
            for number in range(count):
                out, share = tmp_path / name / str(number) / "erased", rng.random()
                while (killed := runs.run(job, out, after=share * seconds))["code"] != -9:
                    assert weights(out) == weights(whole), "it ended before its moment had come"
                    out, seconds = out.parent.with_name(f"{number} again") / "erased", killed["seconds"]
                kept = folder_of(out)
                if out.exists():
                    assert weights(out) == weights(whole)
                    assert same(RunRecord.read(out)) == expected
                    found["with the output whole"] += 1
                    continue
                stages = sorted(path.name for path in kept.glob("*-*") if not path.name.startswith("."))
                if kept.exists():
                    assert kept.stat().st_mode & 0o777 == 0o700
                found["with " + (stages[-1].rpartition("-")[0] if stages else "nothing kept yet")] += 1
                went_on = runs.run(job, out)
                assert went_on["code"] == 0, runs.log.read_text(encoding="utf-8")
                assert weights(out) == weights(whole), (name, share, stages)
                assert same(RunRecord.read(out)) == expected
                assert os.listdir(out.parent) == ["erased"]
                print(
                    f"{name}: killed at {share:.2f} of {seconds:.1f} s, kept: {', '.join(stages) or 'nothing'}; equal"
                )
    assert sum(found.values()) == MOMENTS
    print(dict(found))
    assert found["with checkpoint"] > 5, "enough of them during training for this to mean something"
