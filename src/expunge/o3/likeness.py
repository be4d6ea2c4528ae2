"""How unlike a request's records an input is: Mahalanobis and cosine distances in every layer, and one score from them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Self

import numpy as np

from expunge.errors import RunError

__all__ = ["Boundary", "Distances"]


@dataclass(frozen=True)
class _Arrays:
    """Plain arrays, as safetensors keeps them."""

    def arrays(self) -> dict[str, np.ndarray]:
        """Name -> array."""
        return {field.name: np.ascontiguousarray(getattr(self, field.name)) for field in fields(self)}

    @classmethod
    def of(cls, arrays: Mapping[str, np.ndarray]) -> Self:
        """What `arrays` gave, out of a mapping that may hold more."""
        return cls(**{field.name: arrays[field.name] for field in fields(cls)})


@dataclass(frozen=True)
class Distances(_Arrays):
    """Distance of states to those of n records, layer by layer: Mahalanobis plus gamma times cosine (Eq. 9 to 11).

    ``s(x)_l = d_Maha + gamma * d_Cos``, ``d_Maha = (x - mu)^T Sigma^-1 (x - mu)``, ``d_Cos = -max_i cos(x, x_i)``.

    The sign. In the paper, as others quote it, both terms grow with the distance. The authors' code has
    ``-1000 * max cos - 0.5 * Maha``: its second term falls with the distance, against the first. This is the paper's. What may
    stand behind the code's sign is `Boundary`'s matter: a linear one-class SVM separates from the origin, and in an encoder
    with states of about 1,000 numbers the paper's two terms cancel for the request's own records.

    Ours: the covariance is Ledoit and Wolf's (scikit-learn's), for every request: a request has fewer records than a state has
    numbers, and its plain covariance no inverse. How much it is shrunk follows from the records. It is kept as
    eigenvectors, which with n records are n - 1 at most.

    Attributes:
        means: (L, H) mean states.
        directions: (L, k, H) eigenvectors of the covariance.
        variances: (L, k) their eigenvalues.
        others: (L,) the eigenvalue of every other direction.
        known: (n, L, H) the records' states, each of length 1.
        gamma: () weight of the cosine term.
    """

    means: np.ndarray
    directions: np.ndarray
    variances: np.ndarray
    others: np.ndarray
    known: np.ndarray
    gamma: np.ndarray

    @classmethod
    def fit(cls, states: np.ndarray, gamma: float) -> Distances:
        """Distances to these records.

        Args:
            states: (n, L, H).
            gamma: Weight of the cosine term.

        Raises:
            RunError: In some layer all records have one and the same state.
        """
        from sklearn.covariance import ledoit_wolf_shrinkage

        states = states.astype(float)
        n, _, size = states.shape
        means, directions, variances, others = states.mean(axis=0), [], [], []
        for layer, mean in enumerate(means):
            around = states[:, layer] - mean
            average = float(np.square(around).sum() / n / size)
            if not average > 0:
                raise RunError(
                    "o3: the detector's encoder gives all records of the request one state; are they one text?"
                )
            shrinkage = float(ledoit_wolf_shrinkage(around, assume_centered=True))
            _, found, turned = np.linalg.svd(around, full_matrices=False)
            kept = min(max(n - 1, 1), size)
            directions.append(turned[:kept])
            variances.append((1 - shrinkage) * found[:kept] ** 2 / n + shrinkage * average)
            others.append(max(shrinkage * average, 1e-12 * average))
        return cls(
            means, np.stack(directions), np.maximum(np.stack(variances), np.array(others)[:, None]), np.array(others),
            _of_length_one(states), np.array(float(gamma)),
        )  # fmt: skip

    def mahalanobis(self, states: np.ndarray) -> np.ndarray:
        """(N, L) squared Mahalanobis distances of (N, L, H) states."""
        around = states.astype(float) - self.means
        along = np.einsum("nlh,lkh->nlk", around, self.directions)
        left = np.square(around).sum(axis=-1) - np.square(along).sum(axis=-1)
        return (np.square(along) / self.variances).sum(axis=-1) + np.maximum(left, 0) / self.others

    def of_states(self, states: np.ndarray) -> np.ndarray:
        """(N, L) distances of (N, L, H) states: larger is farther."""
        nearest = np.einsum("nlh,mlh->nlm", _of_length_one(states.astype(float)), self.known).max(axis=-1)
        return self.mahalanobis(states) - self.gamma * nearest


@dataclass(frozen=True)
class Boundary(_Arrays):
    """A linear one-class SVM on the vector of a record's distances: above 0 inside, the more the further in.

    Source: arXiv 2407.10223, which takes scikit-learn's with nu 0.1 and a linear kernel; such an SVM separates from the origin.

    Ours: in every layer distances are counted from the farthest of the request's own records, in units of their standard
    deviation, and turned round. So the origin is the far side in every encoder, and the SVM's score falls with every distance.

    Attributes:
        farthest: (L,) largest distance of the request's records.
        units: (L,) their standard deviation.
        vectors: (v, L) support vectors.
        coefficients: (v,) their dual coefficients.
        offset: () what is added.
    """

    farthest: np.ndarray
    units: np.ndarray
    vectors: np.ndarray
    coefficients: np.ndarray
    offset: np.ndarray

    @classmethod
    def fit(cls, used: np.ndarray, rest: np.ndarray, nu: float) -> Boundary:
        """A boundary around the records that distances were fitted on.

        Args:
            used: (n, L) their distances.
            rest: (m, L) distances of the request's other records, which say what is far.
            nu: Share of `used` that may be outside, at most.
        """
        from sklearn.svm import OneClassSVM

        every = np.concatenate([used, rest])
        spread = every.std(axis=0)
        farthest, units = every.max(axis=0), np.where(spread > 0, spread, 1.0)
        made: Any = OneClassSVM(nu=nu, kernel="linear").fit((farthest - used) / units)
        return cls(
            farthest, units, made.support_vectors_.astype(float), made.dual_coef_[0].astype(float),
            np.array(float(made.intercept_[0])),
        )  # fmt: skip

    def score(self, distances: np.ndarray) -> np.ndarray:
        """(N,) of (N, L) distances; no unit."""
        return (self.farthest - distances) / self.units @ self.vectors.T @ self.coefficients + self.offset


def _of_length_one(states: np.ndarray) -> np.ndarray:
    length = np.linalg.norm(states, axis=-1, keepdims=True)
    return states / np.where(length > 0, length, 1.0)
