"""Forget records among never-seen ones: figures by hand and against scipy, and how often the rule errs."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats as scipy_stats

from expunge.matching import Before, Places, compare
from expunge.stats import auc


def test_within_classes_by_hand() -> None:
    """Class 0: forget 2 against {1, 1, 1, 3, 3}: 3/5. Class 1: forget 5 against {4, 5, 6, 6, 6}: (1 + 1/2)/5. Mean .45."""
    forget, unseen = np.array([2.0, 5.0]), np.array([1.0, 1, 1, 3, 3, 4, 5, 6, 6, 6])
    found = compare(forget, unseen, np.array([0, 1]), np.repeat([0, 1], 5))
    assert found.auc == pytest.approx((3 / 5 + 1.5 / 5) / 2)
    assert compare(forget, unseen).auc == pytest.approx(auc(forget, unseen))


def test_places_are_the_comparison_record_by_record() -> None:
    rng = np.random.default_rng(2)
    forget, unseen = np.round(rng.normal(0.3, 1, 40), 1), np.round(rng.normal(0, 1, 60), 1)  # with ties
    classes = rng.integers(0, 3, 40), np.r_[rng.integers(0, 2, 57), 2, 2, 4]  # of class 2 there are too few
    places = Places(unseen, classes[1])
    for one, of_class in zip(forget, classes[0], strict=True):
        alone = compare(np.array([one]), unseen, np.array([of_class]), classes[1])
        assert places.of(np.array([one]), np.array([of_class])) == pytest.approx(alone.auc)
    assert places.of(forget, classes[0]).mean() == pytest.approx(compare(forget, unseen, *classes).auc)
    assert Places(unseen).of(forget).mean() == pytest.approx(compare(forget, unseen).auc)


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


def test_what_was_known_of_all_makes_a_sample_more_exact() -> None:
    """30 + 40 of 300 + 400 records are scored again after all fell by .5: nearer to the truth than the sample alone."""
    rng = np.random.default_rng(3)
    alone, helped, widths = [], [], []
    for _ in range(60):
        forget, unseen = rng.normal(1, 1, 300), rng.normal(0, 1, 400)
        now = forget - 0.5 + rng.normal(0, 0.1, 300)
        truth = auc(now, unseen)
        picked = rng.choice(300, 30, replace=False), rng.choice(400, 40, replace=False)
        before = Before(forget, unseen, None, None, *picked)
        found = [compare(now[picked[0]], unseen[picked[1]], before=given) for given in (None, before)]
        alone.append(abs(found[0].auc - truth))
        helped.append(abs(found[1].auc - truth))
        widths.append((found[1].high - found[1].low) / (found[0].high - found[0].low))
    assert np.mean(helped) < 0.4 * np.mean(alone)
    assert np.mean(widths) < 0.6


def test_unchanged_the_sample_says_what_all_said() -> None:
    rng = np.random.default_rng(4)
    forget, unseen, classes = rng.normal(1, 1, 60), rng.normal(0, 1, 80), np.arange(80) % 2
    places = np.arange(0, 60, 3), np.arange(0, 80, 2)
    before = Before(forget, unseen, classes[:60], classes, *places)
    found = compare(forget[places[0]], unseen[places[1]], classes[:60][places[0]], classes[places[1]], before=before)
    assert found.auc == pytest.approx(compare(forget, unseen, classes[:60], classes).auc)


def test_an_empty_group_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one record"):
        compare(np.zeros(0), np.zeros(3))
