"""Could an attacker with shadow models tell? U-LiRA's statistics: pure functions of margins; no model, no torch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.stats import Interval, auc, bootstrap, tpr_at_fpr

__all__ = ["FALSE_ALARMS", "Verdict", "judged", "likelihood_ratios"]

Floats = NDArray[np.float64]

FALSE_ALARMS = 0.01
"""Share of false alarms at which the attack's hits are counted."""
_LEAST_SD = 1e-3


@dataclass(frozen=True)
class Verdict:
    """What the attack achieves; every interval resamples records.

    Attributes:
        decisions: How many decisions were taken, half of them on each side.
        records: How many records they are about.
        accuracy: Share of right decisions, both sides weighing the same; chance is 0.5.
        accuracy_own_sd: The same with every record's own standard deviations.
        chance: Where 95 % of such accuracies lie when the two sides are swapped at random, pair by pair: what luck of whole
            models can do, which an interval over records does not show.
        auc: Of the likelihood ratios.
        hits: Share of the first side found with at most 1 % of false alarms on the other; chance is 0.01; None with fewer
            than 100 decisions there.
        shift: Mean over records of (mean margin of the first side - that of the other) / their pooled sd; below 0: the
            first side is less sure of its records.
    """

    decisions: int
    records: int
    accuracy: Interval
    accuracy_own_sd: Interval
    chance: tuple[float, float]
    auc: Interval
    hits: Interval | None
    shift: Interval

    def as_dict(self) -> dict[str, Any]:
        """Plain values, rounded for JSON."""

        def short(value: Any) -> Any:
            if isinstance(value, dict):
                return {k: round(v, 5) for k, v in value.items()}
            return [round(v, 5) for v in value] if isinstance(value, tuple) else value

        return {name: short(value) for name, value in asdict(self).items()}


def likelihood_ratios(first: Floats, second: Floats, *, own_sd: bool = False) -> tuple[Floats, Floats]:
    """log N(margin; first side) - log N(margin; second side) of every margin, fitted without the shadows it is from.

    LiRA (Carlini et al. 2022, arXiv 2112.03570) as U-LiRA plays it (Hayes et al. 2024, arXiv 2403.01218). Row p of either
    side is from pair p of shadows, and a margin is judged by Gaussians of the other pairs: so both sides are always
    fitted on as many models, and where nothing tells them apart the decision is a fair coin.

    Args:
        first: (P, N) margins of N records under models that unlearned them (or had them), in nats.
        second: (P, N) margins under models that never had them.
        own_sd: Take each record's own standard deviations instead of one a side (Carlini et al. advise one for all below
            64 models).

    Returns:
        (P, N) log ratios of the first side's margins and of the second's; above 0: judged to be of the first side.

    Raises:
        ValueError: The shapes differ, or there are fewer than three pairs.
    """
    if first.shape != second.shape or len(first) < 3:
        raise ValueError(
            f"two sides of equal shape with three pairs or more are needed, not {first.shape}, {second.shape}"
        )
    middle = (first.mean(axis=0) + second.mean(axis=0)) / 2  # near 0, sums of squares lose no digits
    sides = first - middle, second - middle
    one, other = (_fitted_without_each(side, own_sd) for side in sides)
    ratios = [_log_density(side, *one) - _log_density(side, *other) for side in sides]
    return ratios[0], ratios[1]


def _fitted_without_each(models: Floats, own_sd: bool) -> tuple[Floats, Floats]:
    """(P, N) means and sd of all rows but one, for each row."""
    rest = len(models) - 1
    mean = (models.sum(axis=0) - models) / rest
    variance = ((models**2).sum(axis=0) - models**2 - rest * mean**2) / (rest - 1)
    if not own_sd:
        variance = np.broadcast_to(variance.mean(axis=1, keepdims=True), variance.shape)
    return mean, np.sqrt(np.maximum(variance, _LEAST_SD**2))


def _log_density(values: Floats, mean: Floats, sd: Floats) -> Floats:
    return -np.log(sd) - 0.5 * ((values - mean) / sd) ** 2


def judged(first: Floats, second: Floats, *, resamples: int = 1000, seed: int = 0) -> Verdict:
    """Play the game on both sides' margins: see `likelihood_ratios` and `Verdict`.

    Args:
        first: (P, N) margins under models that unlearned the records (or had them), in nats.
        second: (P, N) margins under models that never had them.
        resamples: Resamples behind each interval.
        seed: Seed of the resamples.
    """
    pairs, records = first.shape
    ratios = likelihood_ratios(first, second)
    right = _right(*ratios)

    def over_records(statistic: Callable[..., float], *sides: Floats, draws: int = resamples) -> Interval:
        return bootstrap([records], lambda p: statistic(*(side[:, p[0]] for side in sides)), resamples=draws, seed=seed)

    spread = np.sqrt((first.var(axis=0, ddof=1).mean() + second.var(axis=0, ddof=1).mean()) / 2)
    apart = (first.mean(axis=0) - second.mean(axis=0))[None] / max(float(spread), _LEAST_SD)
    fewer = min(resamples, 200)  # these cost more, and no bar hangs on them
    return Verdict(
        decisions=2 * pairs * records,
        records=records,
        accuracy=over_records(np.mean, right),
        accuracy_own_sd=over_records(np.mean, _right(*likelihood_ratios(first, second, own_sd=True))),
        chance=_chance(first, second, fewer, seed),
        auc=over_records(lambda a, b: auc(a.ravel(), b.ravel()), *ratios, draws=fewer),
        hits=over_records(_hits, *ratios, draws=fewer) if pairs * records * FALSE_ALARMS >= 1 else None,
        shift=over_records(np.mean, apart),
    )


def _chance(first: Floats, second: Floats, draws: int, seed: int) -> tuple[float, float]:
    rng = np.random.default_rng(seed)
    found = []
    for _ in range(draws):
        swap = rng.random((len(first), 1)) < 0.5
        found.append(_right(*likelihood_ratios(np.where(swap, second, first), np.where(swap, first, second))).mean())
    low, high = np.quantile(found, [0.025, 0.975])
    return float(low), float(high)


def _right(first: Floats, second: Floats) -> Floats:
    """(P, N) share of the two decisions on a record in a pair of shadows that are right; a tie is half right."""
    return ((first > 0) + 0.5 * (first == 0) + (second < 0) + 0.5 * (second == 0)) / 2


def _hits(first: Floats, second: Floats) -> float:
    found = tpr_at_fpr(first.ravel(), second.ravel(), FALSE_ALARMS)
    assert found is not None  # there are enough decisions, see `judged`
    return found.value
