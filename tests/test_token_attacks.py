"""Membership scores of answer tokens against hand-worked numbers, and what must hold of each."""

from __future__ import annotations

import zlib as deflate

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge.stats import auc
from expunge.token_attacks import (
    compressed_sizes,
    gradient_norm,
    loss,
    min_k,
    min_k_plus_plus,
    priv_leak,
    reference,
    zlib,
)
from expunge.token_metrics import mean_logp

# Three records: five tokens, none, and one.
LOGP = np.array([-1.0, -5.0, -2.0, -4.0, -3.0, -0.5])
OFFSETS = np.array([0, 5, 5, 6])

token_logps = st.lists(st.lists(st.floats(-50, 0), max_size=7), max_size=6)
shares = st.floats(0.01, 1)


def flat(records: list[list[float]]) -> tuple[np.ndarray, np.ndarray]:
    return np.array([v for record in records for v in record], float), np.cumsum([0, *map(len, records)])


def test_loss_is_the_mean_log_probability() -> None:
    # -(1 + 5 + 2 + 4 + 3) / 5 = -3.
    assert loss(LOGP, OFFSETS).tolist() == pytest.approx([-3.0, np.nan, -0.5], nan_ok=True)


# Min-K% and Min-K%++


@pytest.mark.parametrize(
    ("share", "expected"),
    [
        (0.2, -5.0),  # 1 of 5 tokens
        (0.4, -4.5),  # 2: (5 + 4) / 2
        (0.59, -4.5),  # 2.95, rounded down
        (0.6, -4.0),  # 3: (5 + 4 + 3) / 3
        (0.01, -5.0),  # none would be left: one is taken
        (1.0, -3.0),
    ],
)
def test_min_k_by_hand(share: float, expected: float) -> None:
    assert min_k(LOGP, OFFSETS, share).tolist() == pytest.approx([expected, np.nan, -0.5], nan_ok=True)


def test_min_k_counts_tokens_as_written_and_not_as_floats_have_it() -> None:
    # 0.29 * 100 is 28.999999999999996 in floats; 29 % of 100 tokens are 29: the mean of -100 ... -72 is -86.
    assert min_k(-np.arange(1.0, 101), np.array([0, 100]), 0.29).tolist() == pytest.approx([-86.0])


def test_min_k_plus_plus_by_hand() -> None:
    # (log p - mean) / sd: (-1 + 2) / 0.5 = 2, (-5 + 3) / 2 = -1, (-2 + 4) / 1 = 2, (-4 + 2) / 1 = -2, (-3 + 3) / 3 = 0;
    # the two least: (-2 - 1) / 2. The single token: (-0.5 + 1) / 0.25 = 2.
    mean = np.array([-2.0, -3.0, -4.0, -2.0, -3.0, -1.0])
    sd = np.array([0.5, 2.0, 1.0, 1.0, 3.0, 0.25])
    found = min_k_plus_plus(LOGP, mean, sd, OFFSETS, 0.4)
    assert found.tolist() == pytest.approx([-1.5, np.nan, 2.0], nan_ok=True)


def test_min_k_plus_plus_of_a_certain_model_stays_finite() -> None:
    # The model gives one token probability 1: log p = mean = sd = 0, the score 0. A deviation of 0 counts as 0.001.
    zero = np.zeros(2)
    assert min_k_plus_plus(np.array([0.0, -0.002]), zero, zero, np.array([0, 1, 2])).tolist() == [0.0, -2.0]


@given(token_logps)
def test_min_k_of_all_tokens_is_their_mean(records: list[list[float]]) -> None:
    logp, offsets = flat(records)
    expected = mean_logp(logp, offsets)
    np.testing.assert_allclose(min_k(logp, offsets, 1.0), expected, atol=1e-12)
    plain = min_k_plus_plus(logp, np.zeros_like(logp), np.ones_like(logp), offsets, 1.0)
    np.testing.assert_allclose(plain, expected, atol=1e-12)


@given(token_logps, shares)
def test_min_k_is_its_slow_definition(records: list[list[float]], share: float) -> None:
    expected = [
        np.mean(sorted(record)[: max(1, int(len(record) * share + 1e-9))]) if record else np.nan for record in records
    ]
    np.testing.assert_allclose(min_k(*flat(records), share), expected, atol=1e-12)


@given(token_logps, shares, shares)
def test_min_k_rises_with_the_share(records: list[list[float]], one: float, other: float) -> None:
    lower, upper = (min_k(*flat(records), share) for share in sorted((one, other)))
    known = ~np.isnan(lower)
    assert (lower[known] <= upper[known] + 1e-12).all()


@given(token_logps, shares, st.randoms())
def test_the_order_of_records_and_of_their_tokens_does_not_matter(
    records: list[list[float]], share: float, random
) -> None:
    order = list(range(len(records)))
    random.shuffle(order)
    shuffled = [random.sample(records[i], len(records[i])) for i in order]
    np.testing.assert_allclose(min_k(*flat(shuffled), share), min_k(*flat(records), share)[order], atol=1e-12)


def test_a_token_without_a_value_leaves_its_record_without_one() -> None:
    # Sorted last, it would slip out of the least 20 %.
    assert np.isnan(min_k(np.array([-1.0, np.nan, -2.0, -3.0, -4.0]), np.array([0, 5]), 0.2)).all()


