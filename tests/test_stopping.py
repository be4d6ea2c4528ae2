"""When unlearning ends and which step is kept."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
import torch

from expunge.stopping import AccuracyStop, Check, best, distance, reason_to_stop


def check(step: int, forget: float, calibration: float) -> Check:
    """Confidence equal to accuracy."""
    return Check(step, forget, calibration, forget, calibration)


def test_it_ends_when_forget_accuracy_is_no_longer_above_calibration_accuracy() -> None:
    assert reason_to_stop([check(0, 0.9, 0.8)]) is None
    assert reason_to_stop([check(0, 0.9, 0.8), check(5, 0.8, 0.8)]) == (
        "forget accuracy 0.800 is no longer above calibration accuracy 0.800"
    )


def test_the_best_step_is_nearest_to_the_originals_confidence_on_unseen_records() -> None:
    checks = [check(0, 1.0, 0.8), check(5, 0.9, 0.8), check(10, 0.79, 0.79), check(15, 0.4, 0.4)]
    assert best(checks) == checks[2], "losing both alike is no success"
    # 0.82 with calibration at 0.6 costs 0.02 + 0.2; 0.9 with calibration kept costs 0.1.
    assert best([check(0, 1.0, 0.8), check(5, 0.9, 0.8), check(10, 0.82, 0.6)]).step == 5
    assert best([check(0, 1.0, 0.8), check(5, 0.9, 0.8), check(10, 0.7, 0.8)]).step == 5, "of equals the earlier"


def test_one_record_has_a_best_step_too() -> None:
    """Its accuracy is 1 or 0, neither near 0.8: by accuracy the original would always be kept."""
    checks = [
        Check(0, 1.0, 0.8, 0.99, 0.7),
        Check(5, 1.0, 0.8, 0.72, 0.7),
        Check(10, 0.0, 0.8, 0.1, 0.69),
    ]
    assert best(checks) == checks[1]


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


def play(accuracies: list[tuple[float, float]], *, every: int, steps: int, stop: bool = True):
    """Run the callback over a model whose only weight counts the steps done."""
    model = torch.nn.Linear(1, 1, bias=False)
    values = iter(accuracies)
    callback = AccuracyStop(lambda _: next(values) * 2, every, stop=stop)
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


def test_the_run_ends_by_the_rule_and_keeps_the_best_weights() -> None:
    callback, weight, steps = play([(1.0, 0.8), (0.85, 0.8), (0.5, 0.7)], every=2, steps=10)
    assert steps == 4
    assert callback.reason.startswith("stop rule at step 4: forget accuracy 0.500")
    assert callback.kept == 2
    assert weight == 2.0


def test_the_last_step_is_always_checked() -> None:
    callback, weight, steps = play([(1.0, 0.8), (0.95, 0.8), (0.9, 0.8)], every=2, steps=3)
    assert (steps, callback.kept, weight) == (3, 3, 3.0)
    assert callback.reason == "all 3 steps done"


def test_without_the_rule_all_steps_are_done_and_the_best_is_kept() -> None:
    callback, weight, steps = play([(1.0, 0.8), (0.8, 0.8), (0.1, 0.8)], every=1, steps=2, stop=False)
    assert (steps, weight) == (2, 1.0)
    assert callback.reason == "all 2 steps done"


def test_the_original_is_never_kept() -> None:
    """It would be no answer to a request, however near it is."""
    callback, weight, _ = play([(0.8, 0.8), (0.1, 0.8)], every=1, steps=5)
    assert (callback.kept, weight) == (1, 1.0)
    assert callback.checks[0] == check(0, 0.8, 0.8)


@pytest.mark.parametrize("forget", [0.0, 0.79])
def test_over_forgetting_ends_the_run_too(forget: float) -> None:
    assert reason_to_stop([check(5, forget, 0.8)]) is not None
