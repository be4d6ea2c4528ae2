"""Calibrated DeepCUT: its loss by hand, where its targets come from, and what it leaves on a tiny job."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import Job
from expunge import CalibratedDeepCUT, models
from expunge.config import StopConfig, TrainingConfig
from expunge.data.sources import read
from expunge.errors import UsageError
from expunge.leave_out import margins_of
from expunge.methods.base import MethodContext
from expunge.step import Scores, Step
from expunge.tasks.base import Encoded
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_tokenizer
from expunge.unlearning import Unlearning

NAMES = ("water", "machine", "music")
TASK = TextClassification(tiny_tokenizer(), 48, NAMES)


class Told:
    """Reference logits as they are given, one row a unit of the group."""

    def __init__(self, logits: torch.Tensor) -> None:
        self.rows = logits

    def logits(self, group: str, records: torch.Tensor, units: torch.Tensor) -> torch.Tensor:
        return self.rows[units]


def scores(logits: list[list[float]], labels: list[int], group: str, reference: torch.Tensor | None = None) -> Scores:
    place = torch.arange(len(labels))
    values = torch.tensor(logits)
    return Scores(
        hidden=values, logits=values, labels=torch.tensor(labels), record_index=place, unit_index=place,
        allowed=CalibratedDeepCUT.needs, group=group, reference=None if reference is None else Told(reference),
    )  # fmt: skip


def test_the_loss_by_hand() -> None:
    """Two classes: margin 2 - 0 = 2, target .5: smooth L1 (beta .5) 1.5 - .25. Retained logits (1, 0) were (3, 0): about
    their means (.5, -.5) and (1.5, -1.5), each off by 1: 1 - .25."""
    state = {"margins": torch.tensor([0.5]), "log_probabilities": torch.tensor([[0.62, 0.38]]).log()}
    step = Step(
        scores([[2.0, 0.0]], [0], "forget"), scores([[1.0, 0.0]], [0], "retain", torch.tensor([[3.0, 0.0]])), 0, state
    )
    parts = CalibratedDeepCUT(gamma=2.0, hold=4.0, contrast=0.0).loss(step)
    assert {name: part.item() for name, part in parts.items()} == pytest.approx(
        {"retain": 4 * 0.75, "forget": 2 * 1.25}
    )
    assert CalibratedDeepCUT().counts(step)["margin_to_target"] == pytest.approx(1.5)


def encoded(labels: np.ndarray) -> Encoded:
    return Encoded([[0]] * len(labels), None, [(int(label),) for label in labels])


def context(forget: np.ndarray, retain: np.ndarray, unseen: np.ndarray, outputs: dict[int, np.ndarray], **changes: Any):
    """A context whose models are known by name; `outputs` gives logits by how many records are asked for."""
    groups = [encoded(labels) for labels in (forget, retain, unseen)]
    values: dict[str, Any] = {
        "model": "original", "forget": groups[0], "unseen": groups[2], "retain": groups[1], "calibration": groups[2],
        "ids": [str(i) for i in range(len(forget))], "classes": 2, "seed": 0, "steps_per_pass": 1,
        "logits": lambda model, part: torch.tensor(outputs[len(part)]), "fresh": lambda _: None, "gradient": dict,
        "rewound": lambda _: None, "embedded": lambda *_: None, **changes,
    }  # fmt: skip
    return MethodContext(**values)


def logits_of(margins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    found = np.zeros((len(margins), 2))
    found[np.arange(len(margins)), labels] = margins
    return found


def test_a_target_is_the_margin_at_the_records_own_place() -> None:
    """Forget records at the 10 %, 50 % and 90 % places among retained ones get the calibration margins of these places."""
    rng = np.random.default_rng(0)
    retained, never = np.sort(rng.normal(6, 1, 99)), np.sort(rng.normal(1, 2, 49))
    own = retained[[9, 49, 89]]
    labels = [np.zeros(n, dtype=int) for n in (3, 99, 49)]
    given = context(*labels, {n: logits_of(m, np.zeros(n, int)) for n, m in ((3, own), (99, retained), (49, never))})
    # Drawn in random order, so that both must be sorted to find the places again.
    state = CalibratedDeepCUT(sample=99).prepare(replace(given, calibration=encoded(labels[2])))
    assert state["margins"].numpy() == pytest.approx(never[[4, 24, 44]], abs=0.05)
    log_p = state["log_probabilities"].double().numpy()
    assert margins_of(log_p, labels[0]) == pytest.approx(state["margins"].double().numpy(), abs=1e-5)


def test_a_class_that_is_erased_whole_becomes_as_unlikely_as_a_wrong_one() -> None:
    forget, retain, unseen = np.ones(4, int), np.zeros(60, int), np.zeros(40, int)
    margins = {4: np.full(4, 7.0), 60: np.full(60, 6.0), 40: np.full(40, 3.0)}
    given = context(forget, retain, unseen, {n: logits_of(m, np.full(n, n == 4, int)) for n, m in margins.items()})
    state = CalibratedDeepCUT(sample=60).prepare(given)
    assert state["margins"].numpy() == pytest.approx([-3.0] * 4)


def test_without_calibration_records_it_says_so() -> None:
    labels = np.zeros(5, int)
    with pytest.raises(UsageError, match="never trained on"):
        CalibratedDeepCUT().prepare(context(labels, labels, labels[:0], {}))


def test_a_rewound_model_lies_between_base_and_original(job: Job) -> None:
    """Its encoder on the straight line, its head the original's own; neither of the two is changed."""
    original = models.load_model(str(job.model), TASK.auto_class, where="model.path")
    before = models.weights_sha256(original)
    base = models.load_model(str(job.base), TASK.auto_class, where="base", new_head={"num_labels": 3})
    of_base = models.weights_of_base(str(job.base), original, TASK.auto_class)
    found = models.between(of_base, original, 0.7)
    weights, own, from_base = (dict(m.named_parameters()) for m in (found, original, base))
    name = "bert.encoder.layer.0.output.dense.weight"
    assert torch.allclose(weights[name], from_base[name] + 0.7 * (own[name] - from_base[name]), atol=1e-6)
    assert torch.equal(weights["classifier.weight"], own["classifier.weight"])
    assert models.weights_sha256(original) == before
    whole = dict(models.between(of_base, original, 1.0).named_parameters())
    assert all(torch.allclose(whole[n], own[n], atol=1e-6) for n in own)


