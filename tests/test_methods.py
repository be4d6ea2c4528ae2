"""Each method's loss with numbers worked out by hand, and which way it sends the forget units.

What every method owes its users whatever its loss is in test_conformance.py; whole runs in test_method_runs.py.
"""

from __future__ import annotations

import doctest
import importlib
from dataclasses import replace
from math import log

import numpy as np
import pytest
import torch

from expunge import (
    KGA,
    BadTeacher,
    ContrastiveUnlearning,
    DeepCUT,
    FineTune,
    GradientAscent,
    GradientDifference,
    RandomLabels,
    RunError,
    SalUn,
    Scrub,
    UsageError,
    registry,
)
from expunge.methods.base import Method, MethodContext
from expunge.methods.salun import saliency
from expunge.step import Scores, Step
from expunge.tasks.base import Encoded
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_tokenizer, toy_records

NAMES = ("water", "machine", "music")
TASK = TextClassification(tiny_tokenizer(), 48, NAMES)
UNIFORM, THREE_TO_ONE = [[0.0, 0.0]], [[log(3), 0.0]]


class Told:
    """Reference logits as they are given, one row a unit of the group."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.rows = logits

    def logits(self, group: str, records: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        return self.rows[units]


def encoded(count: int, seed: int) -> Encoded:
    rows = toy_records(count, seed=seed)
    return TASK.encode_texts([(r["text"],) for r in rows], [NAMES.index(r["label"]) for r in rows])


def scores(
    group: str, hidden: list[list[float]], labels: list[int], needs, logits=None, index=None, reference=None
) -> Scores:
    vectors = torch.tensor(hidden, dtype=torch.float64, requires_grad=True)
    return Scores(
        hidden=vectors,
        logits=torch.tensor(logits, dtype=torch.float64, requires_grad=True) if logits else vectors,
        labels=torch.tensor(labels),
        record_index=torch.tensor(index if index is not None else list(range(len(labels)))),
        unit_index=torch.tensor(index if index is not None else list(range(len(labels)))),
        allowed=needs,
        group=group,
        reference=None if reference is None else Told(torch.tensor(reference, dtype=torch.float64)),
    )


def pair(method: Method, forget, retain, *, teacher=None, number=0, **state) -> Step:
    """One unit of class 0 in each group, with these logits over two classes, and these of the original."""
    return Step(
        scores("forget", [[1.0, 0.0]], [0], method.reads, logits=forget, reference=teacher),
        scores("retain", [[0.0, 1.0]], [0], method.reads, logits=retain, reference=teacher),
        number,
        {
            name: torch.as_tensor(value, dtype=torch.float64 if name != "labels" else None)
            for name, value in state.items()
        },
    )


def descent(step: Step, method: Method) -> list[float]:
    """Where a step of gradient descent sends the forget unit's logits."""
    torch.stack(list(method.loss(step).values())).sum().backward()
    gradient = step.forget._logits.grad
    return (-gradient).squeeze(0).tolist() if gradient is not None else [0.0, 0.0]


def step(method: Method, **changes) -> Step:
    """One forget unit of class 0 at (1, 0), two retained: class 0 at (0, 2), class 1 at (3, 0).

    Cosines: with the same class 0, with the other class 1. Logits are uniform over two classes: each CE is log 2.
    """
    flat = [[0.0, 0.0]]
    forget = scores("forget", [[1.0, 0.0]], [0], method.reads, logits=flat)
    retain = scores("retain", [[0.0, 2.0], [3.0, 0.0]], [0, 1], method.reads, logits=flat * 2)
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
    forget = scores("forget", [[1.0, 0.0], [0.0, 1.0]], [0, 0], method.reads, index=[0, 0])
    parts = method.loss(step(method, forget=forget))
    assert parts["forget"].item() == pytest.approx(0.503204, abs=1e-5)