@pytest.mark.parametrize("share", [0.0, -0.1, 1.1, float("nan"), 20])
def test_a_share_outside_0_to_1_is_an_error(share: float) -> None:
    with pytest.raises(ValueError, match="share of tokens to take"):
        min_k(LOGP, OFFSETS, share)


def test_min_k_plus_plus_needs_a_mean_and_a_deviation_for_each_token() -> None:
    with pytest.raises(ValueError, match="one value a token"):
        min_k_plus_plus(LOGP, np.zeros(1), np.ones(6), OFFSETS)


# zlib, reference, gradient norm


def test_zlib_by_hand() -> None:
    # -3 nats over 12 bytes, and -0.5 over 10.
    found = zlib(LOGP, OFFSETS, np.array([12, 8, 10]))
    assert found.tolist() == pytest.approx([-0.25, np.nan, -0.05], nan_ok=True)


def test_zlib_forgives_a_loss_the_more_there_is_in_the_text() -> None:
    """At equal loss the text harder to compress is the likelier member: it is less likely to be easy for any model."""
    sizes = compressed_sizes(["aaaaaaaaaaaaaaaaaaaaaaaa", "q8 Zr!u0-xW3/pLk7$vT2nB"])
    dull, rich = zlib(np.array([-2.0, -2.0]), np.array([0, 1, 2]), sizes)
    assert sizes[0] < sizes[1]
    assert dull < rich


def test_compressed_sizes_are_zlibs_for_any_text() -> None:
    texts = ["", "answer", "naïve 答え", "\ud800"]
    expected = [len(deflate.compress(text.encode("utf-8", "surrogatepass"))) for text in texts]
    assert compressed_sizes(texts).tolist() == expected
    assert expected[0] == 8
    assert compressed_sizes([]).shape == (0,)


@pytest.mark.parametrize("sizes", [[12], [12, 0, 10]])
def test_zlib_needs_a_size_for_each_record(sizes: list[int]) -> None:
    with pytest.raises(ValueError, match="zlib_bytes"):
        zlib(LOGP, OFFSETS, np.array(sizes))


def test_reference_by_hand() -> None:
    # -3 + 4 = 1 nat a token more probable than under the other model; -0.5 + 0.25 less.
    found = reference(LOGP, OFFSETS, np.array([-4.0, -1.0, -0.25]))
    assert found.tolist() == pytest.approx([1.0, np.nan, -0.25], nan_ok=True)


def test_reference_needs_a_value_for_each_record() -> None:
    with pytest.raises(ValueError, match="the mean log-probability of each record"):
        reference(LOGP, OFFSETS, np.zeros(1))


def test_the_larger_the_gradient_the_less_like_a_member() -> None:
    assert gradient_norm(np.array([2, 0, 3])).tolist() == [-2.0, 0.0, -3.0]


def test_every_score_is_higher_for_members() -> None:
    """Members with log p 3 nats higher at each token, all else equal, make an AUC of 1 by every score."""
    unseen, offsets, sizes = LOGP[:5], np.array([0, 2, 5]), np.array([20, 20])
    mean, sd, other = np.full(5, -3.0), np.ones(5), np.array([-3.0, -3.0])
    for score in (
        lambda logp: loss(logp, offsets),
        lambda logp: zlib(logp, offsets, sizes),
        lambda logp: min_k(logp, offsets),
        lambda logp: min_k_plus_plus(logp, mean, sd, offsets),
        lambda logp: reference(logp, offsets, other),
    ):
        assert auc(score(unseen + 3), score(unseen)) == 1
    assert auc(gradient_norm(np.array([1, 2])), gradient_norm(np.array([3, 4]))) == 1


# PrivLeak


@pytest.mark.parametrize(
    ("found", "retrained", "expected"),
    [
        (0.5, 0.5, 0.0),
        (1.0, 0.5, -100.0),  # all forgotten records stand out as members: (0 - 0.5) / 0.5
        (0.0, 0.5, 100.0),  # all look less like members than any record never seen: (1 - 0.5) / 0.5
        (0.7, 0.6, -25.0),  # (0.3 - 0.4) / 0.4; with AUCs not turned over it would be (0.7 - 0.6) / 0.6 = +16.7
        (0.981, 0.5, -96.2),
    ],
)
def test_priv_leak_by_hand(found: float, retrained: float, expected: float) -> None:
    assert priv_leak(found, retrained) == pytest.approx(expected, abs=1e-9)


def test_priv_leak_of_scores_is_negative_when_too_little_was_forgotten() -> None:
    """MUSE's A counts pairs in which the held-out record scores higher: here 1 of 4, and 2 of 4 after retraining."""
    holdout = np.array([1.0, 3.0])
    unlearned = auc(np.array([2.0, 4.0]), holdout)  # 2 > 1, 4 > 1, 4 > 3; 2 < 3
    retrained = auc(np.array([0.0, 4.0]), holdout)  # 4 > 1, 4 > 3; 0 < 1, 0 < 3
    assert priv_leak(unlearned, retrained) == pytest.approx((1 / 4 - 2 / 4) / (2 / 4) * 100)


def test_priv_leak_relative_to_nothing_is_unknown() -> None:
    assert np.isnan(priv_leak(0.5, 1.0))


def test_priv_leak_names_every_auc_that_is_none() -> None:
    with pytest.raises(ValueError, match=r"auc is 1\.2; retrained_auc is -0\.1; an AUC"):
        priv_leak(1.2, -0.1)
