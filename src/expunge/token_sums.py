"""Terms over tokens whose logits are made once: the gradient is taken in the sweep that makes them, part by part.

Checkpointing (`expunge.token_head.in_parts`) would make every part's logits a second time on the way back. The output layer
of a small model is a fifth of its arithmetic, so that alone would be a fifteenth of a step.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.token_head import TokenHead, in_parts, part_sizes

__all__ = ["cross_entropy", "label_logp", "made_once", "summed"]

_KEPT = 2**26
"""Probabilities kept for the gradient at most: 256 MiB in float32. What lies beyond is made again."""
_ONCE = "terms over tokens keep what their gradient needs for one backward pass; take them anew for another."


def made_once(head: Any) -> bool:
    """Whether the head's logits hang on its inputs and on a plain linear layer's parameters alone, as is asked for here."""
    module = getattr(head, "module", None)
    return (
        type(head) is TokenHead
        and type(module) is nn.Linear
        and type(module.weight) is nn.Parameter
        and not module._forward_hooks
        and not module._forward_pre_hooks
        and not torch.is_autocast_enabled(module.weight.device.type)
    )


def summed(head: TokenHead, function: Callable[..., Tensor], hidden: Tensor, *rows: Tensor) -> tuple[Tensor, Tensor]:
    """Sum over units of ``function(logits, *rows)``, with a gradient; and its terms, without one.

    Args:
        head: A head that is `made_once`.
        function: Takes (n, V) logits and n rows of each of `rows`, gives (n,).
        hidden: (U, H) inputs of the output layer.
        rows: (U, ...) each, without a gradient.

    Returns:
        Scalar, and (U,).
    """
    if not torch.is_grad_enabled():
        terms = [function(_logits(head, hidden[p]), *(r[p] for r in rows)) for p in _parts(head, hidden)]
        found = torch.cat(terms) if terms else hidden.new_zeros(0)
        return found.sum(), found
    return _Summed.apply(head, function, rows, hidden, *head.module.parameters())  # pyright: ignore


def label_logp(head: TokenHead, hidden: Tensor, labels: Tensor) -> Tensor:
    """(U,) log-probabilities of labels, in nats, with a gradient that may weigh each unit as it likes.

    Args:
        head: A head that is `made_once`.
        hidden: (U, H) inputs of the output layer.
        labels: (U,).
    """
    return _LabelLogp.apply(head, hidden, labels, *head.module.parameters())  # pyright: ignore


def cross_entropy(head: Any, outputs: tuple[Tensor, Tensor | None], labels: Tensor) -> Tensor:
    """Mean negative log-probability of (U,) labels, in nats, from what a head's `run` gives: of tokens in parts."""
    hidden, logits = outputs
    if logits is not None:
        return functional.cross_entropy(logits, labels)
    if made_once(head):
        return summed(head, _losses, hidden, labels)[0] / len(labels)

    def of(hidden: Tensor, labels: Tensor) -> Tensor:
        return _losses(head.logits(hidden), labels)

    return in_parts(of, len(labels), head.module.out_features, hidden, labels).mean()


def _losses(logits: Tensor, labels: Tensor) -> Tensor:
    return functional.cross_entropy(logits, labels, reduction="none")


def _logits(head: TokenHead, hidden: Tensor) -> Tensor:
    """As the head makes them, past hooks that watch all modules: those of profilers want no gradient within a pass."""
    layer = head.module
    found = functional.linear(hidden.to(layer.weight.dtype), layer.weight, layer.bias)
    return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found


def _parts(head: TokenHead, hidden: Tensor) -> list[slice]:
    return list(part_sizes(len(hidden), head.module.out_features, hidden.device))


