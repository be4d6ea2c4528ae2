"""Tokenised records and batches, shared by all tasks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

from expunge.tasks.on_demand import taken

if TYPE_CHECKING:
    from torch import Tensor, device

__all__ = ["AUDITS", "IGNORED", "Batch", "Encoded", "pad"]

IGNORED = -100
"""The label transformers' own losses leave out."""

AUDITS = ("utility", "membership", "rmia", "agreement", "likelihood", "retained-side", "latent-map")
"""Audits that fit every task, and need no pass but the shared one."""

_PAD_TO = 8


@dataclass(frozen=True)
class Encoded:
    """Records tokenised once; of many texts the tokens are made when they are asked for.

    Attributes:
        input_ids: Token ids of each record, special tokens included.
        token_types: Segment ids of each record, or None where the model has none.
        labels: Classes of each record's units, in order.
        units: Token position of each record's units; None where the one unit is the record itself.
        cut: How many units of each record lie behind the length it was cut to; None where that is no matter.
        compressed: Bytes that each record's text takes when compressed; None where nobody asks.
    """

    input_ids: Sequence[Sequence[int]]
    token_types: Sequence[Sequence[int]] | None
    labels: Sequence[Sequence[int]]
    units: Sequence[Sequence[int]] | None = None
    cut: Sequence[int] | None = None
    compressed: Sequence[int] | None = None

    def __len__(self) -> int:
        return len(self.input_ids)

    @cached_property
    def lengths(self) -> list[int]:
        """Tokens of each record."""
        return [len(row) for row in self.input_ids]

    @cached_property
    def offsets(self) -> list[int]:
        """Number of the first unit of each record among all units, and last the count of units."""
        return [0, *accumulate(map(len, self.labels))]

    @property
    def flat_labels(self) -> list[int]:
        """Classes of all units, record by record."""
        return [label for labels in self.labels for label in labels]

    def relabelled(self, labels: Sequence[int]) -> Encoded:
        """The same records with these classes for their units, record by record."""
        rows = [labels[a:b] for a, b in pairwise(self.offsets)]
        return Encoded(self.input_ids, self.token_types, rows, self.units, self.cut, self.compressed)

    def followed_by(self, other: Encoded) -> Encoded:
        """The records of both, which must be of one task and tokenizer."""

        def both(first: Sequence[Any] | None, second: Sequence[Any] | None) -> list[Any] | None:
            return None if first is None or second is None else [*first, *second]

        return Encoded(
            [*self.input_ids, *other.input_ids],
            both(self.token_types, other.token_types),
            [*self.labels, *other.labels],
            both(self.units, other.units),
            both(self.cut, other.cut),
            both(self.compressed, other.compressed),
        )

    def take(self, positions: Sequence[int]) -> Encoded:
        """The records at `positions`, in that order."""
        return Encoded(
            taken(self.input_ids, positions),
            None if self.token_types is None else taken(self.token_types, positions),
            [self.labels[i] for i in positions],
            None if self.units is None else [self.units[i] for i in positions],
            None if self.cut is None else [self.cut[i] for i in positions],
            None if self.compressed is None else [self.compressed[i] for i in positions],
        )