def test_deepcut_with_both_kinds_of_partners_by_hand() -> None:
    # As above, and the retained same-class unit (0, 2): cosine 0 with the first view, 1 with the second.
    # First: log[(e^1 + e^0 + e^0) / e^1] = log(1 + 2 e^-1) = 0.551445; second: log[(e^0 + e^0 + e^1)/e^0] = 1.551445.
    method = DeepCUT(gamma=1.0, temperature=1.0, partners="both")
    forget = scores("forget", [[1.0, 0.0], [0.0, 1.0]], [0, 0], method.reads, index=[0, 0])
    parts = method.loss(step(method, forget=forget))
    assert parts["forget"].item() == pytest.approx((0.551445 + 1.551445) / 2, abs=1e-5)


def test_contrastive_terms_send_the_forget_unit_to_the_other_class() -> None:
    # The anchor is at (1, 1): as near to (0, 2), of its class, as to (3, 0), of the other (cosines 1/sqrt 2). Only its
    # direction counts, so it can go along (1, -1), to the other class, or along (-1, 1).
    for method in (DeepCUT(temperature=1.0), ContrastiveUnlearning(temperature=1.0)):
        given = step(method, forget=scores("forget", [[1.0, 1.0]], [0], method.reads))
        method.loss(given)["forget"].backward()
        gradient = given.forget.hidden.grad
        assert gradient is not None
        along, across = (-gradient).squeeze(0).tolist()
        assert along > 0.01
        assert across == pytest.approx(-along)


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
    # NegGrad+ with beta 0.8 is 0.8 CE(retain) - 0.2 CE(forget): divided by beta, forget_weight = 0.2 / 0.8 = 1/4.
    # Descent on the forget logits: -(1/4) (onehot - p) = -(1/4) (1/2, -1/2).
    method = GradientDifference(forget_weight=0.25)
    given = pair(method, UNIFORM, UNIFORM)
    parts = method.loss(given)
    assert parts["forget"].item() == pytest.approx(-0.25 * log(2))
    assert parts["retain"].item() == pytest.approx(log(2))
    assert descent(given, method) == pytest.approx([-0.125, 0.125]), "away from the unit's class"


def test_finetune_by_hand() -> None:
    given = pair(FineTune(), UNIFORM, UNIFORM)
    parts = FineTune().loss(given)
    assert {name: part.item() for name, part in parts.items()} == {"retain": pytest.approx(log(2))}
    assert descent(given, FineTune()) == [0, 0]


def test_gradient_ascent_by_hand() -> None:
    # CE of a uniform unit over two classes is log 2. Its gradient is p - onehot = (-1/2, 1/2); ascent goes along it.
    given = pair(GradientAscent(), UNIFORM, UNIFORM)
    assert GradientAscent().loss(given)["forget"].item() == pytest.approx(-log(2))
    assert descent(given, GradientAscent()) == pytest.approx([-0.5, 0.5]), "away from the unit's class"


def test_random_labels_by_hand() -> None:
    # p = (3/4, 1/4), wrong label 1: CE = log 4, weight 1/2: log 2. CE(retain) = log 2.
    # Descent goes along (onehot(1) - p) / 2 = (-3/8, 3/8).
    method = RandomLabels(forget_weight=0.5)
    given = pair(method, THREE_TO_ONE, UNIFORM, labels=[1])
    parts = method.loss(given)
    assert {name: part.item() for name, part in parts.items()} == {
        "retain": pytest.approx(log(2)),
        "forget": pytest.approx(log(2)),
    }
    assert descent(given, method) == pytest.approx([-0.375, 0.375]), "away from the unit's class, toward the wrong one"


