"""A real record for tests of the report, made once, and larger ones grown from it."""

from __future__ import annotations

import dataclasses
import functools
import random
from typing import Any

from conftest import Job
from expunge.config import AuditConfig, TrainingConfig
from expunge.erase import unlearn
from expunge.record import RunRecord


@functools.cache
def real_record(job: Job) -> RunRecord:
    """A run on the tiny job, with two retrained models of a short recipe, every layer probed."""
    recipe = job.recipe.parent / "short.toml"
    recipe.write_text("epochs = 4\nlearning_rate = 3e-3\nbatch_size = 16\n", encoding="utf-8")
    erased = unlearn(
        str(job.model), str(job.train), forget=job.ids, held_out=str(job.held_out), id="id", base=str(job.base),
        recipe=str(recipe), retrain_seeds=(0, 1), salt_file=str(job.salt),
        training=TrainingConfig(min_steps=12, learning_rate=2e-3), audit=AuditConfig(bootstrap=100, more=("latent-probe",)),
    )  # fmt: skip
    return RunRecord.from_json(erased.record.to_json())


def grown(record: RunRecord, count: int) -> RunRecord:
    """The same with so many forget records: ids of their own, margins a little off the real ones'."""
    rng = random.Random(0)
    rows: list[dict[str, Any]] = []
    for number in range(count):
        row = record.records[number % len(record.records)]
        moved = {
            model: {**row[model], "margin": round(row[model]["margin"] + rng.gauss(0, 1), 4)}
            for model in ("original", "unlearned", "retrained")
            if model in row
        }
        rows.append({**row, **moved, "id": f"{number:012x}"})
    return dataclasses.replace(record, records=tuple(rows), data={**record.data, "forget": count})
