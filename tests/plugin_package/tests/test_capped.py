"""What the author of a plug-in tests: the rules of Expunge, the loss by hand, and the golden trajectory."""

from __future__ import annotations

import json
from math import log
from pathlib import Path

import pytest
import torch
from expunge_capped.capped import Capped
from expunge_capped.confidence import Confidence

from expunge.step import Scores, Step
from expunge.testing import check_audit, check_method, trajectory


def test_the_method_keeps_the_rules() -> None:
    check_method(Capped)


def test_the_audit_keeps_the_rules() -> None:
    check_audit(Confidence)


def scores(probabilities: list[float], group: str) -> Scores:
    """Units of two classes, all of class 0, which the model gives these probabilities."""
    count = len(probabilities)
    logits = torch.tensor([[log(p), log(1 - p)] for p in probabilities], dtype=torch.float64)
    flat = {name: torch.arange(count) for name in ("record_index", "unit_index")}
    labels = torch.zeros(count, dtype=torch.long)
    return Scores(hidden=logits, logits=logits, labels=labels, allowed=Capped.needs, group=group, **flat)


def test_its_loss_by_hand() -> None:
    """Losses of .8 and .1 are .2231 and 2.3026 nats; the ceiling of 1 leaves .7769 and 0 below it, on average .3884.

    Retained: -log .5 = .6931.
    """
    parts = Capped(ceiling=1.0).loss(Step(scores([0.8, 0.1], "forget"), scores([0.5], "retain"), 0))
    assert float(parts["forget"]) == pytest.approx(0.3884, abs=1e-4)
    assert float(parts["retain"]) == pytest.approx(0.6931, abs=1e-4)


def test_it_takes_the_steps_it_took() -> None:
    kept = json.loads((Path(__file__).parent / "golden" / "capped.json").read_text(encoding="utf-8"))
    for job, rows in trajectory(Capped()).items():
        for mine, theirs in zip(rows, kept[job], strict=True):
            assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-9)
