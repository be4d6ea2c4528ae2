"""When unlearning ends and which step is kept."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from expunge.errors import RunError
from expunge.stopping import Check, StopRule, best, distance, reason_to_stop, state_of


def check(step: int, forget: float, calibration: float) -> Check:
    """Confidence equal to accuracy."""
    return Check(step, forget, calibration, forget, calibration)


def seen(step: int, auc: float, *, half: float = 0.05, ks: float = 0.1, confidence: float = 0.7) -> Check:
    """A check with this AUC, its interval's half-width, and calibration confidence; chance allows a KS distance of .2."""
    return Check(step, 0.9, 0.8, 0.9, confidence, auc=auc, low=auc - half, high=auc + half, ks=ks, ks_limit=0.2)


def test_by_accuracy_it_ends_when_forget_accuracy_is_no_longer_above_calibration_accuracy() -> None:
    assert reason_to_stop([check(0, 0.9, 0.8)], "accuracy") is None
    assert reason_to_stop([check(0, 0.9, 0.8), check(5, 0.8, 0.8)], "accuracy") == (
        "forget accuracy 0.800 is no longer above calibration accuracy 0.800"
    )


@pytest.mark.parametrize(
    ("auc", "ks", "expected"),
    [
        (0.56, 0.1, "remembered"),
        (0.54, 0.1, "within"),
        (0.46, 0.1, "within"),
        (0.44, 0.1, "over-forgotten"),
        (0.52, 0.3, "remembered"),
        (0.48, 0.3, "over-forgotten"),
    ],
)
def test_forget_records_are_told_apart_on_either_side(auc: float, ks: float, expected: str) -> None:
    """By an interval that leaves out one half, or by distributions further apart than chance puts them."""
    assert state_of(seen(5, auc, ks=ks)) == expected


def test_it_ends_when_they_can_no_longer_be_told_apart_or_stand_below() -> None:
    first = seen(0, 0.65)
    assert reason_to_stop([first, seen(5, 0.58)]) is None
    assert reason_to_stop([first, seen(5, 0.53)]) is None, "the interval holds one half, but the figure is above it"
    assert reason_to_stop([first, seen(5, 0.51)]) == (
        "forget records can no longer be told from records never seen (AUC 0.510 [0.460, 0.560], KS 0.100)"
    )
    assert str(reason_to_stop([first, seen(5, 0.4)])).startswith("over-forgotten: forget records stand below")


def test_a_weak_test_does_not_end_a_run_before_it_began() -> None:
    """With few records the interval holds one half from the start: the original must still be left."""
    weak = seen(0, 0.5, half=0.3)
    assert state_of(weak) == "within"
    assert reason_to_stop([weak]) is None
    assert reason_to_stop([weak, seen(5, 0.5, half=0.3)]) is None, "confidence on forget records is still .9, wanted .7"
    down = replace(seen(10, 0.5, half=0.3), forget_confidence=0.69)
    assert str(reason_to_stop([weak, down])).startswith("forget records can no longer be told")
    assert distance(down, weak) == pytest.approx(0.01)


def test_the_best_step_is_nearest_to_one_half_without_losing_the_rest() -> None:
    checks = [seen(0, 0.65), seen(5, 0.55), seen(10, 0.51, confidence=0.6), seen(15, 0.4)]
    assert [distance(c, checks[0]) for c in checks] == [pytest.approx(d) for d in (0.15, 0.05, 0.01 + 0.1, 0.1)]
    assert best(checks).step == 5, "losing both alike is no success"
    assert best([seen(0, 0.65), seen(5, 0.52), seen(10, 0.48)]).step == 5, "of equals the earlier"


def test_a_class_erased_whole_is_expected_at_chance_and_wanted_at_zero() -> None:
    """All forget units are of a class no retained record has, of four: the rule ends at 1/4, the best step is nearest to 0."""
    checks = [
        Check(0, 1.0, 0.8, 0.98, 0.7, unknown=1.0, classes=4),
        Check(5, 0.3, 0.8, 0.31, 0.7, unknown=1.0, classes=4),
        Check(10, 0.25, 0.8, 0.2, 0.65, unknown=1.0, classes=4),
    ]
    assert reason_to_stop(checks[:2]) is None
    assert reason_to_stop(checks) == "forget accuracy 0.250 is no longer above 0.250, as of a class never seen"
    assert [distance(check, checks[0]) for check in checks] == [pytest.approx(d) for d in (0.98, 0.31, 0.2 + 0.05)]
    assert best(checks) == checks[2]


