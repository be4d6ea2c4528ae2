"""Token ids of many records, made when they are asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, overload

__all__ = ["MANY", "OnDemand", "Tokens", "taken"]

MANY = 20_000
"""Records from which on they are tokenised one step at a time: of a large data set an erasure reads a small part."""
_KEPT = 4096  # records whose tokens are kept, so that token ids and segment ids cost one pass
_BLOCK = 1024  # records tokenised at once where all are read


class Tokens:
    """What a tokenizer makes of texts, for those that are asked for; the last 4096 are kept.

    Args:
        texts: The parts of each record's text.
        tokenise: Texts -> the tokenizer's output, a row for each of them in every field.
    """

    def __init__(
        self,
        texts: Sequence[tuple[str, ...]],
        tokenise: Callable[[Sequence[tuple[str, ...]]], Mapping[str, Sequence[Sequence[int]]]],
    ) -> None:
        self._texts, self._tokenise = texts, tokenise
        self._kept: dict[int, dict[str, Sequence[int]]] = {}

    @cached_property
    def fields(self) -> frozenset[str]:
        """What the tokenizer says of a record."""
        return frozenset(self._tokenise(self._texts[:1]))

    def rows(self, field: str, positions: Sequence[int]) -> list[Sequence[int]]:
        """A field of the records at `positions`."""
        missing = [i for i in dict.fromkeys(positions) if i not in self._kept]
        if missing:
            output = self._tokenise([self._texts[i] for i in missing])
            self._kept |= {i: {name: output[name][n] for name in output} for n, i in enumerate(missing)}
        found = [self._kept[i][field] for i in positions]
        for old in list(self._kept)[: max(0, len(self._kept) - _KEPT)]:
            del self._kept[old]
        return found


class OnDemand(Sequence[Sequence[int]]):
    """One field of many records' tokens.

    Args:
        tokens: Makes them.
        field: ``input_ids`` or ``token_type_ids``.
        positions: Which of its records, in which order.
    """

    def __init__(self, tokens: Tokens, field: str, positions: Sequence[int]) -> None:
        self._tokens, self._field, self._positions = tokens, field, positions

    def __len__(self) -> int:
        return len(self._positions)

    @overload
    def __getitem__(self, index: int) -> Sequence[int]: ...
    @overload
    def __getitem__(self, index: slice) -> list[Sequence[int]]: ...
    def __getitem__(self, index: int | slice) -> Sequence[int] | list[Sequence[int]]:
        if isinstance(index, slice):
            return self._tokens.rows(self._field, self._positions[index])
        return self._tokens.rows(self._field, [self._positions[index]])[0]

    def __iter__(self) -> Iterator[Sequence[int]]:
        for start in range(0, len(self), _BLOCK):
            yield from self[start : start + _BLOCK]

    def take(self, positions: Sequence[int]) -> Sequence[Sequence[int]]:
        """Those at `positions` among these: tokenised where they are few, else on demand as well."""
        own = [self._positions[i] for i in positions]
        return self._tokens.rows(self._field, own) if len(own) < MANY else OnDemand(self._tokens, self._field, own)


def taken(rows: Sequence[Any], positions: Sequence[int]) -> Sequence[Any]:
    """The rows at `positions`, in that order."""
    return rows.take(positions) if isinstance(rows, OnDemand) else [rows[i] for i in positions]