@dataclass(frozen=True)
class Batch:
    """A padded batch of R rows (views of records) that hold U units.

    Attributes:
        inputs: The model's keyword arguments: ``input_ids``, ``attention_mask`` and, where used, ``token_type_ids``,
            each (R, T) with T a multiple of 8.
        labels: (U,) classes.
        record_index: (U,) position of each unit's record within its group; views of a record share it.
        unit_index: (U,) number of each unit among all units of its group; views of a unit share it.
        rows: (U,) row each unit is in; None where unit i is row i as a whole.
        columns: (U,) token each unit is read at; None likewise.
        fill: What each of the inputs is padded with, by name; one that is not named with 0. Empty: nobody knows.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    record_index: Tensor
    unit_index: Tensor
    rows: Tensor | None = None
    columns: Tensor | None = None
    fill: Mapping[str, int] = field(default_factory=dict)

    @property
    def length(self) -> int:
        """Padded length T."""
        return int(self.inputs["input_ids"].shape[1])

    def __len__(self) -> int:
        return int(self.inputs["input_ids"].shape[0])

    def to(self, target: device | str) -> Batch:
        """The same batch on another device."""
        moved = {name: tensor.to(target) for name, tensor in self.inputs.items()}
        rest = (self.labels, self.record_index, self.unit_index, self.rows, self.columns)
        return Batch(moved, *(None if tensor is None else tensor.to(target) for tensor in rest), self.fill)  # pyright: ignore

    def followed_by(self, other: Batch) -> Batch:
        """Both batches as one; they must have the same length."""
        import torch

        inputs = {name: torch.cat([tensor, other.inputs[name]]) for name, tensor in self.inputs.items()}
        labels, records, units = (
            torch.cat([getattr(self, name), getattr(other, name)]) for name in ("labels", "record_index", "unit_index")
        )
        if self.rows is None or self.columns is None or other.rows is None or other.columns is None:
            return Batch(inputs, labels, records, units, fill=self.fill)
        rows = torch.cat([self.rows, other.rows + len(self)])
        return Batch(inputs, labels, records, units, rows, torch.cat([self.columns, other.columns]), self.fill)

    def widened(self, length: int) -> Batch:
        """The same rows, padded to a greater length."""
        from torch.nn import functional

        more = (0, length - self.length)
        inputs = {name: functional.pad(t, more, value=self.fill.get(name, 0)) for name, t in self.inputs.items()}
        return Batch(inputs, self.labels, self.record_index, self.unit_index, self.rows, self.columns, self.fill)

    def of_rows(self, rows: Sequence[int], length: int) -> tuple[Batch, Tensor]:
        """Some of the rows, in that order, and (U',) which units are theirs.

        Args:
            rows: Which rows.
            length: Tokens that are kept; behind it there must be padding alone.
        """
        import torch

        at = torch.tensor(rows, device=self.labels.device)
        inputs = {name: tensor[at, :length] for name, tensor in self.inputs.items()}
        if self.rows is None or self.columns is None:
            return Batch(inputs, self.labels[at], self.record_index[at], self.unit_index[at], fill=self.fill), at
        place = torch.full((len(self),), -1, device=at.device)
        place[at] = torch.arange(len(at), device=at.device)
        units = (place[self.rows] >= 0).nonzero().squeeze(1)
        flat = (self.labels[units], self.record_index[units], self.unit_index[units])
        return Batch(inputs, *flat, place[self.rows[units]], self.columns[units], self.fill), units

    def without_units(self) -> Batch:
        """The same rows to run, and nothing read of them."""
        flat = (self.labels, self.record_index, self.unit_index, self.rows, self.columns)
        return Batch(self.inputs, *(None if tensor is None else tensor[:0] for tensor in flat), self.fill)  # pyright: ignore

    def targets(self) -> Tensor:
        """Labels as transformers' own losses take them: (R,), or (R, T) with `IGNORED` where there is no unit."""
        import torch

        if self.rows is None or self.columns is None:
            return self.labels
        whole = torch.full_like(self.inputs["input_ids"], IGNORED)
        whole[self.rows, self.columns] = self.labels
        return whole

    def select(self, outputs: Tensor) -> Tensor:
        """(U, ...) the units' part of the model's outputs, (R, T, ...) for units within rows, else (R, ...)."""
        return outputs if self.rows is None or self.columns is None else outputs[self.rows, self.columns]


def pad(
    encoded: Encoded, positions: Sequence[int], tokenizer: Any, max_length: int, views: int, length: int | None
) -> Batch:
    """A right-padded batch of the records at `positions`, each `views` times; all first copies come first.

    Args:
        encoded: Tokenised records.
        positions: Which records.
        tokenizer: Names the padding.
        max_length: Longest length padded to.
        views: Copies of each record (dropout makes them differ).
        length: Least padded length; the result's is a multiple of 8, or `max_length`.
    """
    import torch

    positions = list(positions)
    rows = taken(encoded.input_ids, positions)
    width = max(max(map(len, rows)), length or 1)
    width = max(width, min(-(-width // _PAD_TO) * _PAD_TO, max_length))
    fill = {"input_ids": tokenizer.pad_token_id}
    inputs = {
        "input_ids": torch.tensor([[*row, *[fill["input_ids"]] * (width - len(row))] for row in rows]),
        "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
    }
    if encoded.token_types is not None:
        types = taken(encoded.token_types, positions)
        fill["token_type_ids"] = tokenizer.pad_token_type_id
        inputs["token_type_ids"] = torch.tensor(
            [[*row, *[fill["token_type_ids"]] * (width - len(row))] for row in types]
        )
    counts = [len(encoded.labels[i]) for i in positions]
    labels = torch.tensor([label for i in positions for label in encoded.labels[i]], dtype=torch.long)
    records = torch.tensor(
        [i for i, count in zip(positions, counts, strict=True) for _ in range(count)], dtype=torch.long
    )
    units = torch.tensor(
        [encoded.offsets[i] + n for i, count in zip(positions, counts, strict=True) for n in range(count)],
        dtype=torch.long,
    )
    repeated = {name: tensor.repeat(views, 1) for name, tensor in inputs.items()}
    flat = (labels.repeat(views), records.repeat(views), units.repeat(views))
    if encoded.units is None:
        return Batch(repeated, *flat, fill=fill)
    row = torch.tensor([place for place, count in enumerate(counts) for _ in range(count)], dtype=torch.long)
    column = torch.tensor([at for i in positions for at in encoded.units[i]], dtype=torch.long)
    row = torch.cat([row + view * len(positions) for view in range(views)])
    return Batch(repeated, *flat, row, column.repeat(views), fill)