def test_where_half_the_units_are_of_an_erased_class_the_target_is_half() -> None:
    check = Check(0, 1.0, 0.8, 0.98, 0.7, unknown=0.5, classes=4)
    assert check.expected == pytest.approx(0.5 * 0.8 + 0.5 / 4)
    assert distance(check, check) == pytest.approx(0.98 - 0.35)


def play(
    aucs: list[float], *, every: int, steps: int, rule="two-sided", most=None, glance=lambda: False, folder=None,
    worth=lambda left: False,
):  # fmt: skip
    """Run the callback over a model whose only weight counts the steps done."""
    model = torch.nn.Linear(1, 1, bias=False)
    values = iter(aucs)
    callback = StopRule(
        lambda _, step: seen(step, next(values)), every, rule=rule, most=most, glance=glance, folder=folder,
        worth=worth,
    )  # fmt: skip
    control = SimpleNamespace(should_training_stop=False)
    state = SimpleNamespace(global_step=0, max_steps=steps)
    with torch.no_grad():
        model.weight.fill_(0.0)
    callback.on_train_begin(None, state, control, model=model)  # pyright: ignore
    while state.global_step < steps and not control.should_training_stop:
        state.global_step += 1
        with torch.no_grad():
            model.weight.fill_(float(state.global_step))
        callback.on_step_end(None, state, control, model=model)  # pyright: ignore
    callback.on_train_end(None, state, control, model=model)  # pyright: ignore
    return callback, model.weight.item(), state.global_step


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_run_ends_by_the_rule_and_keeps_the_best_weights(tmp_path: Path, on_disk: bool) -> None:
    callback, weight, steps = play([0.7, 0.55, 0.4], every=2, steps=10, folder=tmp_path if on_disk else None)
    assert steps == 4
    assert not list(tmp_path.iterdir()), "nothing is left behind"
    assert callback.reason.startswith("stop rule at step 4: over-forgotten")
    assert callback.kept == 2
    assert weight == 2.0


def test_weights_that_cannot_be_kept_end_the_run_with_a_reason(tmp_path: Path) -> None:
    with pytest.raises(RunError, match="TMPDIR"):
        play([0.7, 0.55, 0.4], every=2, steps=10, folder=tmp_path / "gone")


@pytest.mark.parametrize("on_disk", [False, True])
def test_the_last_step_is_always_checked(tmp_path: Path, on_disk: bool) -> None:
    callback, weight, steps = play([0.7, 0.6, 0.55], every=2, steps=3, folder=tmp_path if on_disk else None)
    assert (steps, callback.kept, weight) == (3, 3, 3.0)
    assert callback.reason == "all 3 steps done"


def test_a_glance_brings_a_check_forward() -> None:
    """The steps' own outputs are free; a check comes a quarter of the way to the next one at the earliest."""
    callback, _, steps = play([0.7, 0.5], every=8, steps=20, glance=lambda: True)
    assert [c.step for c in callback.checks] == [0, 2]
    assert steps == 2


def test_an_early_check_must_leave_enough_for_the_rest() -> None:
    """Six steps, every three, three checks in all: one at step 1 would leave 1 + 1 + 2 = 4."""
    callback, _, _ = play([0.7, 0.6, 0.55, 0.5], every=3, steps=6, most=3, glance=lambda: True)
    assert [c.step for c in callback.checks] == [0, 3, 6]
    callback, _, _ = play([0.7, 0.6, 0.55, 0.5], every=3, steps=6, most=4, glance=lambda: True)
    assert [c.step for c in callback.checks] == [0, 1, 3, 6]


def test_four_early_checks_that_cost_no_more_than_the_steps_left_may_go_beyond() -> None:
    """Else few records, whose whole run costs little more than a check, would have one behind the last step alone."""

    def steps_checked(least: int) -> list[int]:
        aucs = [0.9, 0.8, 0.75, 0.7, 0.65, 0.6]
        callback, _, _ = play(aucs, every=7, steps=7, most=2, glance=lambda: True, worth=lambda left: left >= least)
        return [c.step for c in callback.checks]

    assert steps_checked(1) == [0, 1, 2, 3, 4, 7]
    assert steps_checked(5) == [0, 1, 2, 7]
    assert steps_checked(7) == [0, 7]


def test_without_the_rule_all_steps_are_done_and_the_best_is_kept() -> None:
    callback, weight, steps = play([0.7, 0.5, 0.1], every=1, steps=2, rule="none")
    assert (steps, weight) == (2, 1.0)
    assert callback.reason == "all 2 steps done"


def test_the_original_is_never_kept() -> None:
    """It would be no answer to a request, however near it is."""
    callback, weight, _ = play([0.5, 0.1], every=1, steps=1)
    assert (callback.kept, weight) == (1, 1.0)
    assert callback.checks[0] == seen(0, 0.5)
