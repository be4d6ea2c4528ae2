"""Leave-out targets: places, blends and target distributions by hand; and on made-up records, nearer than the original."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import logsumexp
from scipy.stats import norm

from expunge.leave_out import (
    LEAST,
    Groups,
    blended,
    clean_margins,
    evenly,
    margins_of,
    target_log_probabilities,
)
from expunge.record_targets import clean_margins as clean_of_records

EVERY = np.ones(1, dtype=bool)


def test_places_by_hand() -> None:
    """Four reference values 1, 2, 2, 3: above one, one half above two ... ; (rank + 1/2) / 5."""
    groups = Groups(np.array([2.0, 1, 3, 2]), np.zeros(4, int), EVERY)
    found = groups.percentiles(np.array([0.0, 1.5, 2.0, 9.0]), np.zeros(4, int))
    assert found == pytest.approx([0.5 / 5, 1.5 / 5, 2.5 / 5, 4.5 / 5])


@given(st.lists(st.floats(-9, 9), min_size=2, max_size=40, unique=True))
def test_quantiles_undo_places(reference: list[float]) -> None:
    values = np.array(reference)
    groups = Groups(values, np.zeros(len(values), int), EVERY)
    shares = (np.arange(len(values)) + 1) / (len(values) + 1)
    assert groups.quantiles(shares, np.zeros(len(values), int)) == pytest.approx(np.sort(values))


def test_rare_classes_share_one_distribution() -> None:
    reference, classes = np.r_[np.zeros(30), np.full(LEAST, 5.0)], np.r_[np.zeros(30, int), np.ones(LEAST, int)]
    groups = Groups(reference, classes, np.array([True, False, False]))
    assert groups.quantiles(np.array([0.5, 0.5, 0.5]), np.array([0, 1, 2])) == pytest.approx([0, 5, 5])


def test_with_too_few_of_all_rare_classes_everything_is_the_reference() -> None:
    groups = Groups(np.r_[np.zeros(30), [7.0]], np.r_[np.zeros(30, int), [1]], np.array([True, False]))
    assert groups.quantiles(np.array([0.5]), np.array([1])) == pytest.approx([0.0])


def test_a_blend_keeps_the_distribution() -> None:
    """Two normal scores with correlation .65 blend to a standard normal again."""
    rng = np.random.default_rng(0)
    first = rng.normal(size=40_000)
    second = 0.65 * first + np.sqrt(1 - 0.65**2) * rng.normal(size=40_000)
    found = norm.ppf(blended(norm.cdf(first), norm.cdf(second), 0.3))
    assert found.std() == pytest.approx(1, abs=0.02)
    assert blended(np.array([0.2]), None, 0.3) == pytest.approx([0.2])


@given(st.floats(-8, 8), st.integers(0, 3))
def test_target_distributions_have_the_margin_and_sum_to_one(margin: float, label: int) -> None:
    logits = np.array([[0.3, -1.0, 2.0, 0.5]])
    found = target_log_probabilities(np.array([margin]), logits, np.array([label]))
    assert logsumexp(found) == pytest.approx(0, abs=1e-9)
    assert margins_of(found, np.array([label])) == pytest.approx([margin], abs=1e-6)
    others = [c for c in range(4) if c != label]
    assert np.diff(found[0, others]) == pytest.approx(np.diff(logits[0, others])), "the others keep their odds"


def test_an_even_draw_has_no_more_of_the_common_class_than_of_all_others() -> None:
    classes = np.r_[np.zeros(500, int), np.full(30, 1), np.full(10, 2)]
    kept = evenly(classes, seed=0)
    assert np.bincount(classes[kept]).tolist() == [40, 30, 10]
    assert list(kept) == sorted(kept)


def test_the_clean_classifier_knows_what_its_features_tell_and_no_more() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[2.0, 0, 0], [0, 2.0, 0], [0, 0, 2.0]])
    parts = []
    for size in (300, 200, 200):
        classes = rng.integers(3, size=size)
        parts.append((centres[classes] + rng.normal(size=(size, 3)), classes))
    (features, classes), unseen, other = parts
    found = clean_margins(features, classes, [unseen, other], count=4)
    assert [len(margins) for margins in found] == [200, 200]
    assert (found[1] > 0).mean() > 0.8
    shuffled = clean_margins(features, rng.permutation(classes), [unseen, other], count=4)
    assert (shuffled[1] > 0).mean() < 0.5


def test_where_all_retained_records_are_of_one_class_a_classifier_tells_nothing() -> None:
    def part(labels: list[int]) -> Any:
        return SimpleNamespace(flat_labels=labels, units=None)

    context = SimpleNamespace(
        rewound=lambda kept: object(), embedded=lambda base, own: np.zeros((len(own.flat_labels), 2)),
        forget=part([0, 1]), seed=0, classes=2,
    )  # fmt: skip
    assert clean_of_records(context, part([0, 0, 0]), part([0, 1])) is None  # pyright: ignore[reportArgumentType]
