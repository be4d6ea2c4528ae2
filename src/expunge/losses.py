"""Loss terms shared by methods: pure functions of similarities and masks.

Conventions: A anchors, P partners; similarities are cosines, (A, P); masks are boolean, (A, P); `tau` is the
temperature. Every function is finite for any mask, keeps gradients of masked entries at exactly zero, and does not
depend on the order of partners.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "contrastive_unlearning",
    "cosine",
    "kl",
    "masked_logsumexp",
    "mean_over",
    "mixed_similarities",
    "reversed_focl",
    "soft_contrastive",
]


def cosine(anchors: Tensor, partners: Tensor) -> Tensor:
    """(A, P) cosine similarities of (A, H) anchors and (P, H) partners."""
    return functional.normalize(anchors, dim=-1) @ functional.normalize(partners, dim=-1).T


def masked_logsumexp(values: Tensor, mask: Tensor) -> Tensor:
    """log sum exp over the last dimension where `mask` holds; -inf, with zero gradient, for rows without any."""
    empty = ~mask.any(dim=-1)
    # A row without entries is computed on zeros and replaced: log-sum-exp of only -inf has a NaN gradient.
    safe = torch.where(empty.unsqueeze(-1), torch.zeros_like(values), values.masked_fill(~mask, float("-inf")))
    return torch.where(empty, torch.full_like(safe[..., 0], float("-inf")), safe.logsumexp(dim=-1))


def reversed_focl(
    similarity: Tensor, same: Tensor, other: Tensor, tau: float, mixed: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Focused contrastive loss with the roles reversed: pull toward other classes, push away from the same class.

    For anchor i with same-class partners P_i, other-class partners N_i and mixed hard partners M_i::

        L_i = -1/|N_i| sum_{n in N_i} log[ e^(s_in/tau) / ( e^(s_in/tau) + sum_{p in P_i} e^(s_ip/tau) + E_m ) ]
        E_m = sum_{m in M_i} e^(s_im/tau)

    FoCL is Eq. 16 of He et al., IEEE TKDE 36(7), 2024, doi 10.1109/TKDE.2023.3327777; DeepCUT (arXiv 2503.14900)
    swaps its roles. The swapped form is our reconstruction: the paper's own equation is not public.

    Args:
        similarity: (A, P).
        same: (A, P) same-class partners.
        other: (A, P) other-class partners.
        tau: Temperature, above 0.
        mixed: (A, M) similarities to mixed hard partners, all used; -inf where there is none.

    Returns:
        (A,) losses in nats, 0 for an anchor without other-class partners and for one with neither same-class nor
        mixed partners; and (A,) bool, whether the anchor has other-class partners and so counts.
    """
    scaled = similarity / tau
    pushed = masked_logsumexp(scaled, same)
    if mixed is not None and mixed.shape[1]:
        mixed_sum = masked_logsumexp(mixed / tau, torch.isfinite(mixed))
        pair = torch.stack([pushed, mixed_sum], dim=-1)
        pushed = masked_logsumexp(pair, torch.isfinite(pair))
    counts = other.sum(dim=-1)
    # -log[e^a / (e^a + e^b)] = softplus(b - a); b = -inf (nothing to push from) gives exactly 0.
    nothing = torch.isinf(pushed)
    difference = torch.where(nothing, torch.zeros_like(pushed), pushed).unsqueeze(-1) - scaled
    terms = torch.where(other & ~nothing.unsqueeze(-1), functional.softplus(difference), torch.zeros_like(scaled))
    return terms.sum(dim=-1) / counts.clamp(min=1), counts > 0


def mixed_similarities(
    anchors: Tensor, partners: Tensor, similarity: Tensor, same: Tensor, count: int, alpha: float
) -> Tensor:
    """Similarities of anchors to pseudo-partners mixed from the anchor and its most similar same-class partners.

    ``o_m = norm(a o_i + (1 - a) o_h)`` with h among the `count` hardest of the same class (FoCL, Eq. 15, takes the
    hardest of the other classes: with the roles reversed it is the same class that is pushed away). FoCL draws ``a``
    at random in (0, alpha); here the m-th of M values is ``alpha (m + 1/2) / M``, the midpoints of M equal strata, so
    that the loss stays a pure function.

    Returns:
        (A, M) similarities with M = min(count, P); -inf where an anchor has fewer same-class partners.
    """
    hardest = min(count, partners.shape[0])
    ranked = similarity.detach().masked_fill(~same, float("-inf"))
    top, index = ranked.topk(hardest, dim=-1)
    weights = alpha * (torch.arange(hardest, device=anchors.device, dtype=anchors.dtype) + 0.5) / hardest
    own = functional.normalize(anchors, dim=-1).unsqueeze(1)
    hard = functional.normalize(partners, dim=-1)[index]
    mixed = functional.normalize(weights[None, :, None] * own + (1 - weights)[None, :, None] * hard, dim=-1)
    return (own * mixed).sum(dim=-1).masked_fill(torch.isinf(top), float("-inf"))


