"""Loss terms of unlearning methods for language models: pure functions of flat answer tokens.

Conventions: U units, each one answer token; R records; V tokens of the vocabulary; H features. `logp` (U,) is the
log-probability of each unit's label under the model, in nats, with its graph; `reference` the same under the original
model, without one. `record_index` (U,) says which record a unit belongs to: any integers, in any order. Every function
is finite without units, where means are 0 with their graph, and does not depend on the order of units. A function that
returns (U,) leaves the reduction to its caller. Plain ascent and KL need nothing from here: see `losses`.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

__all__ = [
    "by_record",
    "ceu",
    "dpo",
    "dual_step",
    "flatness",
    "held",
    "npo",
    "satimp_weights",
    "simnpo",
    "steered",
    "undial",
    "wga_weights",
]


def by_record(values: Tensor, record_index: Tensor) -> tuple[Tensor, Tensor]:
    """Sums over the units of each record, in ascending order of its index; records without units are not among them.

    Args:
        values: (U,).
        record_index: (U,) integers.

    Returns:
        (R,) sums, of the dtype of `values` and with its graph; and (R,) int64 counts of units, each at least 1.
    """
    records, place, counts = record_index.unique(return_inverse=True, return_counts=True)
    return values.new_zeros(len(records)).index_add(0, place, values), counts


def npo(logp: Tensor, reference: Tensor, record_index: Tensor, beta: float) -> Tensor:
    """Negative preference optimisation (Zhang et al., arXiv 2404.05868, Eq. 3).

    With s_r the sum over record r of ``logp - reference``, the log of pi(y|x) / pi_ref(y|x)::

        L = 1/R sum_r -(2/beta) log sigmoid(-beta s_r)

    Each token of r has gradient w_r / R, where w_r = 2 sigmoid(beta s_r) is 1 at the original model and falls to 0 once
    the record is forgotten. As beta goes to 0, w_r goes to 1 everywhere: gradient ascent on the answers' summed
    log-probabilities, though the loss itself grows as (2/beta) log 2 (Proposition 1).

    Args:
        logp: (U,).
        reference: (U,).
        record_index: (U,).
        beta: Inverse temperature, above 0.

    Returns:
        Scalar, mean over records, in nats.
    """
    ratio, _ = by_record(logp - reference, record_index)
    return _preference(-ratio, beta)


def simnpo(logp: Tensor, record_index: Tensor, beta: float, delta: float) -> Tensor:
    """Simple negative preference optimisation (Fan et al., arXiv 2410.07163): by length, and without a reference.

    With m_r the mean over record r of ``logp``::

        L = 1/R sum_r -(2/beta) log sigmoid(beta (-m_r - delta))

    The paper's margin is ``gamma = beta delta``: it writes ``sigmoid(-beta m_r - gamma)``. The sign is the same; the
    scale here is that of the authors' code and of OpenUnlearning, whose published values it takes. A record of mean
    loss `delta` is at the middle of the sigmoid: below it, it is pushed nearly in full; well above it, no longer.

    Args:
        logp: (U,).
        record_index: (U,).
        beta: Inverse temperature, above 0.
        delta: Margin, in nats a token.

    Returns:
        Scalar, mean over records, in nats.
    """
    sums, counts = by_record(logp, record_index)
    return _preference(-sums / counts - delta, beta)


def dpo(
    chosen: Tensor,
    chosen_reference: Tensor,
    chosen_index: Tensor,
    rejected: Tensor,
    rejected_reference: Tensor,
    rejected_index: Tensor,
    beta: float,
) -> Tensor:
    """Direct preference optimisation (Rafailov et al., arXiv 2305.18290, Eq. 7), for a refusal or another answer.

    TOFU (arXiv 2401.06121) prefers "I don't know" to the answer to erase. With a_r and b_r the sums over record r of
    model minus original log-probability, of the chosen and of the rejected answer::

        L = 1/R sum_r -(2/beta) log sigmoid(beta (a_r - b_r))

    Eq. 7 and TOFU's code have 1 in place of 2/beta. Here it is as in NPO's code and OpenUnlearning, so that a loss at
    the original model has slope 1 whatever beta is, and so that `npo` is this loss without chosen answers: divide by
    2/beta for Eq. 7. A record with one of the two answers alone counts the other as unchanged.

    Args:
        chosen: (U,) log-probabilities of the tokens of preferred answers, in nats.
        chosen_reference: (U,) the same under the original model.
        chosen_index: (U,) their records.
        rejected: (U',) log-probabilities of the tokens of answers to erase, in nats.
        rejected_reference: (U',) the same under the original model.
        rejected_index: (U',) their records, the same as those of `chosen_index`.
        beta: Inverse temperature, above 0.

    Returns:
        Scalar, mean over records, in nats; (2/beta) log 2 at the original model.
    """
    # One sum over both answers: no record can be paired with another's, whatever the indices hold.
    margin, _ = by_record(
        torch.cat([chosen - chosen_reference, rejected_reference - rejected]),
        torch.cat([chosen_index, rejected_index]),
    )
    return _preference(margin, beta)


def undial(logits: Tensor, reference_logits: Tensor, labels: Tensor, strength: float) -> Tensor:
    """Self-distillation from adjusted logits, UNDIAL (Dong et al., arXiv 2402.10052).

    ``L_u = -sum_v q_u(v) log p_u(v)`` with ``q = softmax(reference_logits - strength onehot(label))``. A cross-entropy:
    as in the authors' code, the entropy of q is not subtracted, so that the least value is that entropy and not 0. The
    gradient by logits, p - q, is that of KL(q || p). A strength of 0 holds the model where the original is.

    Args:
        logits: (U, V), with their graph.
        reference_logits: (U, V) of the original model.
        labels: (U,) tokens to erase.
        strength: What is taken off the label's logit, in nats.

    Returns:
        (U,) losses in nats.
    """
    place = labels.unsqueeze(-1)
    taken = torch.full_like(place, -strength, dtype=reference_logits.dtype)
    return functional.cross_entropy(
        logits, reference_logits.detach().scatter_add(-1, place, taken).softmax(dim=-1), reduction="none"
    )


def ceu(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy unlearning, CE-U (Yang, arXiv 2503.01224): toward the model's own distribution without the label.

    ``L_u = -sum_v q_u(v) log p_u(v)`` with ``q = softmax(logits, the label's set to -inf)``, held constant. Since
    ``q_v = p_v / (1 - p_label)``, the gradient by logits, p - q, is that of ``-log(1 - p_label)``, the token
    unlikelihood loss (Welleck et al., arXiv 1908.04319), without its instability at p = 1. As in `undial`, the entropy
    of q is not subtracted. The paper leaves out the first tokens of an answer: that is the caller's choice.

    Args:
        logits: (U, V) with V at least 2, with their graph.
        labels: (U,) tokens to erase.

    Returns:
        (U,) losses in nats.
    """
    target = logits.detach().scatter(-1, labels.unsqueeze(-1), float("-inf")).softmax(dim=-1)
    return functional.cross_entropy(logits, target, reduction="none")


def wga_weights(logp: Tensor, beta: float) -> Tensor:
    """(U,) weights p^beta of weighted gradient ascent, WGA (Wang et al., arXiv 2502.19301), without a graph.

    The loss is the mean over units of ``weight * logp``: the weight cancels the 1/p by which ascent grows on tokens that
    are already unlikely. `beta` is at least 0; 0 is plain ascent.
    """
    return (beta * logp.detach()).exp()


def satimp_weights(logp: Tensor, beta1: float, beta2: float) -> Tensor:
    """(U,) weights p^beta1 (1 - p)^beta2 of SatImp (Yang et al., arXiv 2505.11953), without a graph.

    The loss is the mean over units of ``weight * logp``. The weight is greatest at p = beta1 / (beta1 + beta2): saturation
    (`beta1`) spares tokens that are already unlikely, importance (`beta2`) those that are certain. Both are at least 0;
    with `beta2` 0 this is `wga_weights`.
    """
    # 1 - p by expm1, for p near 1; a log-probability that rounding left above 0 has p = 1.
    return (beta1 * logp.detach()).exp() * (-logp.detach().expm1()).clamp(min=0) ** beta2


def flatness(logits: Tensor) -> Tensor:
    """(U,) squared margins of the greatest logit over the mean of (U, V) logits, in nats squared; 0 if all are equal.

    The logit-margin flattening term of constrained entropic unlearning, PDU (Entesari et al., arXiv 2506.05314):
    ``(max_v z_v - 1/V sum_v z_v)^2``. It needs no softmax, and no label: it pulls toward the uniform distribution.
    """
    return (logits.amax(dim=-1) - logits.mean(dim=-1)).square()


def dual_step(multiplier: Tensor, violation: Tensor, rate: float) -> Tensor:
    """The next multiplier of a constraint: ``max(0, multiplier + rate violation)``, without a graph.

    The dual ascent of PDU (Entesari et al., arXiv 2506.05314), whose Lagrangian is ``forget + multiplier violation`` with
    ``violation = CE(retain) - epsilon``, in nats: the multiplier rises while the constraint is broken, and falls, down
    to 0, while it holds.
    """
    return (multiplier + rate * violation).detach().clamp(min=0)


def steered(hidden: Tensor, direction: Tensor, coefficient: float) -> Tensor:
    """Representation misdirection, RMU (Li et al., arXiv 2403.03218): the forget term.

    ``1/H ||hidden_u - coefficient direction||^2``. The paper has no 1/H; its authors' code and OpenUnlearning have it, so
    that one weight suits models of different widths.

    Args:
        hidden: (U, H) hidden states of one layer, with their graph.
        direction: (H,) fixed random direction of length 1.
        coefficient: Length of what the states are steered to.

    Returns:
        (U,) mean squared distances over features.
    """
    return (hidden - coefficient * direction).square().mean(dim=-1)


def held(hidden: Tensor, reference: Tensor) -> Tensor:
    """(U,) mean squared distances over features of (U, H) hidden states to those of the original model.

    The retain term of RMU (Li et al., arXiv 2403.03218), by 1/H as in `steered`.
    """
    return (hidden - reference.detach()).square().mean(dim=-1)


def _preference(margin: Tensor, beta: float) -> Tensor:
    """Mean over records of -(2/beta) log sigmoid(beta margin), for (R,) margins in nats; 0 without records."""
    return -2 / beta * functional.logsigmoid(beta * margin).sum() / max(1, len(margin))
