"""What a language model still says of records, from its answer tokens: pure functions of numpy arrays; no torch.

Tokens of N records lie one behind the other in arrays of U values; `offsets` (N + 1,) holds the first token of each
record, and last U. A record without tokens has no value: nan, never 0.
"""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from scipy import special
from scipy import stats as scipy_stats

__all__ = [
    "ForgetQuality", "exact_memorisation", "extraction_strength", "forget_quality", "mean_logp", "model_utility",
    "probability", "record_lengths", "record_means", "rouge_l", "truth_ratio", "truth_score",
]  # fmt: skip

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class ForgetQuality:
    """Two-sample Kolmogorov-Smirnov test of an unlearned model against a retrained one.

    Attributes:
        p_value: TOFU's forget quality: how often two samples of one distribution lie this far apart. 1 is best. It
            falls with the number of records at the same distance, so compare it only at equal n.
        distance: Largest distance of the two empirical distribution functions, 0 (best) to 1.
        n: Records of the unlearned model with a value.
        m: Records of the retrained model with a value.
    """

    p_value: float
    distance: float
    n: int
    m: int


def record_lengths(offsets: NDArray[Any], *values: NDArray[Any]) -> Integers:
    """(N,) tokens of each record.

    Args:
        offsets: (N + 1,) first token of each record, and last the count of tokens.
        values: Arrays of one value a token, to check against the offsets.

    Raises:
        ValueError: Offsets that do not rise from 0 to the count of tokens.
    """
    if offsets.ndim != 1 or not len(offsets):
        raise ValueError(
            f"offsets have shape {offsets.shape}; give (N + 1,): the first token of each record, and last U"
        )
    lengths = np.diff(offsets).astype(np.int64)
    problems = [] if offsets[0] == 0 else [f"offsets begin with {offsets[0]}, not with 0"]
    if (lengths < 0).any():
        problems.append(f"offsets fall behind record {int((lengths < 0).argmax())}; they must never fall")
    problems += [
        f"values have shape {v.shape}, but offsets end with {offsets[-1]}; give one value a token"
        for v in values
        if v.shape != (offsets[-1],)
    ]
    if problems:
        raise ValueError("; ".join(problems))
    return lengths


def record_means(values: NDArray[Any], offsets: NDArray[Any]) -> Floats:
    """(N,) mean over the tokens of each record, in the unit of the values; nan without tokens.

    Args:
        values: (U,) one value a token.
        offsets: (N + 1,) first token of each record, and last U.
    """
    lengths = record_lengths(offsets, values)
    sums = np.bincount(np.repeat(np.arange(len(lengths)), lengths), values, len(lengths))
    return np.divide(sums, lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)


def mean_logp(logp: NDArray[Any], offsets: NDArray[Any]) -> Floats:
    """(N,) mean log-probability of a record's answer tokens, in nats; minus the logarithm of its perplexity.

    Args:
        logp: (U,) log-probability of each answer token given those before it, in nats.
        offsets: (N + 1,) first token of each record, and last U.
    """
    return record_means(logp, offsets)


def probability(logp: NDArray[Any], offsets: NDArray[Any]) -> Floats:
    """(N,) length-normalised probability of the answer, P(a|q)^(1/|a|), 0 to 1.

    TOFU (Maini et al. 2024, arXiv 2401.06121, section 2.2.1): the geometric mean of the tokens' probabilities.

    Args:
        logp: (U,) log-probability of each answer token, in nats.
        offsets: (N + 1,) first token of each record, and last U.
    """
    return np.exp(mean_logp(logp, offsets))


