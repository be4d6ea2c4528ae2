"""Tokenised records and batches, shared by all tasks."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, device

__all__ = ["Batch", "Encoded"]


@dataclass(frozen=True)
class Encoded:
    """Records tokenised once.

    Attributes:
        input_ids: Token ids of each record, special tokens included.
        token_types: Segment ids of each record, or None where the model has none.
        labels: Class of each record.
    """

    input_ids: Sequence[Sequence[int]]
    token_types: Sequence[Sequence[int]] | None
    labels: Sequence[int]

    def __len__(self) -> int:
        return len(self.input_ids)

    def take(self, positions: Sequence[int]) -> Encoded:
        """The records at `positions`, in that order."""
        return Encoded(
            [self.input_ids[i] for i in positions],
            None if self.token_types is None else [self.token_types[i] for i in positions],
            [self.labels[i] for i in positions],
        )


@dataclass(frozen=True)
class Batch:
    """A padded batch.

    Attributes:
        inputs: The model's keyword arguments: ``input_ids``, ``attention_mask`` and, where used, ``token_type_ids``,
            each (B, T) with T a multiple of 8.
        labels: (B,) classes.
        record_index: (B,) position, within the records asked for, of each row.
    """

    inputs: dict[str, Tensor]
    labels: Tensor
    record_index: Tensor

    @property
    def length(self) -> int:
        """Padded length T."""
        return int(self.inputs["input_ids"].shape[1])

    def __len__(self) -> int:
        return int(self.labels.shape[0])

    def to(self, target: device | str) -> Batch:
        """The same batch on another device."""
        moved = {name: tensor.to(target) for name, tensor in self.inputs.items()}
        return Batch(moved, self.labels.to(target), self.record_index.to(target))