def contrastive_unlearning(
    similarity: Tensor, same: Tensor, other: Tensor, tau: float, *, class_form: bool = False
) -> tuple[Tensor, Tensor]:
    """Contrastive Unlearning (Lee et al., arXiv 2401.10458).

    Sample form (Eq. 5)::  L_i = -1/|N_i| sum_{a in N_i} log[ e^(s_ia/tau) / sum_{p in P_i} e^(s_ip/tau) ]
    Class form (Eq. 6):  the denominator is |N_i|, since erasing a class leaves no same-class partner.

    Where the sample form meets an anchor without same-class partners, it uses the class form (the authors' code
    returns -inf there); an anchor without other-class partners gives 0 and does not count.

    Returns:
        (A,) losses in nats; and (A,) bool, whether the anchor counts.
    """
    scaled = similarity / tau
    counts = other.sum(dim=-1)
    toward = torch.where(other, scaled, torch.zeros_like(scaled)).sum(dim=-1) / counts.clamp(min=1)
    away = masked_logsumexp(scaled, same)
    constant = torch.log(counts.clamp(min=1).to(scaled.dtype))
    away = constant if class_form else torch.where(torch.isinf(away), constant, away)
    has_other = counts > 0
    return torch.where(has_other, away - toward, torch.zeros_like(toward)), has_other


def soft_contrastive(similarity: Tensor, wanted: Tensor, classes: Tensor, tau: float) -> tuple[Tensor, Tensor]:
    """Contrastive loss toward partners weighted by a wanted class distribution.

    For anchor i, with q_i(c) the wanted probability of class c, n_c the partners of class c, and both sides over classes
    that have partners::

        L_i = - sum_c q_i(c) log[ (1/n_c) sum_{p in c} e^(s_ip/tau) / sum_c' (1/n_c') sum_{p in c'} e^(s_ip/tau) ]

    Its minimum over similarities is where the classes' mean similarities stand to each other as q does, so that it comes to
    rest there and pushes no further.

    Args:
        similarity: (A, P).
        wanted: (A, P) log q_i of each partner's class.
        classes: (P,) classes of the partners.
        tau: Temperature, above 0.

    Returns:
        (A,) losses in nats; and (A,) bool, whether the anchor has partners of two classes and so counts.
    """
    if not len(classes):
        empty = similarity.new_zeros(len(similarity))
        return empty, empty.bool()
    present, place = classes.unique(return_inverse=True)
    member = torch.nn.functional.one_hot(place, len(present)).T.bool()  # (K, P)
    sizes = member.sum(dim=1).to(similarity.dtype).log()
    spread = (similarity / tau)[:, None, :].expand(-1, len(present), -1)
    of_class = masked_logsumexp(spread, member.expand(len(similarity), -1, -1)) - sizes
    first = member.int().argmax(dim=1)
    share = wanted[:, first].to(similarity.dtype).log_softmax(dim=1).exp()
    terms = -(share * of_class.log_softmax(dim=1)).sum(dim=1)
    return terms, torch.full_like(terms, len(present) > 1, dtype=torch.bool)


def kl(p: Tensor, q: Tensor) -> Tensor:
    """Mean over units of KL(p || q), in nats, for (U, C) logits of each, of one dtype; 0 without units."""
    return functional.kl_div(q.log_softmax(dim=-1), p.log_softmax(dim=-1), reduction="sum", log_target=True) / max(
        1, len(p)
    )


def mean_over(values: Tensor, counts: Tensor, classes: Tensor | None = None, weights: Tensor | None = None) -> Tensor:
    """Mean of `values` where `counts` holds; 0, with its graph, where none does.

    Args:
        values: (A,).
        counts: (A,) bool.
        classes: (A,) classes; where given, the mean over the classes of each one's mean.
        weights: (A,) weights of a mean over values; not with classes.
    """
    kept = torch.where(counts, values, torch.zeros_like(values))
    if weights is not None:
        own = weights.to(kept) * counts
        return (kept * own).sum() / own.sum().clamp(min=1e-12)
    if classes is None or not len(classes):
        return kept.sum() / counts.sum().clamp(min=1)
    size = int(classes.max()) + 1
    sums = kept.new_zeros(size).index_add(0, classes, kept)
    of_each = torch.zeros(size, dtype=kept.dtype, device=kept.device).index_add(0, classes, counts.to(kept.dtype))
    return (sums / of_each.clamp(min=1)).sum() / (of_each > 0).sum().clamp(min=1)