def rouge_l(predicted: Sequence[str], wanted: Sequence[str], measure: Literal["recall", "f1"] = "recall") -> Floats:
    """(N,) ROUGE-L of generated answers: longest common subsequence of words, 0 to 1 (Lin 2004).

    TOFU (arXiv 2401.06121) takes the recall, the subsequence's share of the wanted words. Words are lower-case runs of
    a to z and 0 to 9, stemmed (Porter), as the `rouge-score` package has it; text in other scripts has none.

    Args:
        predicted: N generated answers.
        wanted: N true answers; one without any word has no value (nan).
        measure: ``recall``, or ``f1``: harmonic mean of recall and precision.

    Raises:
        ValueError: The numbers of answers differ, or the measure is unknown.
    """
    from rouge_score.rouge_scorer import RougeScorer
    from rouge_score.tokenizers import DefaultTokenizer

    if len(predicted) != len(wanted):
        raise ValueError(f"{len(predicted)} predicted answers for {len(wanted)} wanted ones; give as many of each")
    if measure not in ("recall", "f1"):
        raise ValueError(f"measure is {measure!r}; take 'recall' or 'f1'")
    words = DefaultTokenizer(use_stemmer=True)
    scorer = RougeScorer(["rougeL"], tokenizer=words)
    field = "recall" if measure == "recall" else "fmeasure"
    found = [
        getattr(scorer.score(target, said)["rougeL"], field) if words.tokenize(target) else np.nan
        for said, target in zip(predicted, wanted, strict=True)
    ]
    return np.array(found, float)


def truth_ratio(
    correct: Floats, perturbed: Floats, mean: Literal["geometric", "arithmetic"] = "geometric"
) -> Floats:  # fmt: skip
    """(N,) R_truth: how probable false answers are, relative to a true one. Low: the model knows; 1: it cannot tell.

    R = mean over perturbed answers of P(a'|q)^(1/|a'|) / P(a|q)^(1/|a|), TOFU (arXiv 2401.06121, section 2.2.1), where
    a is the paraphrased true answer (the original one where the data have no paraphrase). The paper writes an
    arithmetic mean; its code, and OpenUnlearning's, average the losses, hence take the geometric mean: the default
    here. Computed from logarithms, without a small constant under the bar, so exact for improbable answers as well.

    Args:
        correct: (N,) `mean_logp` of the true answer, in nats.
        perturbed: (N, K) `mean_logp` of the false answers, in nats; nan where a record has fewer than K.
        mean: How the false answers' probabilities are averaged.

    Raises:
        ValueError: Shapes that do not fit, or an unknown mean.
    """
    if perturbed.ndim != 2 or correct.shape != perturbed.shape[:1]:
        raise ValueError(f"correct has shape {correct.shape}, perturbed {perturbed.shape}; give (N,) and (N, K)")
    there = ~np.isnan(perturbed)
    counts = there.sum(axis=1)
    some = counts > 0
    if mean == "geometric":
        false = np.where(there, perturbed, 0.0).sum(axis=1) / np.maximum(1, counts)
    elif mean == "arithmetic":
        false = np.full(len(correct), np.nan)
        masked = np.where(there[some], perturbed[some], -np.inf)
        false[some] = special.logsumexp(masked, axis=1) - np.log(counts[some])
    else:
        raise ValueError(f"mean is {mean!r}; take 'geometric' (TOFU's code) or 'arithmetic' (TOFU's paper)")
    with np.errstate(over="ignore"):
        return np.exp(np.where(some, false, np.nan) - correct)


def truth_score(ratios: Floats, rule: Literal["closer_to_1_better", "true_better", "prob_mean"]) -> Floats:
    """(N,) truth ratios turned into scores, 0 to 1; benchmarks report their mean over records.

    The first two are TOFU's (arXiv 2401.06121), the third that of OpenUnlearning (arXiv 2506.12618); names are the
    latter's.

    Args:
        ratios: (N,) `truth_ratio`.
        rule: ``closer_to_1_better``: min(R, 1 / R), for records to forget, high: forgotten. ``true_better``:
            max(0, 1 - R), for others, high: known. ``prob_mean``: 1 / (1 + R), the true answer's part in the sum of
            both probabilities, high: known.

    Raises:
        ValueError: The rule is unknown.
    """
    if rule == "closer_to_1_better":
        with np.errstate(divide="ignore"):
            return np.minimum(ratios, 1 / ratios)
    if rule == "true_better":
        return np.maximum(0.0, 1 - ratios)
    if rule == "prob_mean":
        return 1 / (1 + ratios)
    raise ValueError(f"rule is {rule!r}; take 'closer_to_1_better', 'true_better' or 'prob_mean'")


