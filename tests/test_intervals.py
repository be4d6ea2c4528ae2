"""Intervals and distances: kept libraries as oracles, and coverage in seeded simulation."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import roc_auc_score, roc_curve

from expunge.stats import (
    Interval,
    auc_interval,
    best_side,
    clopper_pearson,
    ks,
    matched_difference,
    matched_weights,
    mean_interval,
    share_difference,
    tpr_at_fpr,
    wilson,
)

some = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)
RNG = np.random.default_rng(0)


@given(some, some)
def test_the_auc_of_an_interval_is_scikit_learns(positives: list[float], negatives: list[float]) -> None:
    found = auc_interval([(np.array(positives), np.array(negatives))])
    truth = [1] * len(positives) + [0] * len(negatives)
    assert found.value == pytest.approx(roc_auc_score(truth, positives + negatives), abs=1e-9)
    assert 0 <= found.low <= found.value + 1e-12
    assert found.value <= found.high + 1e-12 <= 1 + 1e-12


def test_samples_that_do_not_overlap_still_have_an_interval() -> None:
    # 5 of 5: exact bound .025 ** (1/5) = .478: five records cannot tell.
    found = auc_interval([(np.full(5, 2.0), np.zeros(400))])
    assert found == Interval(1.0, pytest.approx(0.025 ** (1 / 5)), 1.0)
    assert auc_interval([(np.zeros(5), np.full(400, 2.0))]) == Interval(0.0, 0.0, pytest.approx(1 - 0.025 ** (1 / 5)))
    assert auc_interval([(np.ones(1), np.zeros(9))]) == Interval(1.0, 0.0, 1.0)


def test_a_model_less_itself_differs_by_nothing() -> None:
    pair = (RNG.normal(size=50), RNG.normal(size=60))
    assert auc_interval([pair], [pair]) == Interval(0.0, 0.0, 0.0)


def test_the_better_side_by_hand() -> None:
    found = best_side(Interval(0.3, 0.2, 0.4))
    assert (found.value, found.low, found.high) == pytest.approx((0.7, 0.6, 0.8))
    found = best_side(Interval(0.52, 0.4, 0.64))
    assert (found.value, found.low, found.high) == pytest.approx((0.52, 0.5, 0.64))


@given(st.integers(1, 300), st.data())
def test_clopper_pearson_is_scipys(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = scipy_stats.binomtest(k, n).proportion_ci(0.95, method="exact")
    found = clopper_pearson(k, n)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


@given(some, st.lists(st.integers(-5, 5).map(float), min_size=10, max_size=60), st.sampled_from([0.1, 0.25, 0.5]))
def test_tpr_is_the_best_of_scikit_learns_curve(positives: list[float], negatives: list[float], fpr: float) -> None:
    false, true, _ = roc_curve(
        [1] * len(positives) + [0] * len(negatives), positives + negatives, drop_intermediate=False
    )
    found = tpr_at_fpr(np.array(positives), np.array(negatives), fpr)
    assert found is not None
    assert found.value == pytest.approx(true[false <= fpr + 1e-12].max(), abs=1e-9)


def test_tpr_takes_enough_negatives() -> None:
    assert tpr_at_fpr(np.ones(5), np.zeros(99), 0.01) is None
    assert tpr_at_fpr(np.ones(5), np.zeros(999), 0.001) is None
    found = tpr_at_fpr(np.ones(5), np.zeros(1000), 0.001)
    assert found is not None
    assert found.value == 1.0


@pytest.mark.filterwarnings("ignore::RuntimeWarning:scipy.*")  # its p-value, which is not asked for
@given(some, some)
def test_ks_is_scipys(first: list[float], second: list[float]) -> None:
    expected = scipy_stats.ks_2samp(first, second, method="asymp").statistic
    found = ks(np.array(first), np.array(second))
    assert found.value == pytest.approx(expected, abs=1e-9)
    weighted = ks(np.array(first), np.array(second * 2), np.full(2 * len(second), 0.5 / len(second)))
    assert weighted.value == pytest.approx(expected, abs=1e-9)


def test_newcombes_interval_is_his() -> None:
    # Newcombe (1998), Statistics in Medicine 17:873-890, table II (a): 56/70 - 48/80, method 10: .0524 to .3339.
    found = share_difference(56, 70, 48, 80)
    assert found.value == pytest.approx(0.2)
    assert (found.low, found.high) == pytest.approx((0.0524, 0.3339), abs=5e-5)


def test_matching_by_class_by_hand() -> None:
    # Forget classes 0 0 1 2; there: 0 1 1 1. Class 2 has no match; the mix of the rest is 2/3, 1/3.
    kept, weights = matched_weights(np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1]))
    assert kept.tolist() == [True, True, True, False]
    np.testing.assert_allclose(weights, [2 / 3, 1 / 9, 1 / 9, 1 / 9])
    found = matched_difference(
        np.array([1.0, 2.0, 3.0, 9.0]), np.array([1.0, 2.0, 3.0, 4.0]), np.array([0, 0, 1, 2]), np.array([0, 1, 1, 1])
    )
    assert found is not None
    assert found.value == pytest.approx(2 - (2 / 3 * 1 + 1 / 3 * 3))
    assert matched_difference(np.ones(3), np.ones(3), np.zeros(3), np.ones(3)) is None


def test_mean_interval_is_scipys() -> None:
    values = RNG.normal(size=40)
    expected = scipy_stats.ttest_1samp(values, 0).confidence_interval(0.9)
    found = mean_interval(values, 0.9)
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=1e-9)


def covers(draw: Callable[[np.random.Generator], Interval | None], truth: float, runs: int = 1000) -> float:
    rng = np.random.default_rng(0)
    found = [draw(rng) for _ in range(runs)]
    return float(np.mean([f is not None and f.low - 1e-12 <= truth <= f.high + 1e-12 for f in found]))


@pytest.mark.parametrize("apart", [0.0, 1.0, 3.0])
@pytest.mark.parametrize(("n", "m"), [(100, 100), (100, 400)])
def test_auc_intervals_cover(apart: float, n: int, m: int) -> None:
    truth = float(scipy_stats.norm.cdf(apart / 2**0.5))
    assert 0.93 <= covers(lambda rng: auc_interval([(rng.normal(apart, 1, n), rng.normal(0, 1, m))]), truth) <= 0.97


@pytest.mark.parametrize("apart", [0.0, 1.0])
def test_intervals_of_auc_differences_cover(apart: float) -> None:
    """One model against the mean of three others, on the same records: scores correlate by .36."""

    def draw(rng: np.random.Generator) -> Interval:
        shared = rng.normal(0, 0.6, 100), rng.normal(0, 0.6, 200)
        models = [(shared[0] + rng.normal(0, 0.8, 100), shared[1] + rng.normal(0, 0.8, 200)) for _ in range(4)]
        return auc_interval([(models[0][0] + apart, models[0][1])], models[1:])

    assert 0.93 <= covers(draw, float(scipy_stats.norm.cdf(apart / 2**0.5)) - 0.5) <= 0.97


def test_intervals_of_matched_differences_cover() -> None:
    """Classes of other mix, other means, other spreads and other effects on each side."""
    mix, other = np.array([0.5, 0.3, 0.15, 0.05]), np.array([0.2, 0.3, 0.2, 0.3])
    offset, effect = np.array([0.0, 1, 2, -1]), np.array([0.1, 0.5, 0.3, 0])

    def draw(rng: np.random.Generator) -> Interval | None:
        a, b = rng.choice(4, 100, p=mix), rng.choice(4, 400, p=other)
        first, second = rng.normal(0, 1, 100) + (offset + effect)[a], rng.normal(0, 1, 400) * (1 + b) ** 0.5 + offset[b]
        return matched_difference(first, second, a, b)

    assert 0.93 <= covers(draw, float(mix @ effect)) <= 0.97


@pytest.mark.parametrize("apart", [0.0, 0.5, 2.0])
def test_ks_intervals_cover_at_least_as_they_say(apart: float) -> None:
    truth = float(2 * scipy_stats.norm.cdf(apart / 2) - 1)
    assert covers(lambda rng: ks(rng.normal(apart, 1, 100), rng.normal(0, 1, 400)), truth) >= 0.94


def test_intervals_of_shares_cover() -> None:
    shares = {"exact": 0.0, "wilson": 0.0, "difference": 0.0}
    for k in range(101):
        chance = scipy_stats.binom.pmf(k, 100, 0.3)
        exact, score = clopper_pearson(k, 100), wilson(k, 100)
        shares["exact"] += chance * (exact.low <= 0.3 <= exact.high)
        shares["wilson"] += chance * (score.low <= 0.3 <= score.high)
    assert 0.95 <= shares["exact"] <= 0.98, "exact: never below"
    assert 0.93 <= shares["wilson"] <= 0.97
    assert (
        0.93
        <= covers(
            lambda rng: share_difference(int(rng.binomial(100, 0.2)), 100, int(rng.binomial(300, 0.1)), 300), 0.1, 600
        )
        <= 0.97
    )
