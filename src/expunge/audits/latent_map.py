"""Latent map: where forget records lie among retained ones, model by model."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.linalg import orthogonal_procrustes
from sklearn.decomposition import PCA

from expunge.audits.base import Audit, AuditContext, AuditResult
from expunge.options import PositiveInt, option

__all__ = ["LatentMap"]


@dataclass(frozen=True, kw_only=True)
class LatentMap(Audit):
    """Two principal components of the input of the last linear layer.

    Fitted on retained units of each model (its own space: a retrained model shares no axes with the original), then
    turned or mirrored onto the original's map so that the three can be read side by side. A picture, not a proof: no
    figure comes of it.
    """

    retain_points: PositiveInt = option(400, "retained units drawn, at most")
    forget_points: PositiveInt = option(300, "forget units drawn, at most")

    def run(self, context: AuditContext) -> AuditResult:
        reference: np.ndarray | None = None
        maps: dict[str, Any] = {}
        for model, tables in context.models.items():
            if not tables:
                continue
            retain, forget = tables[0]["retain"].hidden, tables[0]["forget"].hidden
            if min(retain.shape) < 2:
                return AuditResult(not_measured="needs at least two retained records and two latent dimensions")
            if float(retain.std(axis=0).max()) == 0:
                return AuditResult(not_measured=f"all retained records lie at one point in the {model} model")
            pca = PCA(n_components=2, random_state=0).fit(retain)
            flat, turned = pca.transform(retain), np.eye(2)
            if reference is None:
                reference = flat
            else:
                turned, _ = orthogonal_procrustes(flat, reference)
            maps[model] = {
                "retain": np.round(flat[: self.retain_points] @ turned, 3).tolist(),
                "forget": np.round(pca.transform(forget)[: self.forget_points] @ turned, 3).tolist(),
                "explained": round(float(pca.explained_variance_ratio_.sum()), 4),
            }
        return AuditResult(figure={"latent_map": maps})
