"""What a run will cost: example-passes counted from its settings, and the memory taken so far."""

from __future__ import annotations

import sys
from dataclasses import dataclass

from expunge.methods.base import Method
from expunge.offset.ensemble import OffsetModel
from expunge.sampling import StepSampler

__all__ = ["Cost", "offset_share", "peak_memory", "step_passes"]


@dataclass(frozen=True)
class Cost:
    """The expected cost of a run. An example-pass is one record forward and backward; forward alone is a third.

    Attributes:
        steps: Steps at most; the stop rule may end earlier. None for a method without steps.
        passes: Example-passes of these steps and of what the method makes before them; None where they cannot be known.
        checks: Those of the stop rule's checks.
        retraining: Those of one retraining, where the recipe is known.
        seconds: Of the whole run: steps, checks, scoring and retraining; not the audits' own arithmetic.
        retraining_seconds: How much of them is retraining.
        memory: Bytes at the peak of a few steps, where they could be tried: of the device, or of the process.
        basis: What the seconds are reckoned from.
    """

    steps: int | None
    passes: float | None
    checks: float
    retraining: float | None
    seconds: float | None
    retraining_seconds: float
    memory: int | None
    basis: str


def step_passes(
    method: Method,
    sampler: StepSampler,
    forget: int,
    retain: int,
    steps: int,
    micro_batches: int = 1,
    share: float = 1.0,
) -> float:
    """Example-passes of a method's steps, the original's outputs among them where it compares with these.

    Args:
        method: Says which groups a step reads, and how often.
        sampler: Says how many records a step sees.
        forget: Forget records.
        retain: Retained records.
        steps: Steps.
        micro_batches: Parts a step is cut into; a second forward pass then comes with each.
        share: What a pass of a step is of one through the whole model (`expunge.halfway.end_of_pass`).
    """
    whole = share * (1 + (1 / 3 if micro_batches > 1 else 0))
    total = 0.0
    for step in range(steps):
        within = step % sampler.steps_per_pass
        read = method.groups(step, sampler.steps_per_pass)
        drawn = min(sampler.batch_size, forget - within * sampler.batch_size)
        total += whole * drawn * getattr(method, "views", 1) * ("forget" in read)
        total += whole * sampler.retain_size * ("retain" in read)
        total += whole * drawn * ("alternate" in read)
    if any(need.startswith("forget.reference") for need in method.reads):
        total += min(forget, steps * sampler.batch_size) / 3
    if any(need.startswith("retain.reference") for need in method.reads):
        total += min(retain, steps * sampler.retain_size) / 3
    if any(need.startswith("alternate.reference") for need in method.reads):
        total += min(forget, steps * sampler.batch_size) / 3
    return total


def offset_share(
    model: OffsetModel, method: Method, sampler: StepSampler, sizes: tuple[int, int, int], steps: int
) -> tuple[float, float]:
    """What a pass of a model with an offset counts as in a step, and what the frozen models' outputs cost once.

    Args:
        model: The model as it came out of a few steps.
        method: Says which groups a step reads.
        sampler: Says how many records a step sees.
        sizes: Forget and retain records, and calibration records that checks look at.
        steps: Steps.
    """
    forget, retain, looked_at = sizes
    reads = {need.partition(".")[0] for need in method.reads}
    once = min(forget, steps * sampler.batch_size) * (1 + ("alternate" in reads and "forget" in reads))
    once += min(retain, steps * sampler.retain_size) * ("retain" in reads)
    with model.remembering():
        return model.passes, (once + looked_at) * model.first_passes


def peak_memory() -> int | None:
    """Bytes this process has taken at most, of the accelerator where there is one; None where nobody counts."""
    import torch

    if torch.cuda.is_available():
        return int(torch.cuda.max_memory_allocated())
    try:
        import resource
    except ImportError:  # Windows
        return None
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
