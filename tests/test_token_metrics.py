"""Metrics of answer tokens against hand-worked numbers, kept libraries, and slow definitions."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats as scipy_stats

from expunge.audits.truth_ratio import ratios_of
from expunge.token_metrics import (
    exact_memorisation,
    extraction_strength,
    forget_quality,
    mean_logp,
    model_utility,
    probability,
    record_lengths,
    record_means,
    rouge_l,
    truth_ratio,
    truth_score,
)

# Three records: tokens with probabilities 1/2 and 1/8, none, and one with 1/4.
LOGP = np.log([0.5, 0.125, 0.25])
OFFSETS = np.array([0, 2, 2, 3])

ratios = st.lists(st.floats(1e-3, 1e3), min_size=1, max_size=30).map(np.array)
answers = st.lists(st.lists(st.tuples(st.integers(0, 2), st.integers(0, 2)), max_size=8), max_size=6)


def flat(records: list[list[tuple[int, int]]]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Predictions, labels and offsets of records of (prediction, label) pairs."""
    pairs = np.array([pair for record in records for pair in record], int).reshape(-1, 2)
    return pairs[:, 0], pairs[:, 1], np.cumsum([0, *map(len, records)])


# Means over the tokens of a record


def test_probability_is_the_geometric_mean_of_the_tokens() -> None:
    # log(1/2 * 1/8) / 2 = log(1/16) / 2 = log(1/4); no tokens, no value; log(1/4) / 1.
    np.testing.assert_allclose(mean_logp(LOGP, OFFSETS), [np.log(0.25), np.nan, np.log(0.25)])
    np.testing.assert_allclose(probability(LOGP, OFFSETS), [0.25, np.nan, 0.25])


def test_an_impossible_token_makes_the_answer_impossible_and_no_other() -> None:
    assert probability(np.array([-np.inf, -1.0, 0.0]), np.array([0, 2, 3])).tolist() == [0.0, 1.0]


def test_no_records_have_no_values() -> None:
    assert len(mean_logp(np.array([]), np.array([0]))) == 0


@given(st.lists(st.lists(st.floats(-50, 0), max_size=6), max_size=8), st.randoms())
def test_the_order_of_records_does_not_matter(records: list[list[float]], random) -> None:
    order = list(range(len(records)))
    random.shuffle(order)

    def means(chosen: list[list[float]]) -> np.ndarray:
        return record_means(np.array([v for r in chosen for v in r], float), np.cumsum([0, *map(len, chosen)]))

    np.testing.assert_array_equal(means([records[i] for i in order]), means(records)[order])


