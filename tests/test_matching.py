"""Forget records among never-seen ones: figures by hand and against scipy, and how often the rule errs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from expunge.matching import compare
from expunge.stats import auc


def test_within_classes_by_hand() -> None:
    """Class 0: forget 2 against {1, 1, 1, 3, 3}: 3/5. Class 1: forget 5 against {4, 5, 6, 6, 6}: (1 + 1/2)/5. Mean .45."""
    forget, unseen = np.array([2.0, 5.0]), np.array([1.0, 1, 1, 3, 3, 4, 5, 6, 6, 6])
    found = compare(forget, unseen, np.array([0, 1]), np.repeat([0, 1], 5))
    assert found.auc == pytest.approx((3 / 5 + 1.5 / 5) / 2)
    assert compare(forget, unseen).auc == pytest.approx(auc(forget, unseen))


def test_a_class_with_few_never_seen_records_is_compared_with_all() -> None:
    forget, unseen = np.array([2.0]), np.array([1.0, 3.0, 3.0])
    assert compare(forget, unseen, np.array([0]), np.array([0, 1, 1])).auc == pytest.approx(1 / 3)


def test_without_classes_the_distance_is_scipys_and_so_is_its_limit() -> None:
    rng = np.random.default_rng(0)
    forget, unseen = rng.normal(0.3, 1, 80), rng.normal(0, 1, 120)
    found = compare(forget, unseen, confidence=0.9)
    assert found.ks == pytest.approx(scipy_stats.ks_2samp(forget, unseen).statistic, abs=1e-12)
    # 1.2238 sqrt((n + m) / (n m)) is the classical 10 % limit.
    assert found.ks_limit == pytest.approx(1.22387 * np.sqrt(200 / (80 * 120)), abs=1e-4)


def test_shares_of_classes_are_matched() -> None:
    """Never-seen records of a hard class must not make forget records of an easy one look remembered."""
    rng = np.random.default_rng(1)
    classes = np.r_[np.zeros(90, int), np.ones(10, int)], np.r_[np.zeros(50, int), np.ones(150, int)]
    forget, unseen = (rng.normal(np.where(own == 0, 3.0, -3.0), 1) for own in classes)
    assert compare(forget, unseen).low > 0.6
    found = compare(forget, unseen, *classes)
    assert found.low < 0.5 < found.high
    assert found.ks < found.ks_limit


def test_the_interval_covers() -> None:
    """Nominal 90 %: between 86 % and 93 % of 800 draws from equal distributions hold one half."""
    rng = np.random.default_rng(2)
    held = [c.low <= 0.5 <= c.high for c in (compare(rng.normal(size=100), rng.normal(size=150)) for _ in range(800))]
    assert 0.86 <= np.mean(held) <= 0.93


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        compare(np.zeros(0), np.zeros(3))
