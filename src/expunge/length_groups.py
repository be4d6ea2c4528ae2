"""Rows of like length run together: padding costs as much as tokens do, and a forward pass more costs little."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.tasks.base import Batch, Encoded

__all__ = ["FORWARD", "by_length", "cut", "runs"]

Outputs = tuple[Tensor, Tensor | None]

_TO = 8
"""Groups have so many rows, or a multiple, and rows so many tokens: each new shape is prepared for by the backend, and kept."""
_A_PASS = 128
"""What another pass costs, in tokens: calls, and gradients of embeddings that are added up."""
FORWARD = 48
"""The same of a forward pass alone."""


def cut(
    lengths: Sequence[int], widest: int, *, most: int | None = None, a_pass: int | None = None
) -> list[tuple[list[int], int]]:
    """Rows in groups, each with the width it is padded to, such that tokens, padding and passes cost least together.

    Args:
        lengths: Tokens of each row.
        widest: The width of the whole batch, which is a bound where it is no multiple of 8.
        most: Rows of a group, at most; None: any number.
        a_pass: What another pass costs, in tokens; None: what one forward and back does.

    Returns:
        Positions of rows and width, longest rows first; one group has all rows as they come.
    """
    order = sorted(range(len(lengths)), key=lambda row: -lengths[row])
    each = min(_TO, most or _TO)
    starts = [*range(0, len(order), each), len(order)]
    together = len(starts) if most is None else most // each
    a_pass = _A_PASS if a_pass is None else a_pass

    def width(start: int) -> int:
        return min(-(-lengths[order[start]] // _TO) * _TO, widest)

    # The least cost of all rows before each start, and where the last group of it begins.
    least: list[tuple[int, int]] = [(0, 0)]
    for end in range(1, len(starts)):
        least.append(
            min(
                (least[begin][0] + (starts[end] - starts[begin]) * width(starts[begin]) + a_pass, begin)
                for begin in range(max(0, end - together), end)
            )
        )
    groups, end = [], len(starts) - 1
    while end > 0:
        begin = least[end][1]
        groups.append((order[starts[begin] : starts[end]], width(starts[begin])))
        end = begin
    if len(groups) == 1:
        return [(list(range(len(lengths))), groups[0][1])]
    return groups[::-1]


def runs(encoded: Encoded, most: int, device: torch.device, *, a_pass: int | None = None) -> list[list[int]]:
    """Positions of records that run together, longest first: on a CPU by length, as `cut` says.

    An accelerator, which wants work in large pieces, gets as few batches as hold them.

    Args:
        encoded: The records.
        most: Records of a batch, at most.
        device: Where they run.
        a_pass: As `cut` takes it.
    """
    lengths = encoded.lengths
    if device.type == "cpu":
        return [rows for rows, _ in cut(lengths, max(lengths, default=0), most=most, a_pass=a_pass)]
    order = sorted(range(len(lengths)), key=lambda record: -lengths[record])
    return [order[start : start + most] for start in range(0, len(order), most)]


def by_length(run: Callable[[Batch], Outputs], batches: Sequence[Batch | None]) -> list[Any]:
    """Outputs of each batch's units, in their order; all rows in as few forward passes as serve, whatever batch they are of.

    On an accelerator, which wants work in large pieces, batches of one width are one pass, and others one each.

    Args:
        run: A forward pass.
        batches: The batches; None gives None.
    """
    there = [batch for batch in batches if batch is not None]
    joined = _joined(there)
    if joined is None:
        made = [_grouped(run, batch) for batch in there]
    else:
        whole, counts = _grouped(run, joined), [len(batch.labels) for batch in there]
        split = [None if part is None else part.split(counts) for part in whole]
        made = [tuple(None if part is None else part[i] for part in split) for i in range(len(there))]
    following = iter(made)
    return [None if batch is None else next(following) for batch in batches]


def _joined(batches: Sequence[Batch]) -> Batch | None:
    """All as one batch; None where their widths keep them apart."""
    if not batches:
        return None
    widest = max(batch.length for batch in batches)
    found: Batch | None = None
    for batch in batches:
        wide = batch
        if batch.length < widest:
            if batch.inputs["input_ids"].device.type != "cpu" or not batch.fill:
                return None
            wide = batch.widened(widest)
        found = wide if found is None else found.followed_by(wide)
    return found


def _grouped(run: Callable[[Batch], Outputs], batch: Batch) -> Outputs:
    mask = batch.inputs["attention_mask"]
    if mask.device.type != "cpu":
        return run(batch)
    ends = (mask * torch.arange(1, mask.shape[1] + 1)).amax(dim=1)
    groups = cut(ends.tolist(), batch.length)
    if len(groups) < 2:
        return run(batch)
    made: list[Outputs] = []
    places: list[Tensor] = []
    for rows, width in groups:
        part, units = batch.of_rows(rows, width)
        made.append(run(part))
        places.append(units)
    back = torch.cat(places).argsort()
    hidden, logits = zip(*made, strict=True)
    return torch.cat(hidden)[back], None if logits[0] is None else torch.cat(logits)[back]