@pytest.mark.parametrize(
    ("offsets", "message"),
    [
        ([], "shape"),
        ([1, 3], "begin with 1"),
        ([0, 2, 1, 3], "behind record 1"),
        ([0, 2], "end with 2"),
        ([1, 0, 2], "begin with 1.*behind record 0.*end with 2"),
    ],
)
def test_offsets_that_do_not_fit_are_an_error_which_lists_all_that_is_wrong(offsets: list[int], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        record_lengths(np.array(offsets, int), np.zeros(3))


# ROUGE-L


def test_rouge_l_by_hand() -> None:
    # "the cat sat" is common, in order: 3 of the 6 wanted words, 3 of the 4 predicted ones; F1 = 2 * 3 / (6 + 4).
    said, wanted = ["The cat sat down."], ["the cat sat on a mat"]
    assert rouge_l(said, wanted).tolist() == [3 / 6]
    assert rouge_l(said, wanted, "f1").tolist() == pytest.approx([0.6])


def test_rouge_l_stems_words_and_keeps_their_order() -> None:
    # "authors" and "author" share a stem; turned round, only one of two words is common in order.
    assert rouge_l(["authors", "beta alpha"], ["author", "alpha beta"]).tolist() == [1.0, 0.5]


def test_rouge_l_of_silence_is_0_but_of_nothing_wanted_is_unknown() -> None:
    for measure in ("recall", "f1"):
        assert rouge_l(["", "words", ""], ["words", "!", ""], measure).tolist() == pytest.approx(
            [0.0, np.nan, np.nan], nan_ok=True
        )


def test_rouge_l_needs_pairs_and_a_known_measure() -> None:
    with pytest.raises(ValueError, match="1 predicted answers for 2"):
        rouge_l(["a"], ["a", "b"])
    with pytest.raises(ValueError, match="'precision'; take"):
        rouge_l(["a"], ["a"], "precision")  # pyright: ignore[reportArgumentType]


# Truth ratio


def test_truth_ratio_by_hand() -> None:
    # True answer 1/2. False ones 1/4 and 1/16: geometric mean 1/8, arithmetic 5/32; over 1/2: 1/4 and 5/16.
    correct, perturbed = np.log([0.5]), np.log([[0.25, 0.0625]])
    assert truth_ratio(correct, perturbed).tolist() == pytest.approx([0.25])
    assert truth_ratio(correct, perturbed, "arithmetic").tolist() == pytest.approx([0.3125])


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_truth_ratio_leaves_out_missing_false_answers(mean: str) -> None:
    # One false answer of 1/4 against 1/2 is a ratio of 1/2; none at all, or no true answer, is unknown.
    perturbed = np.log([[0.25, np.nan], [np.nan, np.nan], [0.25, 0.25]])
    found = truth_ratio(np.log([0.5, 0.5, np.nan]), perturbed, mean)  # pyright: ignore[reportArgumentType]
    np.testing.assert_allclose(found, [0.5, np.nan, np.nan])
    assert np.isnan(truth_ratio(np.zeros(2), np.zeros((2, 0)), mean)).all()  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize("mean", ["geometric", "arithmetic"])
def test_truth_ratio_is_exact_where_probabilities_vanish(mean: str) -> None:
    # exp(-800) is 0 in float64; the ratio of exp(-801) to it is 1 / e all the same.
    found = truth_ratio(np.array([-800.0]), np.array([[-801.0, -801.0]]), mean)  # pyright: ignore[reportArgumentType]
    assert found.tolist() == pytest.approx([np.exp(-1)])


def test_a_true_answer_that_vanished_beside_the_false_ones_scores_0_by_every_rule() -> None:
    found = truth_ratio(np.array([-1000.0]), np.array([[0.0]]))
    assert found.tolist() == [np.inf]
    for rule in ("closer_to_1_better", "true_better", "prob_mean"):
        assert truth_score(found, rule).tolist() == [0.0]


@given(st.lists(st.floats(-20, 0), min_size=1, max_size=5), st.floats(-20, 0))
def test_the_geometric_truth_ratio_is_never_the_larger_one(perturbed: list[float], correct: float) -> None:
    given_ = np.array([correct]), np.array([perturbed])
    assert truth_ratio(*given_)[0] <= truth_ratio(*given_, "arithmetic")[0] * (1 + 1e-9)


def test_truth_ratio_needs_fitting_shapes_and_a_known_mean() -> None:
    with pytest.raises(ValueError, match=r"correct has shape \(2,\), perturbed \(3, 1\)"):
        truth_ratio(np.zeros(2), np.zeros((3, 1)))
    with pytest.raises(ValueError, match="'harmonic'; take"):
        truth_ratio(np.zeros(1), np.zeros((1, 1)), "harmonic")  # pyright: ignore[reportArgumentType]


@pytest.mark.parametrize(
    ("rule", "scores"),
    [
        # min(R, 1 / R): equal probabilities are best, whichever side is ahead.
        ("closer_to_1_better", [0.0, 0.25, 1.0, 0.25]),
        # max(0, 1 - R): the true answer ahead is best.
        ("true_better", [1.0, 0.75, 0.0, 0.0]),
        # 1 / (1 + R) = P / (P + P'): R = 1/4 is 4 parts of 5, R = 4 is 1 part of 5.
        ("prob_mean", [1.0, 0.8, 0.5, 0.2]),
    ],
)
def test_truth_scores_by_hand(rule: str, scores: list[float]) -> None:
    found = truth_score(np.array([0.0, 0.25, 1.0, 4.0, np.nan]), rule)  # pyright: ignore[reportArgumentType]
    assert found.tolist() == pytest.approx([*scores, np.nan], nan_ok=True)


def test_an_unknown_truth_score_is_an_error() -> None:
    with pytest.raises(ValueError, match="'best'; take"):
        truth_score(np.ones(1), "best")  # pyright: ignore[reportArgumentType]


# Forget quality and model utility


def test_forget_quality_by_hand() -> None:
    # Two values of each side, all of one below all of the other: distance 1. Of the 6 equally likely orders of two and
    # two, 2 lie as far apart: p = 1/3.
    found = forget_quality(np.array([1.0, 2.0, np.nan]), np.array([3.0, 4.0]))
    assert (found.distance, found.n, found.m) == (1.0, 2, 2)
    assert found.p_value == pytest.approx(1 / 3)


@given(ratios, ratios)
def test_forget_quality_is_scipys_and_blind_to_which_way_up_ratios_stand(one: np.ndarray, other: np.ndarray) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # scipy falls back on its asymptotic p near 1
        expected = scipy_stats.ks_2samp(one, other)
    found = forget_quality(one, other)
    assert (found.p_value, found.distance) == (expected.pvalue, expected.statistic)
    turned = forget_quality(-one, -other)  # the reverse order, as 1 / R has it, without its rounding
    assert (turned.p_value, turned.distance) == pytest.approx((found.p_value, found.distance))


def test_forget_quality_warns_of_nothing_where_scipys_exact_test_fails() -> None:
    # One of seven values differs: 1/7, the least distance there is beside 0, so any two samples lie as far apart and
    # p = 1; the asymptotic value comes near that.
    found = forget_quality(np.ones(7), np.array([1.0, 1, 1, 1, 1, 1, 2]))
    assert (found.p_value, found.distance) == pytest.approx((1.0, 1 / 7), abs=1e-4)


def test_a_model_compared_with_itself_has_forget_quality_1() -> None:
    assert forget_quality(np.arange(9.0), np.arange(9.0)).p_value == 1


def test_forget_quality_needs_records() -> None:
    with pytest.raises(ValueError, match="0 and 1 have a value"):
        forget_quality(np.array([np.nan]), np.array([1.0]))


def test_model_utility_by_hand() -> None:
    # 3 / (1/1 + 1/0.5 + 1/0.25) = 3 / 7; one useless score makes it 0, one not measured unknown.
    assert model_utility([1.0, 0.5, 0.25]) == pytest.approx(3 / 7)
    assert model_utility([1.0, 0.0]) == 0
    assert np.isnan(model_utility([1.0, 0.0, np.nan]))


@pytest.mark.parametrize("scores", [[], [0.5, -0.1]])
def test_model_utility_of_nothing_or_less_is_an_error(scores: list[float]) -> None:
    with pytest.raises(ValueError, match="harmonic mean of scores of 0 or more"):
        model_utility(scores)


# Extraction strength and exact memorisation


def slow_strength(record: list[tuple[int, int]]) -> float:
    """The definition: try every prefix."""
    if not record:
        return float("nan")
    k = next(k for k in range(len(record) + 1) if all(said == true for said, true in record[k:]))
    return 1 - k / len(record)


def test_extraction_strength_by_hand() -> None:
    # Right, wrong, right, right: two tokens must be given, so 1 - 2/4. All right 1; the last wrong 0; no tokens, nan.
    records = [[(1, 1), (0, 1), (2, 2), (2, 2)], [(1, 1), (2, 2)], [(1, 1), (0, 1)], [], [(0, 1)]]
    assert extraction_strength(*flat(records)).tolist() == pytest.approx([0.5, 1, 0, np.nan, 0], nan_ok=True)
    # Shares of right tokens: 3/4, 2/2, 1/2, none, 0/1.
    assert exact_memorisation(*flat(records)).tolist() == pytest.approx([0.75, 1, 0.5, np.nan, 0], nan_ok=True)


@given(answers)
def test_extraction_strength_is_its_slow_definition(records: list[list[tuple[int, int]]]) -> None:
    found = extraction_strength(*flat(records))
    assert found.tolist() == pytest.approx([slow_strength(record) for record in records], nan_ok=True)


@given(answers)
def test_extraction_strength_lies_between_0_and_the_share_of_right_tokens(
    records: list[list[tuple[int, int]]],
) -> None:
    strength, share = extraction_strength(*flat(records)), exact_memorisation(*flat(records))
    known = ~np.isnan(strength)
    assert known.tolist() == [bool(record) for record in records]
    assert (strength[known] >= 0).all()
    assert (strength[known] <= share[known] + 1e-12).all()
    assert ((strength[known] == 1) == (share[known] == 1)).all()


def test_predictions_and_labels_must_fit_the_offsets() -> None:
    for metric in (extraction_strength, exact_memorisation):
        with pytest.raises(ValueError, match="one value a token"):
            metric(np.zeros(2), np.zeros(1), np.array([0, 2]))


def test_without_false_answers_there_is_no_truth_ratio() -> None:
    assert np.isnan(ratios_of(np.zeros(3), ())).tolist() == [True] * 3  # pyright: ignore[reportArgumentType]