def test_bad_teacher_by_hand() -> None:
    # All logits are doubled and the temperature is 2, so that p = (3/4, 1/4) and u = (1/2, 1/2) as before.
    # KL(u || p) = (log(2/3) + log 2) / 2 = log(4/3) / 2 = 0.143841; weight 2.
    # KL(p || u) = 3/4 log(3/2) + 1/4 log(1/2) = 0.130812.
    # Descent on the forget logits: weight * (u - p) / temperature = 2 * (-1/4, 1/4) / 2: toward the untrained teacher.
    method = BadTeacher(temperature=2.0, forget_weight=2.0)
    original = [[2 * log(3), 0.0]]
    given = pair(method, original, UNIFORM, teacher=original)
    given = replace(given, state={"teacher": torch.zeros(1, 2)})
    parts = method.loss(given)
    assert parts["forget"].item() == pytest.approx(2 * 0.143841, abs=1e-6)
    assert parts["retain"].item() == pytest.approx(0.130812, abs=1e-6)
    assert descent(given, method) == pytest.approx([-0.25, 0.25])


def test_scrub_by_hand() -> None:
    # Temperature 2 as above; T^2 = 4. Max step: -4 KL(u || p) = -4 * 0.143841.
    # Min step: 4 alpha KL(p || u) + gamma CE = 4 * 0.5 * 0.130812 + 3 log 2.
    method = Scrub(alpha=0.5, gamma=3.0, temperature=2.0, max_passes=1)
    original = [[2 * log(3), 0.0]]
    away = pair(method, original, UNIFORM, teacher=UNIFORM, steps_per_pass=2)
    parts = method.loss(away)
    assert (parts["forget"].item(), parts["retain"].item()) == (pytest.approx(-4 * 0.143841, abs=1e-5), 0)
    # The gradient of KL(u || p) is (p - u) / T; ascent, times T^2, is 2 (p - u) = (1/2, -1/2): away from the teacher,
    # which is less sure of class 0 here.
    assert descent(away, method) == pytest.approx([0.5, -0.5])
    near = pair(method, original, UNIFORM, teacher=original, number=2, steps_per_pass=2)
    parts = method.loss(near)
    assert (parts["forget"].item(), parts["retain"].item()) == (0, pytest.approx(0.261624 + 3 * log(2), abs=1e-5))
    assert descent(near, method) == [0, 0]


def test_scrub_takes_turns() -> None:
    method = Scrub(max_passes=2, min_passes=1)
    read = "".join(next(iter(method.groups(number, 2)))[0] for number in range(12))
    assert read == "ffrrffrrrrrr", "two steps a pass, two max passes, then only min passes"
    method = Scrub(max_passes=1, min_passes=2)
    assert [*map(min, (method.groups(n, 1) for n in range(4)))] == ["forget", "retain", "retain", "retain"]


def test_kga_by_hand() -> None:
    # KL(A || A_f)(forget) = KL(p || u) = 0.130812, gap 0.5: 0.369188. KL(A_D || A)(retain) = KL(p || u), alpha 2.
    # The gradient of KL(p || u) with p = (3/4, 1/4) is p_i (log(p_i / u_i) - KL) = 3/4 (log 3/2 - 0.130812) = 0.205990
    # for the first logit and minus that for the second.
    method = KGA(alpha=2.0)
    for gap, direction in ((0.5, 1.0), (0.05, -1.0)):
        given = pair(method, THREE_TO_ONE, UNIFORM, teacher=THREE_TO_ONE)
        given = replace(given, state={"gap": torch.tensor(gap), "teacher": torch.zeros(1, 2)})
        parts = method.loss(given)
        assert parts["forget"].item() == pytest.approx(abs(0.130812 - gap), abs=1e-5)
        assert parts["retain"].item() == pytest.approx(2 * 0.130812, abs=1e-5)
        # Nearer to A_f than the gap: away from it; further: toward it.
        assert descent(given, method) == pytest.approx([0.205990 * direction, -0.205990 * direction], abs=1e-5)


