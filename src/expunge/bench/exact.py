"""SISA in the benchmark: the ensemble as it is after the request, and what the request would have cost it."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.bench.assets import Assets, Tables
from expunge.bench.datasets import Request
from expunge.fit import device
from expunge.head import head_of
from expunge.scoring import run_over, table_of
from expunge.sisa.ensemble import log_mean
from expunge.sisa.manifest import Members
from expunge.sisa.plan import Plan
from expunge.sisa.training import Shards, stage_folder

__all__ = ["AfterErasure", "sisa_after"]


@dataclass(frozen=True)
class AfterErasure:
    """An ensemble after a request.

    Attributes:
        tables: Its scores.
        passes: Example-passes of the stages the request touches.
        seconds: Seconds those stages took.
        stages: How many they are.
        all_stages: How many there are.
        ensemble_passes: Example-passes of all stages.
    """

    tables: Tables
    passes: float
    seconds: float
    stages: int
    all_stages: int
    ensemble_passes: float


def sisa_after(assets: Assets, request: Request, seed: int) -> AfterErasure:
    """Train 5 shards x 4 slices without the requested records, and count the stages that the request touches.

    An ensemble that is asked to erase records has, bit for bit on a CPU, the weights of one trained without them (shown
    in tests/test_sisa.py), so the second is trained here, and only the touched stages are counted as the request's cost.
    """
    recipe, _ = assets.recipe()
    split = assets.split
    ids = [split.train.ids[i] for i in request.retain]
    plan = Plan(seed=seed, epochs=recipe.epochs)
    members = Members(auto_class=assets.task.auto_class, label_names=split.label_names)
    shards = Shards(plan, recipe, members, Path(assets.base))
    first: dict[int, int] = {}
    for position in request.forget:
        shard, number = plan.place(split.train.ids[position])
        first[shard] = min(number, first.get(shard, number))
    counts = plan.counts(ids)
    retain = assets.encoded("train", request.retain)
    groups = assets.groups(request)
    logits: dict[str, list[Any]] = {group: [] for group in groups}
    passes = seconds = total = 0.0
    stages = 0
    for shard in range(plan.shards):
        visits = [plan.visits(counts[shard], stage) for stage in range(1, plan.slices + 1)]
        spared = sum(visits[: first.get(shard, plan.slices + 1) - 1])
        total += sum(visits)
        if not sum(counts[shard]):
            continue
        clock = _Clock(spared)
        with _scratch() as place:
            shards.train(
                shard, 1, task=assets.task, encoded=retain, ids=ids, start=None, place=place, device=device(),
                advance=clock.advance,
            )  # fmt: skip
            if shard in first:
                passes += sum(visits) - spared
                stages += plan.slices - first[shard] + 1
                seconds += time.perf_counter() - clock.started
            member = shards.whole(shard, place / stage_folder(shard, plan.slices)).to(device())
        head = head_of(member, assets.task, retain)
        for group, encoded in groups.items():
            logits[group].append(run_over(member, head, encoded, assets.task, batch_size=128, keep_hidden=False)[1])
    tables = {group: table_of(log_mean(logits[group]), groups[group], assets.task) for group in groups}
    return AfterErasure(tables, passes, seconds, stages, plan.shards * plan.slices, total)


class _Clock:
    """Takes the time when the stages before the first touched one are done."""

    def __init__(self, spared: float) -> None:
        self._left = spared
        self.started = time.perf_counter()

    def advance(self, records: float) -> None:
        if self._left > 0:
            self._left -= records
            if self._left <= 0:
                self.started = time.perf_counter()


@contextmanager
def _scratch() -> Iterator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="expunge-bench-"))
    try:
        yield folder
    finally:
        shutil.rmtree(folder)
