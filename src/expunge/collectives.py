"""What processes of one run tell each other: rows of tensors with their gradient, sums of gradients, equal weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from expunge import processes
from expunge.errors import RunError

__all__ = ["everywhere", "of_all", "same_weights", "share", "sum_gradients"]

_KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
_DIMENSIONS = 4


def share(length: int) -> slice:
    """This process's part of so many things, all parts nearly equal and in the order of the processes."""
    each, more = divmod(length, processes.count())
    own = processes.number()
    start = own * each + min(own, more)
    return slice(start, start + each + (own < more))


def everywhere(rows: Tensor) -> Tensor:
    """(sum of n, ...) the rows of all processes, the first one's first, from each one's (n, ...); n may differ, or be 0.

    A gradient comes back to a process's own rows. Where every process makes the same loss of the whole, gradients of
    weights that each gets from its own rows add up to the gradient of that loss: it comes out once.

    Args:
        rows: A tensor; without rows its shape and kind do not matter.

    Raises:
        RunError: Another process has ended.
    """
    return rows if processes.count() == 1 else _Everywhere.apply(rows)


class _Everywhere(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        whole, start = _gathered(rows.detach())
        ctx.own, ctx.shape, ctx.kind = slice(start, start + len(rows)), rows.shape, rows.dtype
        return whole

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient[ctx.own].reshape(ctx.shape).to(ctx.kind)


def _gathered(rows: Tensor) -> tuple[Tensor, int]:
    """The rows of all processes, and which of them is the first of our own."""
    device = _device()
    shape = [*rows.shape[1:], *[0] * (_DIMENSIONS + 1 - rows.dim())]
    own = torch.tensor([len(rows), _KINDS.index(rows.dtype), rows.dim(), *shape], device=device)
    said = [found.tolist() for found in _from_each(own)]
    lengths = [length for length, *_ in said]
    _, kind, dimensions, *sizes = next((like for like in said if like[0]), said[0])
    mine = torch.zeros((max(lengths), *sizes[: dimensions - 1]), dtype=_KINDS[kind], device=device)
    if len(rows):
        mine[: len(rows)] = rows
    parts = [part[:length] for part, length in zip(_from_each(mine), lengths, strict=True)]
    return torch.cat(parts).to(rows.device), sum(lengths[: processes.number()])


def _from_each(own: Tensor) -> list[Tensor]:
    found = [torch.empty_like(own) for _ in range(processes.count())]
    _reached(lambda: dist.all_gather(found, own))
    return found


def of_all(value: float) -> list[float]:
    """The value of each process, in their order."""
    if processes.count() == 1:
        return [value]
    own = torch.tensor([value], dtype=torch.float64, device=_device())
    return [float(found) for found in _from_each(own)]


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Put the sum of all processes' gradients in the place of each one's own; one that nobody has stays None."""
    trained = [p for p in parameters if p.requires_grad]
    there = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8, device=_device())
    _reached(lambda: dist.all_reduce(there, op=dist.ReduceOp.MAX))
    working = []
    for parameter, somewhere in zip(trained, there.tolist(), strict=True):
        if somewhere:
            gradient = parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            working.append(_reached(lambda gradient=gradient: dist.all_reduce(gradient, async_op=True)))
    for work in working:
        _reached(work.wait)


def same_weights(model: nn.Module) -> None:
    """Give every process the first one's weights."""
    if processes.count() > 1:
        _device()
        for tensor in model.state_dict().values():
            _reached(lambda tensor=tensor: dist.broadcast(tensor, src=0))


def _device() -> torch.device:
    """Where this process's tensors must lie to be sent; the group of processes is formed at the first call."""
    from accelerate import PartialState

    found = _reached(PartialState).device
    assert found is not None
    return found


def _reached(call: Callable[[], Any]) -> Any:
    """What the call gives.

    Raises:
        RunError: Another process could not be reached.
    """
    try:
        return call()
    except RuntimeError as error:  # torch has no narrower class for a lost connection
        reason = str(error).splitlines()[0]
        raise RunError(
            f"another process of this run has ended or cannot be reached ({reason}). If it failed, it said why itself. "
            "Nothing was written."
        ) from error
