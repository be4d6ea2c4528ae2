"""Attacks on single records, and comparisons of models record by record: pure functions of numpy arrays; no torch."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import special

__all__ = [
    "MODELS_A_SIDE", "challenge_epsilon", "churn", "density_log_ratio", "gaussian_log_ratio", "klom", "least_unseen",
    "pooled_sd", "rmia", "standardised_shift", "strata", "unseen_bounds",
]  # fmt: skip

Floats = NDArray[np.float64]

MODELS_A_SIDE = 32
"""Models on each side below which KLoM and epsilon say nothing."""
POOLED_BELOW = 16
"""Models below which one standard deviation is taken for all records: few models show no record's own."""
_GRID = 128
_LEAST_BANDWIDTH = 0.05


def rmia(
    target: Floats, references: Floats, population: Floats, population_references: Floats, *, gamma: float = 1.0,
    offline: float = 0.3,
) -> Floats:  # fmt: skip
    """Robust membership inference (Zarifzadeh et al. 2024, arXiv 2312.03262), offline: no reference saw the records.

    score(s) = share of population records z with [p(s|target) / p(s)] / [p(z|target) / p(z)] >= gamma, where
    p(x) = ((1 + a) mean over references of p(x|reference) + 1 - a) / 2.

    Args:
        target: (N,) log-probability of the true label under the attacked model, in nats.
        references: (K, N) the same under each reference model.
        population: (Z,) log-probabilities of records that no model saw, under the attacked model.
        population_references: (K, Z) the same under each reference model.
        gamma: How much more than z a record must gain; 1 keeps the order of all scores, over-forgotten ones included.
        offline: a: how far the probability under models that saw x is taken to lie above that of those that did not.

    Returns:
        (N,) scores, 0 to 1; higher: more likely a member.
    """

    def gain(own: Floats, others: Floats) -> Floats:
        return own - np.log(((1 + offline) * np.exp(others).mean(axis=0) + 1 - offline) / 2)

    measure = np.sort(gain(population, population_references))
    return np.searchsorted(measure, gain(target, references) - np.log(gamma), "right") / len(measure)


def strata(
    wanted: NDArray[Any], *others: NDArray[Any], least: int = 20
) -> Iterator[tuple[NDArray[np.bool_], list[NDArray[np.bool_]]]]:
    """Match samples by class where every sample has enough of it.

    Args:
        wanted: (N,) classes of the records to match for.
        others: (M,) classes of each sample to match from.
        least: Records of a class each of them needs; the other classes are served by the whole samples.

    Yields:
        (N,) which records, and for each sample (M,) which of it they are matched with.
    """
    rest = np.ones(len(wanted), bool)
    for c in np.unique(wanted):
        same = [other == c for other in others]
        if all(s.sum() >= least for s in same):
            rest &= wanted != c
            yield wanted == c, same
    if rest.any():
        yield rest, [np.ones(len(other), bool) for other in others]


def least_unseen(level: float) -> int:
    """Records never seen that a bound of `unseen_bounds` at this level takes."""
    return int(np.ceil(1 / (1 - level) - 1e-9)) - 1


def unseen_bounds(sample: Floats, level: float) -> tuple[float, float]:
    """Bounds a further value of the same distribution passes with at most probability 1 - level, on each side.

    Order statistics (conformal): below the k-th smallest and above the k-th largest of n, k = floor((n + 1)(1 - level)).

    Returns:
        Lower and upper bound; infinite where the sample is too small for any (fewer than level / (1 - level)).
    """
    k = int((len(sample) + 1) * (1 - level) + 1e-9)
    if k < 1:
        return -np.inf, np.inf
    ordered = np.sort(sample)
    return float(ordered[k - 1]), float(ordered[-k])


