"""Find rows that say the same as a requested one: a request that leaves its copy in retain erases nothing."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from expunge.data.records import normal_form

__all__ = ["exact_duplicates"]


def exact_duplicates(texts: Sequence[tuple[str, ...]], requested: Collection[int]) -> dict[int, list[int]]:
    """Copies of requested rows, outside the request.

    Two rows are copies when their normal forms (NFKC, case-folded, white space collapsed) are equal, whatever their
    labels.

    Returns:
        Position of a requested row -> positions of its copies. Of several identical requested rows the first one
        carries the copies.
    """
    requested = set(requested)
    first: dict[str, int] = {}
    for position in sorted(requested):
        first.setdefault(normal_form(texts[position]), position)
    copies: dict[int, list[int]] = {}
    for position, text in enumerate(texts):
        if position not in requested and (owner := first.get(normal_form(text))) is not None:
            copies.setdefault(owner, []).append(position)
    return copies
