"""Which of many texts may be like a wanted one: those that hold enough of its rarest pieces."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from typing import Any

import numpy as np

__all__ = ["RareIndex"]

_SHARED = 8
"""Rare pieces that two texts must share before they are compared (k)."""
_FACTOR = np.uint64(0x9E3779B97F4A7C15)
_BITS = 22
"""The leading bits of a hash that a table of 4 MiB says of whether any wanted piece has them."""


class RareIndex:
    """The rarest pieces of each wanted text, and how many of them another must hold to be like it.

    Pieces are looked up by a hash of 64 bits. Two pieces with one hash make a pair a candidate that is none, never the
    other way round: what a wanted text loses by its own pieces' sharing hashes is taken off what another must hold.

    Args:
        sets: Pieces of each wanted text: of `size` characters, or the one text as a whole where it is short.
        threshold: Least Jaccard similarity t of a pair, in (0, 1].
        size: Characters of a piece.
    """

    def __init__(self, sets: Sequence[set[str]], threshold: float, size: int) -> None:
        from scipy import sparse

        self._size = size
        frequency = Counter(piece for pieces in sets for piece in pieces)
        order = {piece: rank for rank, (piece, _) in enumerate(reversed(frequency.most_common()))}  # the rarest first
        kept, needed = [], []
        for pieces in sets:
            least = math.ceil(threshold * len(pieces) - 1e-9)  # that it must share with any other
            shared = max(1, min(_SHARED, least))
            kept.append(sorted(pieces, key=order.__getitem__)[: len(pieces) - least + shared])
            needed.append(shared)
        used = {piece for own in kept for piece in own}
        hashed = {piece: int(_hashes(_codes(piece), size)[0]) for piece in used if len(piece) == size}
        self._known = np.unique(np.array(list(hashed.values()), dtype=np.uint64))
        number = {value: place for place, value in enumerate(self._known.tolist())}
        self._whole = {piece: len(number) + place for place, piece in enumerate(sorted(used - hashed.keys()))}
        numbers = [{self._whole.get(piece, number.get(hashed.get(piece, -1), -1)) for piece in own} for own in kept]
        self._needed = np.array(
            [max(1, n - (len(own) - len(got))) for n, own, got in zip(needed, kept, numbers, strict=True)], dtype=int
        )
        self._table = np.zeros(2**_BITS, dtype=bool)
        self._table[self._known >> np.uint64(64 - _BITS)] = True
        owners = np.repeat(np.arange(len(sets)), [len(own) for own in numbers])
        flat = np.array([piece for own in numbers for piece in own], dtype=int)
        self._shape = len(self._known) + len(self._whole)
        ones = np.ones(len(flat), dtype=np.int32)
        self._holders: Any = sparse.csr_matrix((ones, (flat, owners)), shape=(self._shape, len(sets)))

    def candidates(self, texts: Sequence[str]) -> list[tuple[int, int]]:
        """(position among `texts`, position among the wanted) of all pairs that may be alike, in this order."""
        from scipy import sparse

        row, piece = self._held(texts)
        ones = np.ones(len(row), dtype=np.int32)
        held: Any = sparse.csr_matrix((ones, (row, piece)), shape=(len(texts), self._shape))
        counts: Any = (held @ self._holders).tocoo()
        enough = counts.data >= self._needed[counts.col]
        return sorted(zip(counts.row[enough].tolist(), counts.col[enough].tolist(), strict=True))

    def _held(self, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
        """(row of a text, number of an indexed piece) of all that are held, each once."""
        ends = np.cumsum([len(text) for text in texts])
        hashes = _hashes(_codes("".join(texts)), self._size)
        at = np.flatnonzero(self._table[hashes >> np.uint64(64 - _BITS)])
        place = np.searchsorted(self._known, hashes[at])
        row = np.searchsorted(ends, at, side="right")
        # The table knows only leading bits, and a piece that begins in one text and ends in the next is none.
        held = (self._known[np.minimum(place, len(self._known) - 1)] == hashes[at]) & (at + self._size <= ends[row])
        whole = [(i, self._whole[text]) for i, text in enumerate(texts) if text in self._whole] if self._whole else []
        rows = np.concatenate([row[held], np.array([i for i, _ in whole], dtype=int)])
        pieces = np.concatenate([place[held], np.array([piece for _, piece in whole], dtype=int)])
        pairs = np.sort(rows * self._shape + pieces)  # np.unique takes thirty times as long
        row, piece = np.divmod(pairs[np.diff(pairs, prepend=-1) > 0], self._shape)
        return row, piece


def _codes(text: str) -> np.ndarray:
    """(L,) the code points of a text."""
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), dtype=np.uint32)


def _hashes(codes: np.ndarray, size: int) -> np.ndarray:
    """(L - size + 1,) a hash of each `size` code points in a row."""
    count = max(len(codes) - size + 1, 0)
    found = np.zeros(count, dtype=np.uint64)
    for start in range(size if count else 0):
        found *= _FACTOR
        found += codes[start : start + count]
    return (found ^ (found >> np.uint64(29))) * _FACTOR