def records(job: Job, file: str) -> tuple[Encoded, list[str]]:
    columns = read(getattr(job, file), where="test")
    labels = [NAMES.index(label) for label in columns["label"]]
    return TASK.encode_texts([(text,) for text in columns["text"]], labels), list(columns["id"])


def test_it_brings_margins_near_to_their_targets_and_keeps_the_rest(job: Job) -> None:
    train, ids = records(job, "train")
    calibration, _ = records(job, "held_out")
    model = models.load_model(str(job.model), TASK.auto_class, where="model.path")
    outcome = Unlearning(
        method=CalibratedDeepCUT(), task=TASK, forget=train.take(range(24)), retain=train.take(range(24, len(train))),
        calibration=calibration, forget_ids=ids[:24], retain_ids=ids[24:],
        training=TrainingConfig(learning_rate=1.5e-3, scheduler="linear", epochs=20.0, min_steps=1),
        stop=StopConfig(rule="none"), seed=0, label_names=NAMES, base=str(job.base),
    ).run(model)  # fmt: skip
    history, checks = outcome.log["history"], outcome.log["checks"]
    first, last = (np.mean([row["margin_to_target"] for row in part]) for part in (history[:2], history[-4:]))
    assert last < first / 2, "forget records come to where the targets are"
    assert checks[-1]["auc"] < checks[0]["auc"]
    assert checks[-1]["calibration_confidence"] > checks[0]["calibration_confidence"] - 0.05
    first_look = (24 + len(calibration)) / 3
    assert outcome.check_passes - first_look <= 0.1 * outcome.passes
