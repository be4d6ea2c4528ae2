"""What processes of one run tell each other: rows of tensors with their gradient, sums of gradients, equal weights."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch import distributed as dist

from expunge import processes
from expunge.errors import RunError

__all__ = ["all_everywhere", "everywhere", "of_all", "of_first", "same_weights", "share", "sum_gradients"]

_KINDS = (torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.int64, torch.int32, torch.uint8)
_DIMENSIONS = 4
_BUCKET = 2**24
"""Numbers sent at once: 64 MiB in float32."""


def share(length: int) -> slice:
    """This process's part of so many things, all parts nearly equal and in the order of the processes."""
    each, more = divmod(length, processes.count())
    own = processes.number()
    start = own * each + min(own, more)
    return slice(start, start + each + (own < more))


def everywhere(rows: Tensor) -> Tensor:
    """(sum of n, ...) the rows of all processes, the first one's first, from each one's (n, ...); see `all_everywhere`."""
    return all_everywhere([rows])[0][0]


def all_everywhere(tensors: Sequence[Tensor]) -> tuple[list[Tensor], slice]:
    """The rows of all processes, the first one's first, of several tensors; and which of the rows are this process's own.

    A gradient comes back to a process's own rows. Where every process makes the same loss of the whole, gradients of
    weights that each gets from its own rows add up to the gradient of that loss: it comes out once.

    Args:
        tensors: (n, ...) each; n may differ between processes, or be 0: then shape and kind are taken from another one's.

    Raises:
        RunError: Another process has ended.
    """
    if processes.count() == 1:
        return list(tensors), slice(0, len(tensors[0]))
    own = [len(tensors[0])]
    for rows in tensors:
        own += [_KINDS.index(rows.dtype), rows.dim(), *rows.shape[1:], *[0] * (_DIMENSIONS + 1 - rows.dim())]
    said = [found.tolist() for found in _from_each(torch.tensor(own, device=_device()))]
    lengths = [length for length, *_ in said]
    like = next((found for found in said if found[0]), said[0])
    width, whole = _DIMENSIONS + 2, []
    for place, rows in enumerate(tensors):
        kind, dimensions, *sizes = like[1 + place * width : 1 + (place + 1) * width]
        whole.append(_Everywhere.apply(rows, lengths, _KINDS[kind], sizes[: dimensions - 1]))
    start = sum(lengths[: processes.number()])
    return whole, slice(start, start + own[0])


class _Everywhere(torch.autograd.Function):
    @staticmethod
    def forward(  # pyright: ignore[reportIncompatibleMethodOverride]
        ctx: Any, rows: Tensor, lengths: Sequence[int], kind: torch.dtype, sizes: Sequence[int]
    ) -> Tensor:
        start = sum(lengths[: processes.number()])
        ctx.own, ctx.shape, ctx.kind = slice(start, start + len(rows)), rows.shape, rows.dtype
        mine = torch.zeros((max(lengths), *sizes), dtype=kind, device=_device())
        if len(rows):
            mine[: len(rows)] = rows
        parts = [part[:length] for part, length in zip(_from_each(mine), lengths, strict=True)]
        return torch.cat(parts).to(rows.device)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor, None, None, None]:  # pyright: ignore[reportIncompatibleMethodOverride]
        return gradient[ctx.own].reshape(ctx.shape).to(ctx.kind), None, None, None


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


def of_first(values: Sequence[float]) -> list[float]:
    """The first process's values, so that all decide alike, whatever the last bits of their own."""
    if processes.count() == 1:
        return list(values)
    told = torch.tensor(values, dtype=torch.float64, device=_device())
    _reached(lambda: dist.broadcast(told, src=0))
    return told.tolist()


def sum_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Put the sum of all processes' gradients in the place of each one's own; one that nobody has stays None."""
    trained = [p for p in parameters if p.requires_grad]
    there = torch.tensor([p.grad is not None for p in trained], dtype=torch.uint8, device=_device())
    _reached(lambda: dist.all_reduce(there, op=dist.ReduceOp.MAX))
    gradients: list[Tensor] = []
    for parameter, somewhere in zip(trained, there.tolist(), strict=True):
        if somewhere:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        _reached(lambda flat=flat: dist.all_reduce(flat))
        for gradient, summed in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
            gradient.copy_(summed.view_as(gradient))


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Tensors of one kind that follow each other, so many that they are worth a message."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        if bucket and (tensor.dtype != bucket[0].dtype or sum(t.numel() for t in bucket) >= _BUCKET):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


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
