"""Does an input belong to a request, and how far are the adapters to be loaded for it? One detector a request."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

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
    def fit(
        cls, used: np.ndarray, rest: np.ndarray, *, gamma: float, nu: float, zeta: float,
        layers: Literal["last", "all"], least: Literal["zero", "paper"],
    ) -> Detector:  # fmt: skip
        """A detector from (n, L, H) and (m, L, H) states of the two parts of a request.

        The parts say how far records of its kind lie that were not fitted on. Ours: with boundary and mixture known, distances
        are taken from all records, so that no record of the request itself is far.

        Args:
            used: States that distances and boundary are fitted on.
            rest: States of the request's other records.
            gamma: As in `Distances`.
            nu: As in `Boundary`.
            zeta: As in `Mixture`.
            layers: Those it looks at: all, as in the paper, or the last alone.
            least: As in `Mixture`.

        Raises:
            RunError: The records are all alike.
        """
        if layers == "last":
            used, rest = used[:, -1:], rest[:, -1:]
        distances = Distances.fit(used, gamma)
        near, further = distances.of_states(used), distances.of_states(rest)
        boundary = Boundary.fit(near, further, nu)
        first, second = boundary.score(near), boundary.score(further)
        spread = float(np.sqrt((first.var(ddof=1) + second.var(ddof=1)) / 2))
        if not spread > 0:
            raise RunError("o3: the detector gives all records of the request one score; are they one text?")
        distances = Distances.fit(np.concatenate([used, rest]), gamma)
        return cls(distances, boundary, Mixture(float(first.mean()), float(second.mean()), spread, zeta, least))

    def weights(self, states: np.ndarray) -> np.ndarray:
        """(N,) how far to load the adapters for inputs with these (N, L, H) states, in [0, 1]."""
        looked_at = states[:, -len(self.distances.means) :]
        return self.mixture.weight(self.boundary.score(self.distances.of_states(looked_at)))

    def arrays(self) -> dict[str, np.ndarray]:
        """All of it as plain arrays of float64."""
        mixture = self.mixture
        numbers = np.array([mixture.used, mixture.rest, mixture.spread, mixture.zeta, float(mixture.least == "zero")])
        return {**self.distances.arrays(), **self.boundary.arrays(), "mixture": numbers}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Detector:
        """What `arrays` gave."""
        *numbers, to_zero = (float(number) for number in arrays["mixture"])
        mixture = Mixture(*numbers, least="zero" if to_zero else "paper")
        return cls(Distances.of(arrays), Boundary.of(arrays), mixture)


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
