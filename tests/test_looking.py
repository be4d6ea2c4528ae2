"""How often the stop rule looks, at how many records, and what it sees."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from expunge import DeepCUT, FineTune, GradientAscent
from expunge.config import StopConfig
from expunge.foresight import Foresight
from expunge.head import head_of
from expunge.looking import SHARE, Look, Schedule, rows_a_step, schedule
from expunge.matching import Places
from expunge.scoring import score
from expunge.step import Scores
from expunge.tasks.base import Encoded
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_classifier, tiny_tokenizer, toy_records

NAMES = ("water", "machine", "music")
TASK = TextClassification(tiny_tokenizer(), 48, NAMES)


def encoded(count: int, seed: int) -> Encoded:
    rows = toy_records(count, seed=seed)
    return TASK.encode_texts([(r["text"],) for r in rows], [NAMES.index(r["label"]) for r in rows])


@pytest.mark.parametrize(
    ("forget", "steps", "a_step"), [(20, 40, 48), (100, 20, 48), (150, 40, 48), (1000, 250, 64), (300, 80, 32)]
)
def test_checks_cost_a_tenth_of_the_run_at_most(forget: int, steps: int, a_step: int) -> None:
    found = schedule(StopConfig(), forget, 1000, steps * a_step, steps)
    checks = -(-steps // found.every)  # every few, and after the last; the first look is at what the run has scored
    assert checks >= 2
    assert checks < found.most - 1, "one may come early"
    assert (found.most - 1) * (found.forget + found.calibration) / 3 <= SHARE * steps * a_step
    assert min(found.forget, found.calibration) >= min(20, forget)


def test_a_run_too_short_for_that_still_looks_at_its_ends() -> None:
    assert schedule(StopConfig(), 20, 1000, 4 * 48, 4) == Schedule(every=4, most=2, forget=20, calibration=32)


def test_what_is_given_is_kept() -> None:
    found = schedule(StopConfig(every=3, sample=100), 400, 1000, 500.0, 40)
    assert (found.every, found.forget, found.calibration) == (3, 100, 100)
    assert found.most == 1 + 14


def test_a_step_is_what_the_method_reads() -> None:
    assert rows_a_step(DeepCUT(views=2, retain_ratio=3), 16, 100, 1000) == 2 * 16 + 48
    assert rows_a_step(DeepCUT(), 16, 5, 1000) == 5 + 32
    assert rows_a_step(GradientAscent(), 16, 100, 1000) == 16
    assert rows_a_step(FineTune(retain_ratio=1), 16, 100, 1000) == 16


def look(sizes: tuple[int, int] = (12, 24)) -> Look:
    forget, calibration = encoded(12, 1), encoded(24, 2)
    return Look(TASK, forget, calibration, np.array([5, 5, 5]), sizes, 0.9, seed=0)


def test_a_check_is_what_the_scores_say_and_is_paid_for() -> None:
    looking, model = look(), tiny_classifier()
    found = looking.check(model, 7)
    tables = [score(model, head_of(model, TASK, part), part, TASK) for part in (looking.forget, looking.calibration)]
    assert (found.step, found.classes, found.unknown) == (7, 3, 0.0)
    assert (found.forget, found.calibration) == (tables[0].accuracy, tables[1].accuracy)
    assert found.forget_confidence == pytest.approx(tables[0].confidence)
    assert found.low <= found.auc <= found.high
    assert looking.passes == pytest.approx(36 / 3)


def test_later_looks_add_what_changed_in_a_sample_to_what_the_first_saw() -> None:
    """The same model again: exactly the first figures, though the sample alone has others; and only the sample is paid."""
    looking, model = look((5, 10)), tiny_classifier()
    first = looking.check(model, 0)
    assert looking.passes == pytest.approx(36 / 3)
    again = looking.check(model, 5)
    assert looking.passes == pytest.approx((36 + 15) / 3)
    for name in ("forget", "calibration", "forget_confidence", "calibration_confidence", "auc"):
        assert getattr(again, name) == pytest.approx(getattr(first, name))


def test_with_the_runs_own_scores_the_first_look_is_free() -> None:
    looking, model = look((5, 10)), tiny_classifier()
    wanted = looking.check(model, 0)
    given = tuple(
        score(model, head_of(model, TASK, part), part, TASK) for part in (looking.forget, looking.calibration)
    )
    free = Look(TASK, looking.forget, looking.calibration, looking.known, (5, 10), 0.9, seed=0, given=given)
    assert free.check(model, 0) == wanted
    assert free.passes == 0


def step_of(logits: torch.Tensor, labels: torch.Tensor) -> Scores:
    place = torch.arange(len(labels))
    return Scores(
        hidden=logits, logits=logits, labels=labels, record_index=place, unit_index=place, allowed=(), group="forget"
    )


@pytest.mark.parametrize(("shift", "near"), [(8.0, False), (-8.0, True)])
def test_training_steps_say_for_free_whether_the_aim_is_near(shift: float, near: bool) -> None:
    looking, model = look(), tiny_classifier()
    assert not looking.near(), "nothing seen yet"
    looking.check(model, 0)
    labels = torch.tensor([0, 1, 2])
    logits = torch.nn.functional.one_hot(labels, 3) * shift
    looking.watch(step_of(logits, labels))
    assert looking.near() is near
    looking.check(model, 5)
    assert not looking.near(), "a check starts afresh"


def test_where_single_records_are_followed_the_next_step_is_foreseen() -> None:
    """All above what was never seen, then a half below: the next step would leave nearly all there."""
    looking, model = look(), tiny_classifier()
    looking.foresight = Foresight(len(looking.forget))
    looking.check(model, 0)
    looking.foresight.looked(
        np.arange(len(looking.forget)), np.full(len(looking.forget), 0.9)
    )  # this model knows nothing
    labels = torch.arange(len(looking.forget)) % 3
    near = []
    for below in (0, 0, len(labels) // 2):
        signs = torch.where(torch.arange(len(labels)) < below, -8.0, 8.0)
        looking.watch(step_of(torch.nn.functional.one_hot(labels, 3) * signs[:, None], labels))
        near.append(looking.near())
    assert near == [False, False, True]
    kept = looking.state()
    again = look()
    again.foresight = Foresight(len(looking.forget))
    again.restore(kept, model)
    assert again.near(), "as an interrupted run goes on"


def test_between_looks_records_are_placed_among_their_own_class() -> None:
    """Records of a hard class above what was never seen of it are remembered, however surely others are known."""
    looking, model = look(), tiny_classifier()
    looking.check(model, 0)
    easy, hard = looking.calibration.flat_labels.count(0), looking.calibration.flat_labels.count(1)
    assert min(easy, hard) >= 5
    margins = np.where(np.array(looking.calibration.flat_labels) == 1, -5.0, 5.0)
    looking._unseen = Places(margins, np.array(looking.calibration.flat_labels))
    own = [i for i, labels in enumerate(looking.forget.labels) if labels[0] == 1]
    places, labels = torch.tensor(own), torch.ones(len(own), dtype=torch.long)
    scores = Scores(
        hidden=torch.zeros(len(own), 3), logits=torch.zeros(len(own), 3), labels=labels, record_index=places,
        unit_index=places, allowed=(), group="forget",
    )  # fmt: skip
    looking.watch(scores)  # log-odds of -.69: above all of class 1, below all others
    assert not looking.near()


def test_words_of_one_record_count_together() -> None:
    """Two records with losses (1, 3) and (2): log-odds of e^-2 both."""
    losses = torch.tensor([1.0, 3.0, 2.0])
    p = torch.exp(-losses)
    logits = torch.stack([p.log(), (1 - p).log()], dim=1)
    labels, units = torch.zeros(3, dtype=torch.long), torch.arange(3)
    scores = Scores(
        hidden=logits, logits=logits, labels=labels, record_index=torch.tensor([4, 4, 9]), unit_index=units, allowed=(),
        group="forget", several_units=True,
    )  # fmt: skip
    assert scores.record_margins() == pytest.approx([-2 - np.log(1 - np.exp(-2))] * 2)