class _Summed(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any,
        head: TokenHead,
        function: Callable[..., Tensor],
        rows: tuple[Tensor, ...],
        hidden: Tensor,
        *own: Tensor,
    ) -> tuple[Tensor, Tensor]:
        sums = _Gradients(head, hidden, ctx.needs_input_grad[3:])
        terms = []
        for part in _parts(head, hidden):
            logits = _logits(head, hidden[part]).requires_grad_(sums.wanted)
            with torch.enable_grad():
                found = function(logits, *(row[part] for row in rows))
                whole = found.sum()
            terms.append(found.detach())
            if sums.wanted:
                sums.add(part, torch.autograd.grad(whole, logits)[0])
        ctx.sums = sums
        made = torch.cat(terms) if terms else hidden.new_zeros(0)
        ctx.mark_non_differentiable(made)
        return made.sum(), made

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor, _: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore
        return None, None, None, *(g if g is None else g.mul_(outer) for g in ctx.sums.taken())


class _Gradients:
    """Gradients by the inputs of the output layer and by its parameters, summed up from those by logits, part by part."""

    def __init__(self, head: TokenHead, hidden: Tensor, needed: Sequence[bool]) -> None:
        self._module, self._hidden = head.module, hidden.detach()
        inputs = [hidden, *head.module.parameters()]
        self._sums = [torch.zeros_like(t) if asked else None for t, asked in zip(inputs, needed, strict=True)]
        self.wanted = any(needed)

    def add(self, part: slice, by_logits: Tensor) -> None:
        """Add what (n, V) gradients by the logits of a part come to."""
        weight = self._module.weight.detach()
        moved = by_logits.to(weight.dtype)
        of_hidden, of_weight, *of_bias = self._sums
        if of_hidden is not None:
            of_hidden[part] = (moved @ weight).to(of_hidden.dtype)
        if of_weight is not None:
            of_weight.addmm_(moved.T, self._hidden[part].to(weight.dtype))
        for bias in of_bias:
            if bias is not None:
                bias += moved.sum(dim=0)

    def taken(self) -> list[Tensor | None]:
        """The sums; they are given once, since they are large.

        Raises:
            RuntimeError: It is asked for a second time, by a second backward pass.
        """
        if not self._sums:
            raise RuntimeError(_ONCE)
        found, self._sums = self._sums, []
        return found


class _LabelLogp(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, head: TokenHead, hidden: Tensor, labels: Tensor, *own: Tensor
    ) -> Tensor:
        del own
        found, probabilities, room = [], [], _KEPT
        for part in _parts(head, hidden):
            logits = _logits(head, hidden[part].detach())
            total = logits.logsumexp(dim=-1, keepdim=True)
            found.append(logits.gather(1, labels[part, None]).squeeze(1) - total.squeeze(1))
            room -= logits.numel()
            if any(ctx.needs_input_grad):
                probabilities.append((logits.sub_(total).exp_(), None) if room >= 0 else (None, total))
        ctx.head, ctx.probabilities = head, probabilities
        ctx.save_for_backward(hidden, labels)
        return torch.cat(found) if found else hidden.new_zeros(0)

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, outer: Tensor) -> tuple[Tensor | None, ...]:  # pyright: ignore[reportIncompatibleMethodOverride]
        if ctx.probabilities is None:
            raise RuntimeError(_ONCE)
        hidden, labels = ctx.saved_tensors
        sums = _Gradients(ctx.head, hidden, [ctx.needs_input_grad[1], *ctx.needs_input_grad[3:]])
        for place, part in enumerate(_parts(ctx.head, hidden)):
            kept, total = ctx.probabilities[place]
            with torch.no_grad():
                if kept is None:
                    kept = _logits(ctx.head, hidden[part]).sub_(total).exp_()
                # Of log p_y by the logits: 1 at the label less p; `kept` becomes that, each row weighed.
                own = outer[part, None].to(kept.dtype)
                kept.mul_(-own).scatter_add_(1, labels[part, None], own)
                sums.add(part, kept)
            ctx.probabilities[place] = None, None
        ctx.probabilities = None
        of_hidden, *of_own = sums.taken()
        return None, of_hidden, None, *of_own
