"""Latent map: where forget records lie among retained ones, model by model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA

from expunge.audits.base import Audit, AuditContext, AuditResult
from expunge.options import PositiveInt, option
from expunge.scoring import ScoreTable

__all__ = ["LatentMap"]


@dataclass(frozen=True, kw_only=True)
class LatentMap(Audit):
    """The input of the last linear layer, seen in one projection: two principal components of the original's.

    Every model has its own space: a retrained one shares no axes with the original. So the retained units of each model,
    centred, are first turned onto the original's (orthogonal Procrustes over all dimensions: distances stay), and then all
    are seen from the same side. One class is marked, the commonest among the forget units (among a tagger's words the
    commonest apart from the one most words have): its forget units against its retained ones. A picture, not a proof: no
    figure comes of it.
    """

    retain_points: PositiveInt = option(400, "retained units drawn, at most")
    forget_points: PositiveInt = option(300, "forget units drawn, at most")

    def run(self, context: AuditContext) -> AuditResult:
        first = {model: tables[0] for model, tables in context.models.items() if tables}
        for model, tables in first.items():
            retain = tables["retain"].hidden
            if min(retain.shape) < 2:
                return AuditResult(not_measured="needs at least two retained records and two latent dimensions")
            if not np.ptp(retain, axis=0).any():  # a standard deviation would be rounded to something
                return AuditResult(not_measured=f"all retained records lie at one point in the {model} model")
        width = max(tables["retain"].hidden.shape[1] for tables in first.values())
        reference = _centred(first["original"]["retain"], width)[0]
        axes = np.asarray(PCA(n_components=2, random_state=0).fit(reference).components_).T
        maps: dict[str, Any] = {}
        for model, tables in first.items():
            retain, centre = _centred(tables["retain"], width)
            seen = axes if model == "original" else orthogonal_procrustes(retain, reference)[0] @ axes
            flat = retain @ seen
            forget = (_wide(tables["forget"], width) - centre) @ seen
            maps[model] = {
                "retain": np.round(flat[: self.retain_points], 3).tolist(),
                "forget": np.round(forget[: self.forget_points], 3).tolist(),
                "explained": round(float(flat.var(axis=0).sum() / retain.var(axis=0).sum()), 4),
            }
        same = _commonest(first["original"]["forget"])
        maps["same_class"] = {
            group: (first["original"][group].labels[:most] == same).astype(int).tolist()
            for group, most in (("retain", self.retain_points), ("forget", self.forget_points))
        }
        return AuditResult(figure={"latent_map": maps})


def _wide(table: ScoreTable, width: int) -> NDArray[Any]:
    """(U, width) hidden states; those of a narrower model have zeros behind."""
    return np.pad(table.hidden, ((0, 0), (0, width - table.hidden.shape[1])))


def _centred(table: ScoreTable, width: int) -> tuple[NDArray[Any], NDArray[Any]]:
    states = _wide(table, width)
    centre = states.mean(axis=0)
    return states - centre, centre


def _commonest(table: ScoreTable) -> int:
    """The commonest class; of words the commonest but one, where there are two."""
    classes, counts = np.unique(table.labels, return_counts=True)
    order = classes[np.argsort(-counts, kind="stable")]
    return int(order[1] if table.several_units and len(order) > 1 else order[0])
