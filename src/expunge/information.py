"""How much a token tells: what is common in the retained data tells little of a record."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.methods.base import MethodContext

__all__ = ["information"]


def information(context: MethodContext) -> Tensor:
    """(U,) weights of the forget units, mean 1: the surprisal of each token among the answers of the retained records.

    ``w_u proportional to -log((n_v + 1) / (n + V))`` for token v, which occurs n_v times among n, of a vocabulary of V.
    """
    import torch

    seen = np.bincount(context.retain.flat_labels, minlength=context.classes)
    share = (seen + 1) / (seen.sum() + context.classes)
    weights = -np.log(share[np.array(context.forget.flat_labels)])
    return torch.tensor(weights / weights.mean(), dtype=torch.float32)
