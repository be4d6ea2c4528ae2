"""Our metrics beside OpenUnlearning's, on the same log-probabilities: equal, but where its definition is another.

The figures called `PEER` are what locuslab/open-unlearning at commit d3d7cf9 gives for the logits, answers and losses made
here from a seed (its functions were called with a model that returns these logits; none of its code is here). Where its
definition differs the difference is undone in the test, and named.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from expunge.token_attacks import min_k, min_k_plus_plus, priv_leak
from expunge.token_metrics import (
    exact_memorisation,
    extraction_strength,
    forget_quality,
    mean_logp,
    probability,
    truth_ratio,
    truth_score,
)

FIRST, LAST = [2, 3, 1, 5], [8, 6, 7, 7]
"""Places of each answer's first and last token."""
PEER: dict[str, Any] = {
    "probability": [0.5087812851, 0.0054737411, 0.9864723762, 0.0019629276],
    "loss": [0.67573705, 5.2077929743, 0.0136199557, 6.2333182229],
    "min-k": [2.27746439, 7.51974344, 0.03304309, 6.22861052],
    "min-k++": [0.52775775, 6.96735614, -0.06003467, 3.88001483],
    "exact memorisation": [0.66666669, 0.0, 1.0, 0.0],
    "extraction strength": [0.66666667, 0.33333333, 1.0, 0.5],
    "truth ratio": [0.10833111, 21.07651996, 0.05790914, 40.42512531],
    "closer_to_1_better": 0.05960587,
    "true_better": 0.45843994,
    "prob_mean": 0.47923879,
    "probability among options": 0.37963521,
    "forget quality": 0.33570035263225584,
    "privleak": -26.923076917899408,
}


class Made:
    """Logits of four records over 13 tokens, their answers, false answers' losses, and truth ratios of two models."""

    def __init__(self) -> None:
        rng = np.random.default_rng(12)
        logits = rng.normal(0, 2, (4, 9, 13))
        ids = rng.integers(0, 13, (4, 9))
        for record, known_from in ((0, 2), (2, 0)):  # two answers are known, one of them from its third token on
            for place in range(FIRST[record] - 1 + known_from, LAST[record]):
                logits[record, place, ids[record, place + 1]] += 9
        whole = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
        self.parts = [
            (whole[i, a - 1 : b], ids[i, a : b + 1]) for i, (a, b) in enumerate(zip(FIRST, LAST, strict=True))
        ]
        self.false = -rng.uniform(0.5, 4, (4, 3)).round(4)
        self.forget = rng.lognormal(0, 0.5, 20).round(4)
        self.retrained = rng.lognormal(0.3, 0.5, 25).round(4)

    def tokens(self, *, without_end: bool = False) -> tuple[np.ndarray, ...]:
        """(U,) log-probabilities, (U,) mean and sd over the vocabulary, predictions, labels, and (N + 1,) offsets."""
        cut = [(logp[:-1], own[:-1]) if without_end else (logp, own) for logp, own in self.parts]
        rows, labels = np.concatenate([logp for logp, _ in cut]), np.concatenate([own for _, own in cut])
        p = np.exp(rows)
        mean = (p * rows).sum(-1)
        sd = np.sqrt((p * (rows - mean[:, None]) ** 2).sum(-1))
        offsets = np.cumsum([0, *(len(own) for _, own in cut)])
        return rows[np.arange(len(labels)), labels], mean, sd, rows.argmax(-1), labels, offsets


MADE = Made()


def test_probability_and_loss_are_the_same() -> None:
    logp, _, _, _, _, offsets = MADE.tokens()
    assert probability(logp, offsets) == pytest.approx(PEER["probability"], abs=1e-9)
    assert -mean_logp(logp, offsets) == pytest.approx(PEER["loss"], abs=1e-9)


def test_min_k_and_min_k_plus_plus_are_the_same_but_for_the_end() -> None:
    """It leaves an answer's end-of-text token out, and turns the sign over: higher for non-members."""
    logp, mean, sd, _, _, offsets = MADE.tokens(without_end=True)
    assert -min_k(logp, offsets, 0.4) == pytest.approx(PEER["min-k"], abs=1e-6)
    assert -min_k_plus_plus(logp, mean, sd, offsets, 0.4) == pytest.approx(PEER["min-k++"], abs=1e-6)


def test_exact_memorisation_is_the_same_but_for_the_end() -> None:
    _, _, _, predictions, labels, offsets = MADE.tokens(without_end=True)
    assert exact_memorisation(predictions, labels, offsets) == pytest.approx(PEER["exact memorisation"], abs=1e-6)


def test_extraction_strength_is_the_same_where_something_is_extracted() -> None:
    """Where the last token is wrong nothing can be extracted: 0 here. It says 1 / T, since its loop ends one short."""
    _, _, _, predictions, labels, offsets = MADE.tokens(without_end=True)
    found = extraction_strength(predictions, labels, offsets)
    peer = np.array(PEER["extraction strength"])
    nothing = np.array([predictions[last - 1] != labels[last - 1] for last in offsets[1:]])
    assert nothing.any()
    assert not nothing.all()
    assert found[~nothing] == pytest.approx(peer[~nothing], abs=1e-7)
    assert not found[nothing].any()
    assert peer[nothing] == pytest.approx(1 / np.diff(offsets)[nothing])


def test_the_truth_ratio_and_its_scores_are_the_same() -> None:
    """It adds 1e-10 under the bar, which shows in the eighth digit where the true answer is improbable."""
    logp, _, _, _, _, offsets = MADE.tokens()
    ratios = truth_ratio(mean_logp(logp, offsets), MADE.false)
    assert ratios == pytest.approx(PEER["truth ratio"], rel=1e-6)
    for rule in ("closer_to_1_better", "true_better", "prob_mean"):
        assert truth_score(ratios, rule).mean() == pytest.approx(PEER[rule], rel=1e-6)


def test_the_probability_among_options_is_the_same() -> None:
    logp, _, _, _, _, offsets = MADE.tokens()
    own = probability(logp, offsets)
    assert np.mean(own / (own + np.exp(MADE.false).sum(axis=1))) == pytest.approx(
        PEER["probability among options"], rel=1e-6
    )


def test_forget_quality_and_privleak_are_the_same() -> None:
    assert forget_quality(MADE.forget, MADE.retrained).p_value == pytest.approx(PEER["forget quality"], rel=1e-9)
    assert priv_leak(0.62, 0.48) == pytest.approx(PEER["privleak"], rel=1e-8)