def density_log_ratio(
    values: Floats, inside: Floats, outside: Floats, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """log of the density of trained-on records' margins over that of unseen ones', at each value, in nats.

    Gaussian kernels (Scott's bandwidth with the smaller of standard deviation and IQR / 1.349, not under 0.05 nats),
    mixed with one pseudo-record spread evenly over the range, so that tails without data decide little.

    Args:
        values: (N,) margins, in nats.
        inside: (I,) margins of records trained on, under the same model.
        outside: (O,) margins of records never seen.
        resamples: Bootstrap resamples of `inside` and `outside` behind the interval.
        confidence: Confidence level.
        seed: Seed of the resamples.

    Returns:
        (N,) log ratios, lower ends and upper ends.
    """
    widths = [_bandwidth(inside), _bandwidth(outside)]
    everything = np.concatenate([values, inside, outside])
    reach = 3 * max(widths)
    grid = np.linspace(everything.min() - reach, everything.max() + reach, _GRID)
    step = grid[1] - grid[0]
    rng = np.random.default_rng(seed)
    exact: list[Floats] = []
    drawn: list[Floats] = []
    for sample, width in zip((inside, outside), widths, strict=True):
        extra = 1 / (len(sample) + 1)
        floor = extra / (grid[-1] - grid[0])
        parts = [_kernel(part, sample, width).mean(axis=1) for part in np.array_split(values, 1 + len(values) // 512)]
        exact.append(np.log((1 - extra) * np.concatenate(parts) + floor))
        cells = np.rint((sample - grid[0]) / step).astype(int)
        chosen = cells[rng.integers(0, len(cells), (resamples, len(cells)))] + _GRID * np.arange(resamples)[:, None]
        counts = np.bincount(chosen.ravel(), minlength=_GRID * resamples).reshape(resamples, _GRID)
        smooth = _kernel(grid, grid, max(width, step))
        drawn.append(np.log((1 - extra) * (counts / len(sample)) @ smooth + floor))
    ratio = exact[0] - exact[1]
    tail = (1 - confidence) / 2
    low, high = (np.interp(values, grid, end) for end in np.quantile(drawn[0] - drawn[1], [tail, 1 - tail], axis=0))
    return ratio, np.minimum(low, ratio), np.maximum(high, ratio)


def _bandwidth(sample: Floats) -> float:
    quartiles = np.quantile(sample, [0.25, 0.75])
    spread = min(sample.std(ddof=min(1, len(sample) - 1)), (quartiles[1] - quartiles[0]) / 1.349)
    return max(_LEAST_BANDWIDTH, float(spread) * len(sample) ** -0.2)


def _kernel(at: Floats, centres: Floats, width: float) -> Floats:
    return np.exp(-0.5 * ((at[:, None] - centres) / width) ** 2) / (width * np.sqrt(2 * np.pi))


def pooled_sd(models: Floats) -> Floats:
    """(N,) standard deviation of each record over (R, N) models: one for all records below 16 models, in the input's unit."""
    variance = models.var(axis=0, ddof=1)
    if len(models) < POOLED_BELOW:
        variance = np.full_like(variance, variance.mean())
    return np.sqrt(np.maximum(variance, _LEAST_BANDWIDTH**2))


def gaussian_log_ratio(
    values: Floats, inside: Floats, outside: Floats, *, resamples: int = 1000, confidence: float = 0.95, seed: int = 0
) -> tuple[Floats, Floats, Floats]:
    """log N(value; models trained on the record) - log N(value; models never trained on it), in nats.

    LiRA (Carlini et al. 2022, arXiv 2112.03570) with one standard deviation for both sides, taken over `outside`
    (`pooled_sd`); the interval draws both means anew with their errors, sd / sqrt(models).

    Args:
        values: (N,) margins under the attacked model, in nats.
        inside: (K, N) margins under models trained on the records; one will do.
        outside: (R, N) margins under models trained without them, R at least 2.
        resamples: Draws behind the interval.
        confidence: Confidence level.
        seed: Seed of the draws.

    Returns:
        (N,) log ratios, lower ends and upper ends.
    """
    sd = pooled_sd(outside)
    seen, unseen = inside.mean(axis=0), outside.mean(axis=0)

    def ratio(one: Floats, other: Floats) -> Floats:
        return (((values - other) / sd) ** 2 - ((values - one) / sd) ** 2) / 2

    rng = np.random.default_rng(seed)
    shape = (resamples, 1)  # the same luck for every record: each record's interval is its own all the same
    drawn = ratio(
        seen + sd / np.sqrt(len(inside)) * rng.normal(size=shape),
        unseen + sd / np.sqrt(len(outside)) * rng.normal(size=shape),
    )
    tail = (1 - confidence) / 2
    low, high = np.quantile(drawn, [tail, 1 - tail], axis=0)
    value = ratio(seen, unseen)
    return value, np.minimum(low, value), np.maximum(high, value)


def standardised_shift(values: Floats, outside: Floats) -> Floats:
    """(N,) (margin - mean over models that never saw the record) / their standard deviation, see `pooled_sd`.

    Args:
        values: (N,) margins under the judged model.
        outside: (R, N) margins under the others, R at least 2.
    """
    return (values - outside.mean(axis=0)) / pooled_sd(outside)


def churn(predictions: NDArray[Any], others: NDArray[Any]) -> float:
    """Share of units that two models label differently."""
    return float((predictions != others).mean())


def klom(unlearned: Floats, retrained: Floats, *, bins: int = 20, clip: float = 100.0) -> Floats | None:
    """KL divergence of each record's margins over unlearned models from those over retrained ones, in nats.

    KLoM (Georgiev et al. 2024, arXiv 2410.23232): histograms of margins clipped at +-`clip` in `bins` equal bins from
    the smallest to the largest of both, 1e-5 added to each share.

    Args:
        unlearned: (A, N) margins under independently unlearned models.
        retrained: (B, N) margins under retrained ones.
        bins: Bins of a histogram.
        clip: Where margins are clipped, in nats.

    Returns:
        (N,), or None with fewer than 32 models on a side.
    """
    if min(len(unlearned), len(retrained)) < MODELS_A_SIDE:
        return None
    both = [np.clip(side, -clip, clip) for side in (unlearned, retrained)]
    low = np.minimum(both[0].min(axis=0), both[1].min(axis=0))
    width = np.maximum(np.maximum(both[0].max(axis=0), both[1].max(axis=0)) - low, 1e-12)
    shares = []
    for side in both:
        place = np.minimum(((side - low) / width * bins).astype(int), bins - 1) + bins * np.arange(side.shape[1])
        counts = np.bincount(place.ravel(), minlength=bins * side.shape[1]).reshape(-1, bins)
        raised = counts / len(side) + 1e-5
        shares.append(raised / raised.sum(axis=1, keepdims=True))
    return special.rel_entr(shares[0], shares[1]).sum(axis=1)


def challenge_epsilon(
    unlearned: Floats, retrained: Floats, *, delta: float = 1e-5, cap: float = 50.0, thresholds: int = 128
) -> Floats | None:
    """Epsilon of each record as the NeurIPS 2023 machine unlearning challenge estimates it.

    Over attacks that tell unlearned from retrained models by one threshold on the margin (either side) or by two (inside
    or outside): max of ln(1 - delta - FPR) - ln FNR and ln(1 - delta - FNR) - ln FPR. An attack that is never wrong is
    worth `cap`; one with only one of the two rates at 0 is left out, as its sample is too small to say.

    Args:
        unlearned: (A, N) margins under independently unlearned models.
        retrained: (B, N) margins under retrained ones.
        delta: The delta of (epsilon, delta).
        cap: The largest value given.
        thresholds: Thresholds tried, at most: quantiles of both sides together.

    Returns:
        (N,), at least 0, or None with fewer than 32 models on a side.
    """
    if min(len(unlearned), len(retrained)) < MODELS_A_SIDE:
        return None
    found = np.empty(unlearned.shape[1])
    for record in range(unlearned.shape[1]):
        cuts = np.unique(np.concatenate([unlearned[:, record], retrained[:, record]]))
        if len(cuts) > thresholds:
            cuts = np.unique(np.quantile(cuts, np.linspace(0, 1, thresholds), method="nearest"))
        caught, alarmed = (
            np.concatenate([np.searchsorted(np.sort(side[:, record]), cuts) / len(side), [1.0]])
            for side in (unlearned, retrained)
        )
        # Rows and columns: from which cut up to which; the column behind the last cut has no upper end.
        inside = [share[None, :] - share[:, None] for share in (caught, alarmed)]
        upper = np.triu_indices(len(caught), 1)
        positive, alarm = (share[upper] for share in inside)
        false_positive = np.concatenate([alarm, 1 - alarm])
        false_negative = np.concatenate([1 - positive, positive])
        found[record] = min(cap, _epsilon(false_positive.round(12), false_negative.round(12), delta))
    return found


def _epsilon(false_positive: Floats, false_negative: Floats, delta: float) -> float:
    if ((false_positive == 0) & (false_negative == 0)).any():
        return float("inf")
    usable = (false_positive > 0) & (false_negative > 0)
    alarm, miss = false_positive[usable], false_negative[usable]
    best = 0.0
    for one, other in ((alarm, miss), (miss, alarm)):
        room = 1 - delta - one
        if (room > 0).any():
            best = max(best, float((np.log(room[room > 0]) - np.log(other[room > 0])).max()))
    return best
