"""Does an input belong to a request, and how far are the adapters to be loaded for it? One detector a request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from expunge.errors import Problem, RunError
from expunge.o3.likeness import Boundary, Distances
from expunge.o3.weight import Mixture

__all__ = ["LEAST", "USED", "Detector", "parted", "too_few"]

USED = 0.8
"""Share of a request's records that distances and boundary are fitted on; the others say how its unseen records score."""
LEAST = 10
"""Records that a request must have: two of ten are left to take a standard deviation of."""


@dataclass(frozen=True)
class Detector:
    """What one request's detector knows.

    Attributes:
        distances: From the states of its records.
        boundary: Around them.
        mixture: Their scores.
    """

    distances: Distances
    boundary: Boundary
    mixture: Mixture

    @classmethod
    def fit(cls, used: np.ndarray, rest: np.ndarray, *, gamma: float, nu: float, zeta: float) -> Detector:
        """A detector from (n, L, H) and (m, L, H) states of the two parts of a request.

        Raises:
            RunError: The records are all alike.
        """
        distances = Distances.fit(used, gamma)
        near, further = distances.of_states(used), distances.of_states(rest)
        boundary = Boundary.fit(near, further, nu)
        first, second = boundary.score(near), boundary.score(further)
        spread = max(float(first.std(ddof=1)), float(second.std(ddof=1)))
        if not spread > 0:
            raise RunError("o3: the detector gives all records of the request one score; are they one text?")
        return cls(distances, boundary, Mixture(float(first.mean()), float(second.mean()), spread, zeta))

    def weights(self, states: np.ndarray) -> np.ndarray:
        """(N,) how far to load the adapters for inputs with these (N, L, H) states, in (0, 1)."""
        return self.mixture.weight(self.boundary.score(self.distances.of_states(states)))

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as plain arrays of float64."""
        mixture = self.mixture
        numbers = np.array([mixture.used, mixture.rest, mixture.spread, mixture.zeta])
        return {**self.distances.arrays(), **self.boundary.arrays(), "mixture": numbers}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Detector:
        """What `arrays` gave."""
        numbers = [float(number) for number in arrays["mixture"]]
        return cls(Distances.of(arrays), Boundary.of(arrays), Mixture(*numbers))


def parted(ids: Sequence[str], seed: int) -> tuple[list[int], list[int]]:
    """Positions of a request's records to fit on and of the others: by a hash of seed and id, so that order is nothing."""
    order = sorted(range(len(ids)), key=lambda i: hashlib.sha256(f"{seed}|{ids[i]}".encode()).digest())
    cut = round(USED * len(order))
    return sorted(order[:cut]), sorted(order[cut:])


def too_few(records: int) -> list[Problem]:
    """What keeps a request of so many records from having a detector."""
    if records >= LEAST:
        return []
    what = f"the request has {records} record{'s' if records != 1 else ''}, too few to fit a detector of such records"
    return [Problem("request", what, f"Give {LEAST} or more at once, or use a method without a detector.")]
