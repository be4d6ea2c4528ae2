"""The head of a causal language model: hidden states at the units alone, and logits in parts, never of a whole batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from expunge.errors import Problem, RunError, UsageError
from expunge.head import must_be_finite
from expunge.tasks.base import Batch

__all__ = ["TokenHead", "find_token_head", "in_parts", "part_sizes"]

_ENTRIES = 2**23
"""Logits held at once: 32 MiB in float32. Larger parts are no quicker on a CPU."""
_ON_DEVICES = 4
"""As many times that on an accelerator, which wants work in large pieces."""


@dataclass(frozen=True)
class TokenHead:
    """The layer that makes next-token logits.

    Attributes:
        module: The layer, such as ``lm_head``.
    """

    module: nn.Linear

    def run(self, model: Any, batch: Batch) -> tuple[Tensor, None]:
        """One forward pass; the layer itself sees one position a row, since its outputs are made later, in parts.

        Returns:
            (U, H) inputs of the layer at the units, with their graph; None in place of logits.
        """
        caught: list[Tensor] = []

        def keep(_: Any, args: tuple[Any, ...]) -> tuple[Any, ...]:
            caught.append(args[0])
            return (args[0][:, :1].detach(), *args[1:])

        hook = self.module.register_forward_pre_hook(keep)
        try:
            model(**batch.inputs, use_cache=False)
        finally:
            hook.remove()
        if not caught:
            raise RunError("the model's output layer took no part in a forward pass; its head must have changed.")
        return batch.select(caught[-1]), None

    def logits(self, hidden: Tensor) -> Tensor:
        """(n, V) logits of (n, H) inputs, in float32 at least."""
        found = self.module(hidden.to(self.module.weight.dtype))
        return found.float() if found.dtype in (torch.float16, torch.bfloat16) else found

    def shown(self, hidden: Tensor) -> Tensor:
        """What of the (U, H) inputs may be kept as hidden states: all of it."""
        return hidden

    def frozen(self) -> Callable[[Tensor], Tensor]:
        """`logits` as they are now, whatever becomes of the layer: it keeps a copy of its weights."""
        weight = self.module.weight.detach().clone()
        bias = None if self.module.bias is None else self.module.bias.detach().clone()

        def logits(hidden: Tensor) -> Tensor:
            return functional.linear(hidden.to(weight), weight, bias).float()

        return logits


def part_sizes(units: int, vocabulary: int, device: torch.device) -> Iterator[slice]:
    """Slices of units whose logits are held at once."""
    size = max(1, _ENTRIES * (1 if device.type == "cpu" else _ON_DEVICES) // vocabulary)
    return (slice(start, min(start + size, units)) for start in range(0, units, size))


def in_parts(function: Callable[..., Tensor], units: int, vocabulary: int, *rows: Tensor) -> Tensor:
    """``function(*rows)`` for all units, a part of them at a time; the parts' insides are made again for the gradient.

    Args:
        function: Takes a part of each of `rows`, gives (n, ...) one row a unit.
        units: How many there are.
        vocabulary: Logits of one unit.
        rows: (U, ...) each.

    Returns:
        (U, ...).
    """
    parts = [
        checkpoint(function, *(row[part] for row in rows), use_reentrant=False, preserve_rng_state=False)
        if torch.is_grad_enabled()
        else function(*(row[part] for row in rows))
        for part in part_sizes(units, vocabulary, rows[0].device)
    ]
    return torch.cat(parts) if parts else function(*(row[:0] for row in rows))  # pyright: ignore


def find_token_head(model: Any, probe: Batch) -> TokenHead:
    """The output layer of a causal language model, checked to make its logits on `probe`; a model with its own is asked.

    Raises:
        UsageError: There is none, or the model changes what it gives (soft caps, scales).
        DivergedError: Its outputs are not finite.
    """
    own = getattr(model, "find_token_head", None) or getattr(model, "find_head", None)
    if own is not None:  # it says itself which it is
        return own(probe)
    layer = model.get_output_embeddings()
    way_out = "Models whose logits are those of their last linear layer are supported: Llama, Qwen, Mistral, GPT-2, SmolLM2 ..."
    if not isinstance(layer, nn.Linear):
        what = f"{type(model).__name__} has no linear output layer"
        raise UsageError(Problem("model", what, way_out))
    caught: list[Tensor] = []
    hook = layer.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            logits = model(**probe.inputs, use_cache=False).logits
            made = layer(caught[-1]).to(logits.dtype) if caught else None
    finally:
        hook.remove()
        model.train(was_training)
    must_be_finite(logits)
    loose = 1e-4 if logits.dtype == torch.float32 else 5e-2
    if made is None or made.shape != logits.shape or not torch.allclose(made, logits, atol=loose, rtol=loose):
        what = f"{type(model).__name__} changes the outputs of its last layer before it gives them"
        raise UsageError(Problem("model", what, way_out))
    return TokenHead(layer)
