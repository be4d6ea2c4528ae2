"""Attacks on single records: against hand-worked numbers, kept libraries, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from expunge.attacks import (
    challenge_epsilon,
    churn,
    density_log_ratio,
    gaussian_log_ratio,
    klom,
    pooled_sd,
    rmia,
    standardised_shift,
    strata,
    unseen_bounds,
)


def test_rmia_by_hand() -> None:
    # a = 0.5, one reference: p(x) = (1.5 p_ref + 0.5) / 2. Record: .8 / ((.75 + .5) / 2) = 1.28.
    # Population: .5 / .625 = .8, .9 / .625 = 1.44, .6 / .625 = .96: two of three are not above 1.28.
    half = np.log(np.full((1, 3), 0.5))
    found = rmia(np.log([0.8]), half[:, :1], np.log([0.5, 0.9, 0.6]), half, gamma=1, offline=0.5)
    assert found == pytest.approx([2 / 3])
    # gamma = 1.5: 1.28 / 1.5 = .853 is at least .8 only.
    assert rmia(np.log([0.8]), half[:, :1], np.log([0.5, 0.9, 0.6]), half, gamma=1.5, offline=0.5) == pytest.approx(
        [1 / 3]
    )


@given(st.integers(0, 200), st.integers(1, 4))
def test_rmia_is_its_double_loop(seed: int, references: int) -> None:
    rng = np.random.default_rng(seed)
    own, z = rng.uniform(0.01, 0.99, 7), rng.uniform(0.01, 0.99, 11)
    own_ref, z_ref = rng.uniform(0.01, 0.99, (references, 7)), rng.uniform(0.01, 0.99, (references, 11))
    truth = []
    for i in range(7):
        mine = own[i] / ((1.3 * own_ref[:, i].mean() + 0.7) / 2)
        truth.append(np.mean([mine / (z[j] / ((1.3 * z_ref[:, j].mean() + 0.7) / 2)) >= 1.2 for j in range(11)]))
    found = rmia(np.log(own), np.log(own_ref), np.log(z), np.log(z_ref), gamma=1.2, offline=0.3)
    np.testing.assert_allclose(found, truth, atol=1e-9)


def test_rmia_sees_a_hard_record_that_a_threshold_cannot() -> None:
    """A record of probability .6 is nothing special, unless models that never saw it give .1."""
    z, z_ref = np.log(np.linspace(0.3, 0.9, 50)), np.log(np.linspace(0.3, 0.9, 50))[None]
    assert rmia(np.log([0.6]), np.log([[0.1]]), z, z_ref)[0] > 0.99
    assert 0.2 < rmia(np.log([0.6]), np.log([[0.6]]), z, z_ref)[0] < 0.8


def test_the_densities_are_scipys() -> None:
    rng = np.random.default_rng(0)
    inside, outside, at = rng.normal(3, 1, 200), rng.normal(1, 1.5, 150), np.array([0.0, 2.0, 4.0])
    found, low, high = density_log_ratio(at, inside, outside, resamples=200)
    span = []
    densities = []
    for sample in (inside, outside):
        quartiles = np.quantile(sample, [0.25, 0.75])
        width = min(sample.std(ddof=1), (quartiles[1] - quartiles[0]) / 1.349) * len(sample) ** -0.2
        span.append(width)
        densities.append(scipy_stats.gaussian_kde(sample, width / sample.std(ddof=1))(at))
    everything = np.concatenate([at, inside, outside])
    flat = 1 / (np.ptp(everything) + 6 * max(span))  # the pseudo-record, spread over the grid
    mixed = [(1 - 1 / (n + 1)) * d + flat / (n + 1) for n, d in zip((200, 150), densities, strict=True)]
    np.testing.assert_allclose(found, np.log(mixed[0] / mixed[1]), atol=1e-9)
    assert (low <= found).all()
    assert (found <= high).all()
    assert (low < found - 0.05).all(), "the interval has a width"


@settings(max_examples=20, deadline=None)
@given(st.integers(0, 1000), st.floats(-50, 50))
def test_the_density_ratio_is_finite_and_moves_with_the_margins(seed: int, shift: float) -> None:
    rng = np.random.default_rng(seed)
    inside, outside, at = rng.normal(1, 1, 40), rng.normal(0, 1, 30), rng.normal(0, 3, 5)
    found = density_log_ratio(at, inside, outside, resamples=20, seed=seed)
    moved = density_log_ratio(at + shift, inside + shift, outside + shift, resamples=20, seed=seed)
    np.testing.assert_allclose(found[0], moved[0], atol=1e-6)
    assert all(np.isfinite(end).all() for end in found)
    same = density_log_ratio(at, inside, inside, resamples=20, seed=seed)
    np.testing.assert_allclose(same[0], 0, atol=1e-9)


def test_density_ratio_intervals_cover() -> None:
    """150 simulations of two normals: the smoothed truth (variances plus bandwidth squared) lies in the interval."""
    rng = np.random.default_rng(1)
    covered, at = [], np.array([0.0, 1.0, 2.0])
    for run in range(150):
        inside, outside = rng.normal(2, 1, 300), rng.normal(0, 1, 300)
        _, low, high = density_log_ratio(at, inside, outside, resamples=200, seed=run)
        wide = np.sqrt(1 + 300**-0.4)
        truth = scipy_stats.norm.logpdf(at, 2, wide) - scipy_stats.norm.logpdf(at, 0, wide)
        covered += list((low <= truth) & (truth <= high))
    assert 0.91 <= np.mean(covered) <= 0.98


def test_the_gaussian_ratio_is_scipys() -> None:
    rng = np.random.default_rng(2)
    outside, inside, values = rng.normal(0, 1, (20, 6)), rng.normal(2, 1, (3, 6)), rng.normal(1, 1, 6)
    found, low, high = gaussian_log_ratio(values, inside, outside)
    sd = outside.std(axis=0, ddof=1)  # 20 models: each record its own
    truth = scipy_stats.norm.logpdf(values, inside.mean(axis=0), sd) - scipy_stats.norm.logpdf(
        values, outside.mean(axis=0), sd
    )
    np.testing.assert_allclose(found, truth, atol=1e-9)
    assert (low <= found).all()
    assert (found <= high).all()


def test_gaussian_ratio_intervals_cover() -> None:
    """Margins of 5 models without and 2 with the record, 400 records; the truth knows both means."""
    rng = np.random.default_rng(3)
    n = 400
    unseen, seen = rng.normal(0, 2, n), rng.normal(3, 2, n)
    outside, inside = unseen + rng.normal(0, 1, (5, n)), seen + rng.normal(0, 1, (2, n))
    values = unseen + rng.normal(0, 1, n)
    _, low, high = gaussian_log_ratio(values, inside, outside)
    truth = ((values - unseen) ** 2 - (values - seen) ** 2) / 2
    assert 0.92 <= np.mean((low <= truth) & (truth <= high)) <= 0.98


def test_few_models_share_one_spread_and_many_have_their_own() -> None:
    values = np.array([[0.0, 0.0], [2.0, 4.0]])  # variances 2 and 8
    np.testing.assert_allclose(pooled_sd(values), np.sqrt([5.0, 5.0]))
    np.testing.assert_allclose(pooled_sd(np.tile(values, (8, 1))), np.std(np.tile(values, (8, 1)), axis=0, ddof=1))


def test_the_standardised_shift_by_hand() -> None:
    # Mean 1 and 2, pooled sd sqrt 5: (3 - 1) / sqrt 5, (2 - 2) / sqrt 5.
    np.testing.assert_allclose(
        standardised_shift(np.array([3.0, 2.0]), np.array([[0.0, 0.0], [2.0, 4.0]])), [2 / np.sqrt(5), 0]
    )


@settings(max_examples=50)
@given(st.integers(20, 300), st.integers(0, 10_000))
def test_bounds_hold_what_they_promise(n: int, seed: int) -> None:
    """A value of the same distribution lies above with probability k / (n + 1), k = floor((n + 1) / 20)."""
    sample = np.random.default_rng(seed).uniform(size=n)
    low, high = unseen_bounds(sample, 0.95)
    k = (n + 1) // 20
    assert (sample >= high).sum() == k
    assert (sample <= low).sum() == k
    assert unseen_bounds(sample[:18], 0.95) == (-np.inf, np.inf)


def test_classes_are_matched_where_there_are_enough() -> None:
    wanted, one, two = np.array([0, 1, 2, 0]), np.array([0] * 20 + [1] * 20), np.array([0] * 30 + [1] * 5)
    found = list(strata(wanted, one, two, least=20))
    assert [which.tolist() for which, _ in found] == [[True, False, False, True], [False, True, True, False]]
    assert [part.sum() for part in found[0][1]] == [20, 30]
    assert [part.sum() for part in found[1][1]] == [40, 35], "class 1 and 2 go with all"


def test_churn_by_hand() -> None:
    assert churn(np.array([0, 1, 2, 2]), np.array([0, 2, 2, 1])) == 0.5


def test_klom_is_scipys_entropy_and_takes_32_models() -> None:
    rng = np.random.default_rng(4)
    ours, theirs = rng.normal(0.5, 1, (40, 3)), rng.normal(0, 1, (50, 3))
    ours[0, 0] = 150.0  # clipped to 100
    found = klom(ours, theirs)
    assert found is not None
    for record in range(3):
        both = np.clip(np.concatenate([ours[:, record], theirs[:, record]]), -100, 100)
        edges = np.linspace(both.min(), both.max(), 21)
        p, q = (
            np.histogram(np.clip(side[:, record], -100, 100), edges)[0] / len(side) + 1e-5 for side in (ours, theirs)
        )
        assert found[record] == pytest.approx(scipy_stats.entropy(p, q), abs=1e-9)
    assert klom(ours[:31], theirs) is None
    np.testing.assert_allclose(klom(theirs, theirs), 0, atol=1e-12)  # pyright: ignore[reportArgumentType, reportCallIssue]


def slow_epsilon(ours: np.ndarray, theirs: np.ndarray) -> float:
    """Every half-open interval and its complement, as the definition reads."""
    cuts = [*np.unique(np.concatenate([ours, theirs])), np.inf]
    best = 0.0
    for i, low in enumerate(cuts):
        for high in cuts[i + 1 :]:
            caught = [np.mean((side >= low) & (side < high)) for side in (ours, theirs)]
            for positive, alarm in (caught, [1 - c for c in caught]):
                fpr, fnr = round(alarm, 12), round(1 - positive, 12)
                if fpr == 0 and fnr == 0:
                    return 50.0
                for a, b in ((fpr, fnr), (fnr, fpr)):
                    if a > 0 and b > 0 and 1 - 1e-5 - a > 0:
                        best = max(best, np.log(1 - 1e-5 - a) - np.log(b))
    return min(50.0, best)


@settings(max_examples=10, deadline=None)
@given(st.integers(0, 1000), st.floats(0, 3))
def test_epsilon_is_its_definition(seed: int, apart: float) -> None:
    rng = np.random.default_rng(seed)
    ours, theirs = rng.normal(apart, 1, (32, 1)), rng.normal(0, 1, (36, 1))
    found = challenge_epsilon(ours, theirs)
    assert found is not None
    assert found[0] == pytest.approx(slow_epsilon(ours[:, 0], theirs[:, 0]), abs=1e-9)


def test_epsilon_of_models_apart_is_the_cap_and_few_models_say_nothing() -> None:
    ours, theirs = np.linspace(5, 6, 32)[:, None], np.linspace(0, 1, 32)[:, None]
    assert challenge_epsilon(ours, theirs) == pytest.approx([50.0])
    assert challenge_epsilon(ours[:31], theirs) is None
    # Two of 32 on the wrong side each: FPR = FNR = 1/16, ln((1 - 1e-5 - 1/16) * 16) = 2.708; two cuts do no better here.
    mixed = np.r_[theirs[:2], ours[2:]], np.r_[ours[:2], theirs[2:]]
    found = challenge_epsilon(*mixed)
    assert found is not None
    assert found[0] >= np.log((1 - 1e-5 - 1 / 16) * 16) - 1e-9
