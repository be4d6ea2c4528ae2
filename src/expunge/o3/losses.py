"""The losses of O3: adapters that keep out of each other's way, and an encoder that knows the request's records."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

__all__ = ["contrastive_entropy", "overlap"]


def overlap(current: Sequence[Tensor], earlier: Sequence[Sequence[Tensor]]) -> Tensor:
    """How far a new adapter writes (or reads) where earlier ones do: sum over layers and requests of ``||P^T C||_F^2``.

    Source: O3's L_Orth (arXiv 2407.10223, Eq. 6). The paper states it for the up-projection (A in its ``A B h``) and the
    request before; the authors' code sums it over all earlier requests, on the down-projection. This is the sum over all, of
    whichever projection it is given.

    Args:
        current: For each layer the (d, r) projection of the new adapter, its r directions as columns.
        earlier: For each earlier request the same of its adapter, (d, r') each.

    Returns:
        A scalar, 0 where no directions meet; no unit.
    """
    total = current[0].new_zeros(())
    for request in earlier:
        for one, other in zip(current, request, strict=True):
            total = total + (other.T @ one).square().sum()
    return total


def contrastive_entropy(masked: Tensor, originals: Tensor) -> Tensor:
    """Entropy of what each record's masked view resembles among the batch's originals, layer by layer (Eq. 7).

    ``L_CEL = - sum_i sum_l sum_j D(i,l,j) log D(i,l,j)``, with ``D(i,l,.) = softmax_j(masked[i,l] . originals[j,l])``. Small
    where every view resembles one record and no other.

    Source: arXiv 2407.10223, Eq. 7. Nothing in it says that the one must be the view's own record.

    Args:
        masked: (B, L, H) states of masked views, by the encoder that is trained.
        originals: (B, L, H) states of the records themselves, by the frozen encoder.

    Returns:
        A scalar in nats, between 0 and ``B L log B``.
    """
    logp = torch.einsum("ilh,jlh->ilj", masked, originals).log_softmax(dim=-1)
    return -(logp.exp() * logp).sum()
