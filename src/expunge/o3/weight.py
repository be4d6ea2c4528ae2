"""How far to load the adapters for an input, from where its score lies among those of the request's own records."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy.special import expit, ndtr

__all__ = ["Mixture"]


@dataclass(frozen=True)
class Mixture:
    """Scores of a request's records as two normal distributions of equal weight and spread (arXiv 2407.10223, Eq. 13).

    Ours: the spread is that of both groups, pooled. The authors' code takes the second's alone; of the two to ten records that
    a small request leaves there it may be next to nothing, and the request's own records then count as foreign.

    Attributes:
        used: Mean score of the records that the detector was fitted on.
        rest: Mean score of the request's other records.
        spread: Standard deviation of both.
        zeta: How sharply the weight falls.
        least: Where it falls to: ``zero`` (ours), or ``paper``, sigmoid(-2).
    """

    used: float
    rest: float
    spread: float
    zeta: float
    least: Literal["zero", "paper"] = "zero"

    @property
    def centre(self) -> float:
        """x0: where the two meet."""
        return (self.used + self.rest) / 2

    def cdf(self, scores: np.ndarray) -> np.ndarray:
        """Share of the mixture at or below each score."""
        return (ndtr((scores - self.used) / self.spread) + ndtr((scores - self.rest) / self.spread)) / 2

    def weight(self, scores: np.ndarray) -> np.ndarray:
        """``v = sigmoid(zeta * (1 - max(F(x), F(x')) + min(F(x), F(x'))) - 2)`` with ``x' = 2 x0 - x``, in [0, 1].

        The same on both sides of the centre, where v is ``sigmoid(zeta - 2)``; it falls with the distance from there, in the
        paper to ``sigmoid(-2) = 0.12`` and no further: what is far from every request loads an eighth of the adapters. Ours is
        ``(v - sigmoid(-2)) / (sigmoid(zeta - 2) - sigmoid(-2))``: from 1 at the centre to 0.
        """
        scores = np.asarray(scores, dtype=float)
        here, there = self.cdf(scores), self.cdf(2 * self.centre - scores)
        found = expit(self.zeta * (1 - np.maximum(here, there) + np.minimum(here, there)) - 2)
        if self.least == "paper":
            return found
        lowest, highest = expit(-2.0), expit(self.zeta - 2)
        return np.clip((found - lowest) / (highest - lowest), 0.0, 1.0)
