"""Calibrated DeepCUT as a kernel problem: its targets by hand, what it leaves on a tiny job, and what it costs."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch

from conftest import Job
from expunge import KernelDeepCUT, models
from expunge.config import StopConfig, TrainingConfig
from expunge.errors import UsageError
from expunge.head import head_of
from expunge.record_targets import class_effects, record_targets, whole_records
from expunge.scoring import score
from expunge.tiny_jobs import tag_job
from expunge.unlearning import Unlearning
from test_deepcut_calibrated import NAMES, TASK, context, logits_of, records


def test_a_records_log_odds_are_those_of_the_score_table() -> None:
    job = tag_job()
    model = job.model(0).eval()
    table = score(model, head_of(model, job.task, job.retain), job.retain, job.task)
    assert whole_records(table.margins, job.retain.offsets) == pytest.approx(table.record_margins)
    assert whole_records(np.array([1.0, -2.0]), [0, 1, 2]).tolist() == [1.0, -2.0], "one unit: its own"


def test_class_effects_are_drawn_toward_the_mean_as_far_as_few_records_leave_them_open() -> None:
    """Classes (0, 2) and (10, 12), grand mean 6: within 2, between 50 - 2 / 2 = 49, so +-5 times 2 / (2 + 2/49)."""
    effects = class_effects(np.array([0.0, 2, 10, 12]), np.array([0, 0, 1, 1]), 3)
    assert effects == pytest.approx([-5 * 2 / (2 + 2 / 49), 5 * 2 / (2 + 2 / 49), 0.0])
    rng = np.random.default_rng(0)
    noise = class_effects(rng.normal(size=400), np.arange(400) % 4, 4)
    assert np.abs(noise).max() < 0.1, "classes that do not differ have next to no effect"
    assert class_effects(np.ones(5), np.arange(5), 5).tolist() == [0] * 5, "one record a class says nothing"


def test_a_target_is_the_log_odds_at_the_records_own_place() -> None:
    rng = np.random.default_rng(0)
    retained, never = np.sort(rng.normal(6, 1, 99)), np.sort(rng.normal(1, 2, 49))
    own = retained[[9, 49, 89]]
    labels = [np.zeros(n, dtype=int) for n in (3, 99, 49)]
    given = context(*labels, {n: logits_of(m, np.zeros(n, int)) for n, m in ((3, own), (99, retained), (49, never))})
    found = record_targets(given, rewind=0.7, sample=99)
    assert found.forget == pytest.approx(never[[4, 24, 44]], abs=0.05)
    known = record_targets(replace(given, known=never + 1.0), rewind=0.7, sample=99)
    assert known.forget == pytest.approx(never[[4, 24, 44]] + 1.0, abs=0.05), "scores that are there are taken"
    assert found.unseen == known.unseen == list(range(49))


def test_rare_classes_keep_their_own_level() -> None:
    """Ten classes whose margins lie 3 nats apart and vary by .1: a target stays within its class."""
    rng = np.random.default_rng(1)
    classes = [np.arange(n) % 10 for n in (20, 100, 90)]
    margins = [
        3.0 * c + shift + 0.1 * rng.normal(size=len(c)) for c, shift in zip(classes, (6.0, 6.0, 1.0), strict=True)
    ]
    outputs = {}
    for own, labels in zip(margins, classes, strict=True):
        logits = np.full((len(own), 10), -np.log(9.0))
        logits[np.arange(len(own)), labels] = own
        outputs[len(own)] = logits
    given = replace(context(*classes, outputs), classes=10)
    found = record_targets(given, rewind=0.7, sample=100)
    assert found.forget == pytest.approx(3.0 * classes[0] + 1.0, abs=0.6)


def test_classes_of_two_or_three_records_share_one_place() -> None:
    """The place is that among all records, whatever the class: so few say nothing of its level."""
    rng = np.random.default_rng(0)
    retained, never = np.sort(rng.normal(6, 1, 99)), np.sort(rng.normal(1, 2, 49))
    margins = {3: retained[[9, 49, 89]], 99: retained, 49: never}
    outputs = {}
    for count, own in margins.items():
        outputs[count] = np.full((count, 40), -np.log(39.0))
        outputs[count][np.arange(count), np.arange(count) % 40] = own
    given = replace(context(*(np.arange(count) % 40 for count in margins), outputs), classes=40)
    found = record_targets(given, rewind=0.7, sample=99)
    assert found.forget == pytest.approx(never[[4, 24, 44]], abs=0.05)


def test_a_class_erased_whole_becomes_as_likely_as_one_of_all() -> None:
    forget, retain, unseen = np.ones(4, int), np.zeros(60, int), np.zeros(40, int)
    margins = {4: np.full(4, 7.0), 60: np.full(60, 6.0), 40: np.full(40, 3.0)}
    given = context(forget, retain, unseen, {n: logits_of(m, np.full(n, n == 4, int)) for n, m in margins.items()})
    assert record_targets(given, rewind=0.7, sample=60).forget == pytest.approx([0.0] * 4), "two classes: one half"


def unlearning(job: Job, method: KernelDeepCUT, **changes: Any) -> Unlearning:
    train, ids = records(job, "train")
    calibration, _ = records(job, "held_out")
    values: dict[str, Any] = {
        "method": method, "task": TASK, "forget": train.take(range(24)), "retain": train.take(range(24, len(train))),
        "calibration": calibration, "forget_ids": ids[:24], "retain_ids": ids[24:], "training": TrainingConfig(),
        "stop": StopConfig(), "seed": 0, "label_names": NAMES,
        "base": str(job.base), **changes,
    }  # fmt: skip
    return Unlearning(**values)


def own_model(job: Job) -> Any:
    return models.load_model(str(job.model), TASK.auto_class, where="model.path")


def test_it_brings_records_to_their_targets_and_keeps_the_rest(job: Job) -> None:
    original, method = own_model(job), KernelDeepCUT(damping=(0.1, 0.03, 0.03, 0.01, 0.01, 0.01), partners=80)
    run = unlearning(job, method)
    outcome = run.run(own_model(job))
    history, checks = outcome.log["history"], outcome.log["checks"]
    assert history[-1]["margin_to_target"] < history[0]["margin_to_target"] / 3, "before the last step"
    assert abs(checks[-1]["auc"] - 0.5) < abs(checks[0]["auc"] - 0.5) / 2
    assert checks[-1]["forget_confidence"] < checks[0]["forget_confidence"] - 0.2
    assert checks[-1]["calibration_confidence"] > checks[0]["calibration_confidence"] - 0.05
    head = head_of(outcome.model, TASK, run.retain)
    retain = score(outcome.model, head, run.retain, TASK)
    before = score(original, head_of(original, TASK, run.retain), run.retain, TASK)
    assert retain.accuracy > before.accuracy - 0.03
    assert torch.equal(head.module.weight, head_of(original, TASK, run.retain).module.weight), "the head stays"
    again = unlearning(job, method).run(own_model(job))
    assert models.weights_sha256(again.model) == models.weights_sha256(outcome.model), "the same seed, the same weights"


def test_the_step_told_is_the_step_given_back(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """A later step is kept where its check is worse by less than small samples can tell."""
    looks = iter([0.9, 0.52, 0.55, 0.58])
    plain = Unlearning._look

    def look(self: Unlearning, sizes: tuple[int, int]) -> Any:
        made = plain(self, sizes)
        real = made.check
        made.check = lambda model, step: replace(
            real(model, step), auc=next(looks), low=0.51, calibration_confidence=0.5
        )
        return made

    monkeypatch.setattr(Unlearning, "_look", look)
    log = unlearning(job, KernelDeepCUT(damping=(0.5, 0.5, 0.5))).run(own_model(job)).log
    assert log["kept_step"] == 3
    assert log["reason"].endswith("as far as its check and that of candidate 1 can tell")


@pytest.mark.parametrize(("block", "clean"), [(256, 0.0), (10, 0.0), (256, 0.3)])
def test_it_costs_what_it_says(job: Job, block: int, clean: float) -> None:
    """Each record of a step one pass, all that is scored a third: as counted, and as `expected` says beforehand."""
    method = KernelDeepCUT(damping=(0.3, 0.2), block=block, clean_weight=clean)
    run = unlearning(job, method)
    outcome = run.run(own_model(job))
    blocks = 1 if block == 256 else 3
    partners = 24 + 3 // 3
    steps = 2 * (24 + 2 * partners * blocks)
    seen, unseen = (min(96, len(part)) for part in (run.retain, run.calibration))
    targets = (
        (1 + (clean > 0)) * (24 + seen + unseen) / 3
    )  # rewound, calibration under the original; all under the base
    assert steps + targets <= outcome.passes <= steps + targets + (2 * blocks - 1) * partners / 3
    expected, steps_taken = method.expected(24, len(run.retain), len(run.calibration), 3)
    assert outcome.passes <= expected + 1e-6
    assert steps_taken == outcome.log["steps"] == 2
    first_look = (24 + len(run.calibration)) / 3
    assert outcome.check_passes - first_look <= max(0.1 * expected, 3 * 64 / 3)


def test_where_retraining_is_dear_it_takes_a_fourth_step_and_more_partners() -> None:
    method, sizes = KernelDeepCUT(), (60, 1140, 400, 4)
    plain = method.way(*sizes, None)
    assert (len(plain.damping), plain.partners) == (3, 61), "60 forget records and a third of 4 classes"
    assert method.way(*sizes, 4 * 1140.0) == plain, "a fourth step would cost more than 14 % of four epochs"
    for epochs in (10, 20, 40):
        retraining = epochs * 1140.0
        way = method.way(*sizes, retraining)
        assert len(way.damping) == 4
        assert way.partners > plain.partners
        passes, steps = method.expected(*sizes, retraining)
        assert steps == 4
        assert passes <= 0.14 * retraining
        assert way.partners == 256 or passes + 9 > 0.14 * retraining, "one partner more a step would be too many"
    few = KernelDeepCUT().way(12, 1188, 400, 4, 40 * 1188.0)
    assert method._cost(12, 1188, 400, 4, few) <= 0.05 * 40 * 1188, "five times the request's share of the data"
    assert KernelDeepCUT(partners=30).way(*sizes, 1e9).partners == 30, "what is set is kept"


def test_without_calibration_records_it_says_so(job: Job) -> None:
    run = unlearning(job, KernelDeepCUT())
    with pytest.raises(UsageError, match="never trained on"):
        replace(run, calibration=run.calibration.take([])).run(own_model(job))