def forget_quality(unlearned_ratios: Floats, retrained_ratios: Floats) -> ForgetQuality:
    """Do the truth ratios of the forgotten records look like those of a model that never saw them?

    TOFU (arXiv 2401.06121, section 2.2.2) reports the p-value. Turning all ratios over (1 / R) changes nothing.

    Args:
        unlearned_ratios: (N,) `truth_ratio` under the unlearned model; nan is left out.
        retrained_ratios: (M,) the same under a model trained without the records.

    Raises:
        ValueError: A sample without any value.
    """
    one, other = (sample[~np.isnan(sample)] for sample in (unlearned_ratios, retrained_ratios))
    if not len(one) or not len(other):
        raise ValueError(f"forget quality needs records on both sides; {len(one)} and {len(other)} have a value")
    with warnings.catch_warnings():
        # Where rounding lifts the exact p above 1, scipy warns and takes the asymptotic one, which will do.
        warnings.filterwarnings("ignore", "ks_2samp: Exact calculation unsuccessful", RuntimeWarning)
        found: Any = scipy_stats.ks_2samp(one, other)
    return ForgetQuality(float(found.pvalue), float(found.statistic), len(one), len(other))


def model_utility(values: NDArray[Any] | Sequence[float]) -> float:
    """Harmonic mean of scores, 0 to 1: a model useless by one of them is useless (0); nan if one was not measured.

    TOFU (arXiv 2401.06121, section 2.2.1) takes nine: mean probability, ROUGE-L recall and ``true_better`` truth score
    on retained records, real authors and world facts; the probability on the latter two as a part of the sum of those
    of all answers offered.

    Raises:
        ValueError: No scores, or negative ones.
    """
    scores = np.asarray(values, float)
    if not scores.size or (scores < 0).any():
        raise ValueError(f"model utility is the harmonic mean of scores of 0 or more; got {scores.tolist()}")
    return float("nan") if np.isnan(scores).any() else float(scipy_stats.hmean(scores))


def extraction_strength(predictions: NDArray[Any], labels: NDArray[Any], offsets: NDArray[Any]) -> Floats:
    """(N,) share of an answer the model completes by itself, 0 to 1: 1 - k / T, k the shortest prefix that will do.

    After Carlini et al. 2021 (arXiv 2012.07805), as Wang et al. 2025 (arXiv 2406.09179) define it for unlearning:
    k = min {k : predictions from k on all equal the labels}, T tokens; k = T if the last is wrong. Predictions given
    the true prefix do: as long as each is right, greedy decoding walks the same way.

    Args:
        predictions: (U,) most probable token at each place, given the true tokens before it.
        labels: (U,) true tokens.
        offsets: (N + 1,) first token of each record, and last U.
    """
    lengths = record_lengths(offsets, predictions, labels)
    wrong = np.flatnonzero(predictions != labels)
    record = np.repeat(np.arange(len(lengths)), lengths)[wrong]
    needed = np.zeros(len(lengths), np.int64)
    np.maximum.at(needed, record, wrong + 1 - np.asarray(offsets)[record])
    return np.divide(lengths - needed, lengths, out=np.full(len(lengths), np.nan), where=lengths > 0)


def exact_memorisation(predictions: NDArray[Any], labels: NDArray[Any], offsets: NDArray[Any]) -> Floats:
    """(N,) share of answer tokens that are the most probable ones, 0 to 1 (Tirumala et al. 2022, arXiv 2205.10770).

    Args:
        predictions: (U,) most probable token at each place, given the true tokens before it.
        labels: (U,) true tokens.
        offsets: (N + 1,) first token of each record, and last U.
    """
    record_lengths(offsets, predictions, labels)
    return record_means(predictions == labels, offsets)
