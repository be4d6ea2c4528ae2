"""The smallest change of a model's weights that moves the margins of some records as wanted: a Gauss-Newton step.

A record's *row* is the gradient of its margin with respect to the weights of the model's linear layers. To first order a
change of the weights ``J^T alpha`` (J: all rows) moves the margins by ``K alpha`` with the kernel ``K = J J^T``, and of all
changes that move them so it is the smallest one. Rows are never written out: one backward pass over all records gives
what each layer took in and was sent back, and a row is the sum over tokens of their outer products. The kernel is taken
from sketches of these (random projections of both factors), the change of the weights from the factors themselves.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import reduce
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.errors import Problem, UsageError
from expunge.head import Head
from expunge.length_groups import runs
from expunge.scoring import margins
from expunge.tasks.base import Batch, Encoded

__all__ = ["Rows", "record_margins", "rows_of"]


def record_margins(logits: Tensor, batch: Batch, records: Sequence[int]) -> Tensor:
    """(R,) log-odds of the records at these positions, in nats, as `ScoreTable.record_margins`, with their graph.

    Args:
        logits: (U, C) of a batch's units.
        batch: The batch.
        records: Positions of its records.
    """
    found = margins(logits.float(), batch.labels)
    place = {record: i for i, record in enumerate(records)}
    index = torch.tensor([place[i] for i in batch.record_index.tolist()], device=found.device)
    if len(index) == len(records):
        return torch.empty_like(found).index_copy(0, index, found)
    empty = torch.zeros(len(records), device=found.device)
    counts = empty.index_add(0, index, torch.ones_like(found)).clamp(min=1)
    loss = (empty.index_add(0, index, functional.softplus(-found)) / counts).clamp(min=1e-7)
    return -loss - torch.log(-torch.expm1(-loss))


@dataclass
class _Layer:
    """What one linear layer took in and was sent back, by batch.

    Attributes:
        module: The layer.
        taken: (tokens, in) inputs.
        sent: (tokens, out) gradients of the margins with respect to its outputs.
        sketches: (records, width * width) projected rows.
        biases: (records, out) gradients with respect to its bias.
        ran: Whether records run through it at all.
    """

    module: nn.Linear
    taken: list[Tensor] = field(default_factory=list)
    sent: list[Tensor] = field(default_factory=list)
    sketches: list[Tensor] = field(default_factory=list)
    biases: list[Tensor] = field(default_factory=list)
    ran: bool = False


@dataclass(frozen=True)
class Rows:
    """Margins of R records, their kernel, and what is needed to change the weights.

    Attributes:
        margins: (R,) log-odds, in nats.
        kernel: (R, R) inner products of their rows, from sketches.
        passes: Example-passes that all of it takes: one a record, two where the step's factors were too large to keep.
    """

    margins: Tensor
    kernel: Tensor
    passes: float
    _layers: Sequence[_Layer]
    _owners: Sequence[Tensor]
    _again: Callable[[Tensor], None] | None

    def solve(self, wanted: Tensor, damping: Tensor) -> Tensor:
        """(R,) coefficients of the change that moves the margins by `wanted`, in nats, to first order.

        Args:
            wanted: (R,) changes.
            damping: (R,) what is added to the kernel's diagonal, as multiples of its mean: how little a record's change
                is insisted on.
        """
        kernel = self.kernel.double()
        spread = kernel.diagonal().mean().clamp(min=1e-30)
        return torch.linalg.solve(kernel + torch.diag(damping.double()) * spread, wanted.double()).float()

    @torch.no_grad()
    def apply(self, coefficients: Tensor) -> None:
        """Change the weights by the sum of the rows, each times its coefficient."""
        if self._again is not None:
            self._again(coefficients)
            return
        for layer in self._layers:
            weight, bias = layer.module.weight, layer.module.bias
            for taken, sent, owners in zip(layer.taken, layer.sent, self._owners, strict=True):
                of = owners.unique_consecutive() if len(sent) % len(owners) else owners  # one a record, as a pooler's
                own = coefficients[of.repeat(len(sent) // len(of))][:, None].to(sent.dtype) * sent
                weight += (own.T @ taken).to(weight.dtype)
                if bias is not None:
                    bias += own.sum(dim=0).to(bias.dtype)


class _Tape:
    """Hooks linear layers while a batch runs forward and back."""

    def __init__(self, layers: Sequence[_Layer], width: int, seed: int, *, keep: bool) -> None:
        self._layers = layers
        self._keep = keep
        self._width = width
        self._seed = seed
        self._projections: dict[tuple[int, int, int], Tensor] = {}
        self._caught: dict[int, list[tuple[Tensor, Tensor]]] = {}

    @contextmanager
    def watching(self) -> Iterator[None]:
        hooks = [layer.module.register_forward_hook(self._forward(number)) for number, layer in enumerate(self._layers)]
        try:
            yield
        finally:
            for hook in hooks:
                hook.remove()

    def _forward(self, number: int) -> Callable[..., None]:
        def hook(module: Any, args: Any, output: Tensor) -> None:
            del module
            taken = args[0].detach()

            def back(gradient: Tensor) -> None:
                self._caught.setdefault(number, []).append((taken, gradient.detach()))

            if output.requires_grad:
                output.register_hook(back)

        return hook

    def take(self, mask: Tensor) -> None:
        """Take down what the batch that has just run left; mask: (B, T) which positions are no padding.

        A layer that runs several times, as ALBERT's do, has the sum; one that records do not run through has nothing.

        Raises:
            UsageError: What a layer takes in is not one row a record.
        """
        valid = mask.bool()
        flat: dict[int, Tensor] = {}
        for number, layer in enumerate(self._layers):
            found = [self._of_records(number, taken, sent, valid) for taken, sent in self._caught.pop(number, ())]
            if not found:
                self._nothing(layer, len(valid))
                continue
            layer.ran = True
            layer.sketches.append(torch.stack([sketch for sketch, _, _, _ in found]).sum(dim=0))
            if layer.module.bias is not None:
                layer.biases.append(torch.stack([sent.sum(dim=1) for _, _, sent, _ in found]).sum(dim=0))
            if not self._keep:
                continue
            pieces: list[tuple[Tensor, Tensor]] = []
            for _, taken, sent, whole in found:
                if whole:
                    pieces.append((taken.flatten(0, 1), sent.flatten(0, 1)))
                    continue
                at = taken.data_ptr()  # queries, keys and values have one input
                if at not in flat:
                    flat[at] = taken[valid]
                pieces.append((flat[at], sent[valid]))
            several = len(pieces) > 1
            layer.taken.append(torch.cat([taken for taken, _ in pieces]) if several else pieces[0][0])
            layer.sent.append(torch.cat([sent for _, sent in pieces]) if several else pieces[0][1])

    def _nothing(self, layer: _Layer, records: int) -> None:
        weight = layer.module.weight.detach()
        into, out = weight.shape[1], weight.shape[0]
        layer.sketches.append(weight.new_zeros(records, min(into, self._width) * min(out, self._width)))
        if layer.module.bias is not None:
            layer.biases.append(weight.new_zeros(records, out))
        if self._keep:
            layer.taken.append(weight.new_zeros(0, into))
            layer.sent.append(weight.new_zeros(0, out))

    def _of_records(
        self, number: int, taken: Tensor, sent: Tensor, valid: Tensor
    ) -> tuple[Tensor, Tensor, Tensor, bool]:
        """(B, width * width) sketches, inputs and gradients of one run through a layer, and whether it knows no padding."""
        whole = taken.dim() == 2 or taken.shape[:2] != valid.shape
        if taken.dim() == 2:
            taken, sent = taken[:, None], sent[:, None]
        if taken.dim() != 3 or len(taken) != len(valid):
            what = f"a layer takes {tuple(taken.shape)} for {len(valid)} records, which cannot be told apart in it"
            raise UsageError(
                Problem("method", what, "Use the method deepcut-calibrated, which asks nothing of layers.")
            )
        projected = taken @ self._projection(number, 0, taken), sent @ self._projection(number, 1, sent)
        return (projected[1].transpose(1, 2) @ projected[0]).flatten(1), taken, sent, whole

    def _projection(self, number: int, side: int, like: Tensor) -> Tensor:
        size = like.shape[-1]
        if (number, side, size) not in self._projections:
            if size <= self._width:
                made = torch.eye(size)
            else:
                generator = torch.Generator().manual_seed(self._seed * 100_003 + 2 * number + side)
                made = torch.randn(size, self._width, generator=generator) / self._width**0.5
            self._projections[number, side, size] = made.to(like.device, like.dtype)
        return self._projections[number, side, size]


@dataclass(frozen=True)
class _Pass:
    """One way through records in eval mode, with a graph down to what needs one."""

    model: Any
    head: Head
    task: Any
    records: Encoded
    batch_size: int

    def batches(self, wanted: Sequence[Tensor]) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
        """Numbers of the records, their margins, and which positions are no padding; batch by batch."""
        device = next(self.model.parameters()).device
        needed = [(p, p.requires_grad) for p in self.model.parameters()]
        was_training = self.model.training
        self.model.eval()
        chosen = set(map(id, wanted))
        for p, _ in needed:
            p.requires_grad_(id(p) in chosen)
        hook = self.model.get_input_embeddings().register_forward_hook(_needing_gradient)
        try:
            with torch.enable_grad():
                for records in runs(self.records, self.batch_size, device):
                    batch = self.task.collate(self.records, records).to(device)
                    found = record_margins(self.head.run(self.model, batch)[1], batch, records)
                    yield torch.tensor(records, device=device), found, batch.inputs["attention_mask"]
        finally:
            hook.remove()
            for p, was in needed:
                p.requires_grad_(was)
            self.model.train(was_training)


def _needing_gradient(module: Any, args: Any, output: Tensor) -> Tensor:
    del module, args
    return output.requires_grad_(True)


def rows_of(
    model: Any, head: Head, task: Any, parts: Sequence[Encoded], *,
    batch_size: int = 32, width: int = 64, seed: int = 0, most_bytes: float = 2**31,
) -> Rows:  # fmt: skip
    """The rows of all records of some groups, in eval mode, from one forward and backward pass over each.

    Args:
        model: The model; as it was afterwards. Its linear layers take part, but for the head and for those whose weights
            are frozen.
        head: Its last linear layer.
        task: Collates records.
        parts: Groups of records; their rows follow each other.
        batch_size: Records a pass.
        width: Width of the projections of the sketches.
        seed: Seed of these.
        most_bytes: Factors of the step are kept up to so many bytes; beyond, a second pass makes them again.

    Raises:
        UsageError: No linear layer takes part.
    """
    layers = [
        _Layer(module)
        for module in model.modules()
        if isinstance(module, nn.Linear) and module is not head.module and module.weight.requires_grad
    ]
    if not layers:
        way_out = "Use the method deepcut-calibrated, which trains any weights, or unfreeze some."
        raise UsageError(Problem("method", "the model has no linear layers below its head that may change", way_out))
    records = reduce(Encoded.followed_by, parts)
    keep = 4.0 * sum(records.lengths) * sum(sum(layer.module.weight.shape) for layer in layers) <= most_bytes
    whole = _Pass(model, head, task, records, batch_size)
    tape = _Tape(layers, width, seed, keep=keep)
    values: list[tuple[Tensor, Tensor]] = []
    owners: list[Tensor] = []
    with tape.watching():
        for numbers, found, mask in whole.batches([]):
            found.sum().backward()
            tape.take(mask)
            owners.append(numbers.repeat_interleave(mask.sum(dim=1)))
            values.append((numbers, found.detach()))
    order = torch.cat([numbers for numbers, _ in values]).argsort()
    margins = torch.cat([found for _, found in values])[order]
    kernel = torch.zeros(len(order), len(order), device=margins.device)
    for layer in layers:
        for part in (layer.sketches, layer.biases):
            if part:
                joined = torch.cat(part).float()
                kernel += joined @ joined.T
        layer.sketches.clear()
        layer.biases.clear()

    def again(coefficients: Tensor) -> None:
        ran = [layer.module for layer in layers if layer.ran]
        weights = [p for module in ran for p in (module.weight, module.bias) if p is not None]
        for numbers, found, _ in whole.batches(weights):
            gradients = torch.autograd.grad((coefficients[numbers] * found).sum(), weights)
            total = gradients if not sums else [a + b for a, b in zip(sums, gradients, strict=True)]
            sums[:] = total
        for weight, change in zip(weights, sums, strict=True):
            weight += change

    sums: list[Tensor] = []
    passes = len(order) * (1.0 if keep else 2.0)
    return Rows(margins, kernel[order][:, order], passes, layers, owners, None if keep else again)
