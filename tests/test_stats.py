"""Statistics against hand-worked numbers, kept libraries, and simulation."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats as scipy_stats
from sklearn.metrics import f1_score, roc_auc_score

from expunge.stats import auc, auc_interval, bootstrap, macro_f1, wilson

few = st.lists(st.integers(-5, 5).map(float), min_size=1, max_size=30)


def test_auc_by_hand() -> None:
    # Pairs (3,1) (3,2) (2,1) won, (2,2) a tie: 3.5 of 4.
    assert auc(np.array([3.0, 2.0]), np.array([1.0, 2.0])) == 3.5 / 4


@given(few, few)
def test_auc_is_scikit_learns(positives: list[float], negatives: list[float]) -> None:
    truth = [1] * len(positives) + [0] * len(negatives)
    assert auc(np.array(positives), np.array(negatives)) == pytest.approx(
        roc_auc_score(truth, positives + negatives), abs=1e-12
    )


@pytest.mark.parametrize("models", [1, 3, 6, 7, 10])
def test_the_mean_of_aucs_that_are_all_1_has_the_interval_of_one(models: int) -> None:
    """The sum of k times 1/k falls short of 1 in the last digit for some k."""
    apart = (np.arange(5.0) + 9, np.arange(5.0))
    for pair, one in ((apart, 1.0), (apart[::-1], 0.0)):
        found = auc_interval([pair] * models)
        assert found == auc_interval([pair])
        assert found.value == one


def test_auc_of_nothing_is_an_error() -> None:
    with pytest.raises(ValueError, match="at least one"):
        auc(np.array([]), np.array([1.0]))


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 4)), min_size=1, max_size=40))
def test_macro_f1_is_scikit_learns(pairs: list[tuple[int, int]]) -> None:
    truth, said = np.array(pairs).T
    expected = f1_score(truth, said, labels=np.unique(truth), average="macro", zero_division=0)
    assert macro_f1(truth, said, 5) == pytest.approx(expected, abs=1e-12)


@given(st.integers(1, 200), st.data())
def test_wilson_is_scipys(n: int, data: st.DataObject) -> None:
    k = data.draw(st.integers(0, n))
    expected = scipy_stats.binomtest(k, n).proportion_ci(0.9, method="wilson")
    found = wilson(k, n, 0.9)
    assert (found.value, found.low, found.high) == (k / n, expected.low, expected.high)
    assert found.low <= found.value + 1e-12
    assert found.high >= found.value - 1e-12


@settings(max_examples=20)
@given(st.integers(0, 1000))
def test_bootstrap_is_a_function_of_its_seed(seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=50)
    once = bootstrap([50], lambda p: float(values[p[0]].mean()), resamples=50, seed=seed)
    assert once == bootstrap([50], lambda p: float(values[p[0]].mean()), resamples=50, seed=seed)
    assert once.value == pytest.approx(values.mean())
    assert once.low <= once.high


@pytest.mark.slow
def test_bootstrap_intervals_of_the_auc_cover_as_they_say() -> None:
    """300 simulated audits, n = 100 against 100, true AUC Phi(0.5 / sqrt 2) = 0.638: 93 to 97 % cover, at 95 %."""
    rng = np.random.default_rng(0)
    truth = float(scipy_stats.norm.cdf(0.5 / np.sqrt(2)))
    covered = 0
    for run in range(300):
        positives, negatives = rng.normal(0.5, 1, 100), rng.normal(0, 1, 100)
        found = bootstrap(
            [100, 100], lambda p, a=positives, b=negatives: auc(a[p[0]], b[p[1]]), resamples=300, seed=run
        )
        covered += found.low <= truth <= found.high
    assert 0.92 <= covered / 300 <= 0.98
