"""What a run cost, line by line, beside one retraining. Pure."""

from __future__ import annotations

from dataclasses import dataclass

from expunge.record import RunRecord

__all__ = ["CostRow", "cost_rows"]


@dataclass(frozen=True)
class CostRow:
    """One line.

    Attributes:
        what: What was done.
        passes: Example-passes of it; None where they were not counted.
        of_retraining: The same as a share of one retraining; None where that is not known.
        seconds: Wall-clock seconds, measured once; None where they were not taken.
        of_longest: Share of the dearest line: how long a bar is.
        whole: Whether it is the sum or the yardstick, not a part.
    """

    what: str
    passes: float | None
    of_retraining: float | None
    seconds: float | None
    of_longest: float
    whole: bool


def cost_rows(record: RunRecord) -> list[CostRow]:
    """Unlearning and its parts, one retraining, and what the evidence cost on top."""
    cost, timings = record.cost, record.timings
    retraining, retrained = cost["retraining"], len(record.models["retrained"])
    each = timings["retrain"] / retrained if "retrain" in timings and retrained else None
    lines = [
        ("steps of the unlearning", cost["training"], None, False),
        ("checks of the stop rule", cost["checks"], None, False),
        ("unlearning, in all", cost["total"], timings.get("unlearn"), True),
        ("one retraining without the records", retraining, each, True),
        ("scoring all models for the audits", cost.get("scoring"), timings.get("score"), False),
    ]
    lines += [
        (f"audit: {name}", passes, timings.get(f"stress, {name}"), False)
        for name, passes in cost.get("stress", {}).items()
    ]
    longest = max((passes for _, passes, _, _ in lines if passes), default=None)
    return [
        CostRow(
            what, passes, None if passes is None or not retraining else passes / retraining, seconds,
            0.0 if not longest or passes is None else passes / longest, whole,
        )
        for what, passes, seconds, whole in lines
        if passes is not None or seconds is not None or whole
    ]  # fmt: skip
