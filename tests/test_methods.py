"""Each method's loss on four units with numbers worked out by hand, and what every method owes its users."""

from __future__ import annotations

import dataclasses
from math import log

import pytest
import torch

from expunge import ContrastiveUnlearning, DeepCUT, FineTune, GradientDifference, UsageError, registry
from expunge.errors import UndeclaredNeedError
from expunge.methods.base import Method
from expunge.scoring import Scores, Step

LOSSES = [DeepCUT, ContrastiveUnlearning, GradientDifference, FineTune]


def scores(group: str, hidden: list[list[float]], labels: list[int], needs, logits=None, index=None) -> Scores:
    vectors = torch.tensor(hidden, dtype=torch.float64, requires_grad=True)
    return Scores(
        hidden=vectors,
        logits=torch.tensor(logits, dtype=torch.float64, requires_grad=True) if logits else vectors,
        labels=torch.tensor(labels),
        record_index=torch.tensor(index if index is not None else list(range(len(labels)))),
        unit_index=torch.tensor(index if index is not None else list(range(len(labels)))),
        allowed=needs,
        group=group,
    )


def step(method: Method, **changes) -> Step:
    """One forget unit of class 0 at (1, 0), two retained: class 0 at (0, 2), class 1 at (3, 0).

    Cosines: with the same class 0, with the other class 1. Logits are uniform over two classes: each CE is log 2.
    """
    flat = [[0.0, 0.0]]
    forget = scores("forget", [[1.0, 0.0]], [0], method.needs, logits=flat)
    retain = scores("retain", [[0.0, 2.0], [3.0, 0.0]], [0, 1], method.needs, logits=flat * 2)
    return Step(**{"forget": forget, "retain": retain, "number": 0, **changes})


def test_deepcut_by_hand() -> None:
    # tau 1: L_f = -log[e^1 / (e^1 + e^0)] = log(1 + e^-1) = 0.313262; gamma 2. CE(retain) = log 2.
    parts = DeepCUT(gamma=2.0, temperature=1.0).loss(step(DeepCUT()))
    assert {name: part.item() for name, part in parts.items()} == {
        "retain": pytest.approx(log(2)),
        "forget": pytest.approx(2 * 0.313262, abs=1e-5),
    }


def test_deepcut_with_own_views_by_hand() -> None:
    # Two views of one record at (1, 0) and (0, 1): as anchors they have each other (cosine 0) as same-class partner.
    # First anchor: other class (3, 0) has cosine 1: log(1 + e^(0-1)) = 0.313262.
    # Second anchor: other class has cosine 0: log(1 + e^0) = 0.693147. Mean 0.503204.
    method = DeepCUT(gamma=1.0, temperature=1.0, partners="views", views=2)
    forget = scores("forget", [[1.0, 0.0], [0.0, 1.0]], [0, 0], method.needs, index=[0, 0])
    parts = method.loss(step(method, forget=forget))
    assert parts["forget"].item() == pytest.approx(0.503204, abs=1e-5)


def test_deepcut_with_both_kinds_of_partners_by_hand() -> None:
    # As above, and the retained same-class unit (0, 2): cosine 0 with the first view, 1 with the second.
    # First: log[(e^1 + e^0 + e^0) / e^1] = log(1 + 2 e^-1) = 0.551445; second: log[(e^0 + e^0 + e^1)/e^0] = 1.551445.
    method = DeepCUT(gamma=1.0, temperature=1.0, partners="both")
    forget = scores("forget", [[1.0, 0.0], [0.0, 1.0]], [0, 0], method.needs, index=[0, 0])
    parts = method.loss(step(method, forget=forget))
    assert parts["forget"].item() == pytest.approx((0.551445 + 1.551445) / 2, abs=1e-5)


def test_deepcut_detached_partners_get_no_gradient() -> None:
    for detach in (False, True):
        method = DeepCUT(detach_partners=detach)
        given = step(method)
        method.loss(given)["forget"].backward()
        moved = given.retain.hidden.grad
        assert given.forget.hidden.grad is not None
        assert given.forget.hidden.grad.abs().sum() > 0
        assert (moved is None) if detach else (moved is not None and moved.abs().sum() > 0)


def test_contrastive_unlearning_by_hand() -> None:
    # tau 1: log e^0 - 1 = -1, weight 3; class form: log 1 - 1 = -1 as well. CE(retain) = log 2, weight 0.5.
    for form in ("sample", "class"):
        method = ContrastiveUnlearning(form=form, temperature=1.0, retain_weight=0.5)
        parts = method.loss(step(method))
        assert parts["forget"].item() == pytest.approx(-3.0)
        assert parts["retain"].item() == pytest.approx(log(2) / 2)


def test_gradient_difference_by_hand() -> None:
    method = GradientDifference(forget_weight=0.25)
    parts = method.loss(step(method))
    assert parts["forget"].item() == pytest.approx(-0.25 * log(2))
    assert parts["retain"].item() == pytest.approx(log(2))


def test_finetune_by_hand() -> None:
    parts = FineTune().loss(step(FineTune()))
    assert {name: part.item() for name, part in parts.items()} == {"retain": pytest.approx(log(2))}


@pytest.mark.parametrize("cls", LOSSES)
def test_reading_what_is_not_declared_is_an_error(cls: type[Method]) -> None:
    for need in cls.needs:
        less = cls.needs - {need}
        bare = dataclasses.make_dataclass("Bare", [], bases=(cls,), frozen=True, kw_only=True)
        bare.needs = less
        with pytest.raises(UndeclaredNeedError, match=need):
            bare().loss(step(bare()))


@pytest.mark.parametrize("cls", LOSSES)
def test_methods_are_frozen_and_round_trip(cls: type[Method]) -> None:
    method = cls()
    assert cls.build(method.values()) == method
    with pytest.raises(dataclasses.FrozenInstanceError):
        method.retain_ratio = 9  # pyright: ignore


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"temperature": -1.0}, ["method.temperature", "-1.0", "greater than 0"]),
        ({"temperature": float("nan")}, ["method.temperature", "nan", "finite"]),
        ({"views": 0}, ["method.views", "0", "greater than or equal to 1"]),
        ({"partners": "all"}, ["method.partners", "'all'", "'retain', 'views' or 'both'"]),
        ({"gamma": "0.3"}, ["method.gamma", "'0.3'", "valid number"]),
    ],
)
def test_bad_hyperparameters_are_refused_when_built(values: dict, words: list[str]) -> None:
    with pytest.raises(UsageError) as error:
        DeepCUT(**values)
    for word in words:
        assert word in str(error.value)


def test_built_ins_come_by_the_same_road_as_plug_ins() -> None:
    assert registry.find("methods", "deepcut") is DeepCUT
    assert {"contrastive", "deepcut", "finetune", "gradient-difference", "retrain"} <= set(registry.names("methods"))
    with pytest.raises(UsageError, match='Did you mean "deepcut"'):
        registry.find("methods", "deepcutt")
