"""A method's golden trajectory: the parts of its loss over a few steps on the tiny jobs, the same wherever it runs."""

from __future__ import annotations

import tempfile
from typing import Any

from transformers import PrinterCallback

from expunge.config import TrainingConfig
from expunge.conformance_stage import BATCH, given
from expunge.fit import arguments
from expunge.methods.base import Method
from expunge.tiny_jobs import answer_job, text_job
from expunge.trainer import UnlearnTrainer

__all__ = ["trajectory"]


def trajectory(method: Method, steps: int = 4) -> dict[str, list[dict[str, float]]]:
    """What a method logs in its first steps on a tiny classifier and a tiny language model, whichever it is for.

    Kept in a file, these rows are its golden trajectory.

    Plain SGD in float64 without dropout, so that the figures agree to about 1e-9 from machine to machine; a method whose
    figures change has become another method. They hang on the versions of torch and transformers too, which draw the
    tiny models' weights.

    Args:
        method: The method with the settings to be kept.
        steps: Optimisation steps.

    Returns:
        Name of the job -> a row a step: its number, ``loss``, each part in nats, the method's counts; ten digits.
    """
    own = {"classes": text_job, "tokens": answer_job}
    found = {}
    for job in [own[kind]() for kind in sorted(method.units)]:
        with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
            args: Any = arguments(
                folder, 3, TrainingConfig(learning_rate=0.05), per_device_train_batch_size=BATCH, max_steps=steps
            )
            args.optim = "sgd"  # AdamW's first steps have all the same size, whatever the gradient
            trainer = UnlearnTrainer(
                job.model(0), args, method=method, task=job.task, forget=job.forget, retain=job.retain,
                given=given(method, job, range(len(job.forget))),
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)  # it writes to the console
            trainer.train()
        found[job.name] = [{name: float(f"{value:.10g}") for name, value in row.items()} for row in trainer.history]
    return found
