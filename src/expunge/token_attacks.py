"""Was a record trained on? Membership scores of answer tokens: pure functions of numpy arrays; no torch.

Every score is higher for records more like members, so that `stats.auc(forget, holdout)` is high where they still show.
Layout of tokens and of records without any (nan) as in `token_metrics`.
"""

from __future__ import annotations

import zlib as deflate
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.token_metrics import mean_logp, record_lengths, record_means

__all__ = [
    "LEAST_SD", "compressed_sizes", "gradient_norm", "loss", "min_k", "min_k_plus_plus", "priv_leak", "reference",
    "zlib",
]  # fmt: skip

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]

LEAST_SD = 1e-3
"""Least standard deviation over the vocabulary, in nats, so that no score explodes where a model is certain."""


def loss(logp: NDArray[Any], offsets: NDArray[Any]) -> Floats:
    """(N,) minus the mean loss, in nats a token (Yeom et al. 2018, arXiv 1709.01604).

    Args:
        logp: (U,) log-probability of each answer token, in nats.
        offsets: (N + 1,) first token of each record, and last U.
    """
    return mean_logp(logp, offsets)


def zlib(logp: NDArray[Any], offsets: NDArray[Any], zlib_bytes: NDArray[Any]) -> Floats:
    """(N,) mean log-probability over the text's compressed size, in nats a token and byte.

    Carlini et al. 2021 (arXiv 2012.07805) rank by the ratio of log-perplexity, which is a mean over tokens, and zlib
    entropy. They count bits, and rank by the ratio turned over: the order of records is the same.

    Args:
        logp: (U,) log-probability of each answer token, in nats.
        offsets: (N + 1,) first token of each record, and last U.
        zlib_bytes: (N,) `compressed_sizes` of the answers.

    Raises:
        ValueError: Sizes that are not one positive number a record.
    """
    means = mean_logp(logp, offsets)
    if zlib_bytes.shape != means.shape or not (zlib_bytes > 0).all():
        raise ValueError(f"zlib_bytes have shape {zlib_bytes.shape}; give {means.shape} sizes of at least 1 byte")
    return means / zlib_bytes


def compressed_sizes(texts: Sequence[str]) -> Integers:
    """(N,) bytes of each text compressed by zlib at its default level; an empty text has 8."""
    return np.array([len(deflate.compress(text.encode("utf-8", "surrogatepass"))) for text in texts], np.int64)


def min_k(logp: NDArray[Any], offsets: NDArray[Any], share: float = 0.2) -> Floats:
    """(N,) mean log-probability of the least probable tokens, in nats: Min-K% Prob (Shi et al. 2023, arXiv 2310.16789).

    Args:
        logp: (U,) log-probability of each answer token, in nats.
        offsets: (N + 1,) first token of each record, and last U.
        share: Share of tokens taken, rounded down, but at least one token (MUSE's code has no value for a record too
            short for one). The paper's choice is 0.2, MUSE's (arXiv 2407.06460) 0.4; 1 gives `loss`.

    Raises:
        ValueError: A share outside (0, 1].
    """
    return _lowest(logp, offsets, share)


def min_k_plus_plus(
    logp: NDArray[Any], mean: NDArray[Any], sd: NDArray[Any], offsets: NDArray[Any], share: float = 0.2
) -> Floats:  # fmt: skip
    """(N,) Min-K% of standardised log-probabilities, in standard deviations: Min-K%++ (Zhang et al., arXiv 2404.02936).

    Each token counts (log p - mean) / sd: is it a mode of the distribution given what stands before it?

    Args:
        logp: (U,) log-probability of each answer token, in nats.
        mean: (U,) expectation of log p(v) over the vocabulary, v drawn from the model: minus its entropy, in nats.
        sd: (U,) standard deviation of the same, in nats; raised to `LEAST_SD`, which the paper does not do.
        offsets: (N + 1,) first token of each record, and last U.
        share: Share of tokens taken, as in `min_k`; the paper tries 0.1 to 1.

    Raises:
        ValueError: A share outside (0, 1].
    """
    record_lengths(offsets, logp, mean, sd)
    return _lowest((logp - mean) / np.maximum(sd, LEAST_SD), offsets, share)


def _lowest(scores: NDArray[Any], offsets: NDArray[Any], share: float) -> Floats:
    """(N,) mean over the lowest scores of each record; nan if any of its scores is."""
    if not 0 < share <= 1:
        raise ValueError(f"share is {share}; give the share of tokens to take, above 0 and at most 1")
    lengths = record_lengths(offsets, scores)
    record = np.repeat(np.arange(len(lengths)), lengths)
    ordered = scores[np.lexsort((scores, record))]
    taken = np.maximum(1, np.floor(lengths * share + 1e-9)).astype(np.int64)
    chosen = np.arange(len(scores)) - np.asarray(offsets)[record] < taken[record]
    lowest = np.bincount(record[chosen], ordered[chosen], len(lengths)) / taken
    return np.where(np.isnan(record_means(scores, offsets)), np.nan, lowest)


def reference(logp: NDArray[Any], offsets: NDArray[Any], other: NDArray[Any]) -> Floats:
    """(N,) how much more probable the record is than under another model, in nats a token (Carlini et al., 2012.07805).

    Carlini et al. take the ratio of the two log-perplexities; later work (MIMIR, Duan et al. 2024, arXiv 2402.07841)
    their difference, a likelihood ratio.

    Args:
        logp: (U,) log-probability of each answer token, in nats.
        offsets: (N + 1,) first token of each record, and last U.
        other: (N,) `mean_logp` of the records under a model that never saw them, in nats, with the same tokens.

    Raises:
        ValueError: Not one value a record.
    """
    means = mean_logp(logp, offsets)
    if other.shape != means.shape:
        raise ValueError(f"other has shape {other.shape}; give {means.shape}: the mean log-probability of each record")
    return means - other


def gradient_norm(norms: NDArray[Any]) -> Floats:
    """(N,) minus the norm of each record's gradient of the mean loss, which members keep small (arXiv 2402.17012)."""
    return -np.asarray(norms, float)


def priv_leak(auc: float, retrained_auc: float) -> float:
    """PrivLeak of MUSE (Shi et al. 2024, arXiv 2407.06460), in per cent: 0 is as good as retraining.

    Below 0 too little was forgotten, above 0 too much: (A - A_retrained) / A_retrained * 100, where A, in MUSE's code,
    is the probability that a held-out record looks *more* like a member than a forgotten one: 1 minus the AUC everyone
    else means. This takes AUCs of the usual kind and turns them over. It runs from -100 (forgotten records all stand
    out as members) to 100 * AUC / (1 - AUC) of the retrained model.

    Args:
        auc: `stats.auc(forget, holdout)` of a membership score (MUSE: `min_k` at 0.4) under the unlearned model.
        retrained_auc: The same under a model trained without the records.

    Returns:
        nan where the retrained model's AUC is 1, to which nothing can be relative.

    Raises:
        ValueError: An AUC outside 0 to 1.
    """
    wrong = [
        f"{name} is {value}"
        for name, value in (("auc", auc), ("retrained_auc", retrained_auc))
        if value > 1 or value < 0
    ]
    if wrong:
        raise ValueError(f"{'; '.join(wrong)}; an AUC lies between 0 and 1")
    return float("nan") if retrained_auc == 1 else ((1 - auc) / (1 - retrained_auc) - 1) * 100
