"""Two parts of a language model's loss that never meet are taken one after the other: the same step, the activations of one."""

from __future__ import annotations

import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.autograd.graph import saved_tensors_hooks

from expunge.config import TrainingConfig
from expunge.errors import NonFiniteLossError
from expunge.fit import arguments
from expunge.in_turns import turns_of
from expunge.methods.deepcut import DeepCUT
from expunge.methods.dpo import DPO
from expunge.methods.gradient_difference import GradientDifference
from expunge.methods.npo import NPO
from expunge.methods.pdu import PDU
from expunge.methods.undial import UNDIAL
from expunge.preparation import Preparation
from expunge.tasks.generation import Generation
from expunge.testing import byte_tokenizer, tiny_causal, toy_answers
from expunge.trainer import UnlearnTrainer

TASK = Generation(byte_tokenizer(), 64, tuple(map(str, range(259))), "{prompt} {answer}")
ROWS = toy_answers(24)


def trainer(place: Path, method: Any, model: Any = None, micro_batches: int = 1) -> UnlearnTrainer:
    args = arguments(
        str(place), 0, TrainingConfig(learning_rate=1e-3), per_device_train_batch_size=4 // micro_batches, max_steps=3,
        gradient_accumulation_steps=micro_batches,
    )  # fmt: skip
    forget, retain = (
        TASK.encode_texts([(row["prompt"], row["answer"]) for row in rows]) for rows in (ROWS[:8], ROWS[8:])
    )
    given = Preparation(
        reanswered=lambda answers: TASK.encode_texts([(r["prompt"], a) for r, a in zip(ROWS, answers, strict=False)])
    )
    return UnlearnTrainer(
        model or tiny_causal(seed=3).double(), args, method=method, task=TASK, forget=forget, retain=retain, given=given
    )


METHODS = [NPO(), NPO(retain="kl"), GradientDifference(), UNDIAL(), PDU(), DPO()]


@pytest.mark.parametrize("method", METHODS, ids=lambda m: f"{type(m).__name__}, {m.retain}")
def test_the_steps_are_those_of_one_pass(tmp_path: Path, method: Any) -> None:
    """Three steps in float64: weights, log and counted passes agree to rounding."""
    apart, together = trainer(tmp_path / "a", method), trainer(tmp_path / "b", method)
    assert apart._turns
    together._turns = None
    for one in (apart, together):
        one.train()
    for a, b in zip(apart.history, together.history, strict=True):
        assert a == pytest.approx(b, rel=1e-9, abs=1e-12)
        assert list(a) == list(b)
    assert apart.example_passes == together.example_passes
    for a, b in zip(apart.given.parameters(), together.given.parameters(), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-7, atol=1e-9)


def activations(one: UnlearnTrainer) -> int:
    """The most bytes that a step's graphs hold at once for their backward passes, weights apart."""
    weights = {p.untyped_storage().data_ptr() for p in one.given.parameters()}
    held, alive, most = {}, 0, 0

    class Kept:
        def __init__(self, tensor: torch.Tensor) -> None:
            self.tensor = tensor

    def keep(tensor: torch.Tensor) -> Any:
        nonlocal alive, most
        place, kept = tensor.untyped_storage().data_ptr(), Kept(tensor)
        if place not in weights:
            size = tensor.untyped_storage().nbytes()
            held[place] = held.get(place, 0) + 1
            alive += size if held[place] == 1 else 0
            most = max(most, alive)
            weakref.finalize(kept, let_go, place, size)
        return kept

    def let_go(place: int, size: int) -> None:
        nonlocal alive
        held[place] -= 1
        alive -= size if held[place] == 0 else 0

    with saved_tensors_hooks(keep, lambda kept: kept.tensor):
        one.train()
    return most


def test_activations_are_those_of_one_group(tmp_path: Path) -> None:
    """Four records to forget and four retained, all of about the same length: about half is there at once."""
    apart, together = trainer(tmp_path / "a", NPO()), trainer(tmp_path / "b", NPO())
    together._turns = None
    assert activations(apart) < 0.6 * activations(together)


def test_a_part_that_is_not_finite_is_told_with_the_others(tmp_path: Path) -> None:
    model = tiny_causal(seed=3)
    one = trainer(tmp_path, GradientDifference(forget_weight=1e38), model)
    with torch.no_grad():
        model.lm_head.weight.mul_(1e4)
    before = [p.clone() for p in model.parameters()]
    with pytest.raises(NonFiniteLossError, match=r"at step 1 \(retain = .*, forget = -?(inf|nan)\)"):
        one.train()
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)), "no step was made"


@dataclass(frozen=True, kw_only=True)
class Counting(NPO):
    def counts(self, step: Any) -> dict[str, float]:
        return {"units": float(len(step.retain.labels) + len(step.forget.labels))}


@dataclass(frozen=True, kw_only=True)
class Halfway(NPO):
    needs = frozenset({"forget.layer"})


@dataclass(frozen=True, kw_only=True)
class Meeting(NPO):
    def loss(self, step: Any) -> dict[str, Any]:
        return {"both": sum(super().loss(step).values())}


@pytest.mark.parametrize(
    ("method", "of_tokens", "whole"),
    [
        (NPO(), False, True),
        (NPO(), True, False),
        (NPO(retain="none"), True, True),
        (DeepCUT(), True, True),
        (Counting(), True, True),
        (Meeting(), True, True),
        (Halfway(), True, True),
    ],
    ids=[
        "classes",
        "a part of a step",
        "one group",
        "parts that meet",
        "counts of the whole step",
        "a loss of its own",
        "states of a layer",
    ],
)
def test_else_it_is_one_pass(method: Any, of_tokens: bool, whole: bool) -> None:
    assert turns_of(method, of_tokens=of_tokens, whole=whole) is None
    assert turns_of(NPO(), of_tokens=True, whole=True) == NPO()


def test_micro_batches_are_no_turns(tmp_path: Path) -> None:
    assert trainer(tmp_path, NPO(), micro_batches=2)._turns is None