def context(forget: Encoded, ids: list[str], **changes) -> MethodContext:
    values = {
        "model": None, "forget": forget, "unseen": forget, "ids": ids, "classes": 3, "seed": 0, "steps_per_pass": 1,
        "logits": lambda *_: None, "fresh": lambda _: None, "gradient": dict, "retain": forget, "calibration": forget,
        "rewound": lambda _: None, "embedded": lambda *_: None,
    }  # fmt: skip
    return MethodContext(**{**values, **changes})


def test_kga_prepares_the_gap_from_unseen_records() -> None:
    """Models are known by name here; the gap is KL(original || A_n) on unseen records, the teacher A_f on forget ones."""
    forget, unseen = encoded(2, 1), encoded(3, 2)
    outputs = {
        ("original", 3): torch.tensor(THREE_TO_ONE * 3), ("of 3", 3): torch.zeros(3, 2), ("of 2", 2): torch.ones(2, 2),
    }  # fmt: skip
    given = context(
        forget, ["a", "b"], model="original", unseen=unseen, fit=lambda records, seed: f"of {len(records)}",
        logits=lambda model, records: outputs[model, len(records)],
    )  # fmt: skip
    state = KGA().prepare(given)
    assert state["gap"].item() == pytest.approx(0.130812, abs=1e-5)
    assert torch.equal(state["teacher"], torch.ones(2, 2))
    with pytest.raises(RunError, match=r"retrain\.base"):
        KGA().prepare(replace(given, fit=None))
    with pytest.raises(UsageError, match="never trained on"):
        KGA().prepare(replace(given, unseen=unseen.take([])))


@pytest.mark.parametrize("method", [RandomLabels(), SalUn()], ids=lambda method: type(method).__name__)
def test_wrong_labels_hang_on_ids_alone(method: Method) -> None:
    """Never the true class, evenly spread over the others, the same however the records are ordered."""
    forget = encoded(300, 1)
    ids = [f"r{i}" for i in range(300)]
    gradient = {"w": torch.arange(4.0)}
    labels = method.prepare(context(forget, ids, gradient=lambda: gradient))["labels"].numpy()
    true = np.array(forget.flat_labels)
    assert not (labels == true).any()
    shifts = np.bincount((labels - true) % 3, minlength=3)
    assert shifts[0] == 0
    assert abs(shifts[1] - 150) < 45, "five standard deviations of 300 fair draws"
    order = np.random.default_rng(0).permutation(300).tolist()
    again = method.prepare(context(forget.take(order), [ids[i] for i in order], gradient=lambda: gradient))["labels"]
    assert (again.numpy() == labels[order]).all()
    other = method.prepare(context(forget, ids, seed=1, gradient=lambda: gradient))["labels"].numpy()
    assert (other != labels).any()


def test_saliency_by_hand() -> None:
    # Sizes 5, 4, 3, 2 and three without gradient: half of the four that have one is two, the second largest is 4.
    gradient = {"a": torch.tensor([[0.0, -5.0], [0.0, 2.0]]), "b": torch.tensor([-4.0, 3.0, 0.0, 0.0])}
    masks = saliency(gradient, 0.5)
    assert masks["a"].tolist() == [[False, True], [False, False]]
    assert masks["b"].tolist() == [True, False, False, False]
    assert sum(int(mask.sum()) for mask in saliency(gradient, 1.0).values()) == 4, "never a weight without gradient"
    assert not saliency({"a": torch.zeros(3)}, 0.5)["a"].any()


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
    assert {
        "bad-teacher", "contrastive", "deepcut", "finetune", "gradient-ascent", "gradient-difference", "kga",
        "random-labels", "retrain", "rewind", "salun", "scrub", "task-vector",
    } <= set(registry.names("methods"))  # fmt: skip
    with pytest.raises(UsageError, match='Did you mean "deepcut"'):
        registry.find("methods", "deepcutt")


@pytest.mark.parametrize("name", registry.names("methods"))
def test_docstring_examples_hold(name: str) -> None:
    result = doctest.testmod(importlib.import_module(registry.find("methods", name).__module__))
    assert result.attempted
    assert not result.failed
