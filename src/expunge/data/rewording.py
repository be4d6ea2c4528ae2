"""Lightly reworded copies of records: words dropped, or neighbours swapped."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np

from expunge.data.records import Records

__all__ = ["REWORDINGS", "reworded"]

REWORDINGS = ("words dropped", "words swapped")
_SHARE = 0.15


def reworded(records: Records, how: str, plain: int | None = None) -> Records:
    """Copies with about 15 % of the words changed, at least one where there are two: ids and labels stay.

    A record's draw depends on its id alone. A tagger's words keep their tags, and only words outside of entities are
    touched: a changed entity would be another one.

    Args:
        records: Texts, pairs of texts, or sentences of words.
        how: One of `REWORDINGS`.
        plain: For sentences of words the class of words outside of entities; None: every word may be touched.
    """
    texts, labels = [], []
    for record_id, text, own in zip(records.ids, records.texts, records.labels, strict=True):
        rng = np.random.default_rng(list(hashlib.sha256(f"{how} {record_id}".encode()).digest()))
        if records.of_words:
            assert not isinstance(own, int)
            order = _order(len(text), [plain in (None, tag) for tag in own], how, rng)
            texts.append(tuple(text[i] for i in order))
            labels.append(tuple(own[i] for i in order))
        else:
            parts = [part.split() for part in text]
            orders = [_order(len(part), [True] * len(part), how, rng) for part in parts]
            changed = [" ".join(p[i] for i in order) for p, order in zip(parts, orders, strict=True)]
            texts.append(tuple(new or old for new, old in zip(changed, text, strict=True)))
            labels.append(own)
    return Records(records.ids, tuple(texts), tuple(labels), records.made_ids)


def _order(count: int, free: Sequence[bool], how: str, rng: np.random.Generator) -> list[int]:
    """Positions of the words that stay, in their new order."""
    wanted = max(1, round(_SHARE * count))
    if how == "words dropped":
        gone = rng.permutation(np.flatnonzero(free))[: min(wanted, count - 1)]
        return [i for i in range(count) if i not in set(gone.tolist())]
    order = list(range(count))
    swapped: set[int] = set()
    for left in rng.permutation(max(0, count - 1)).tolist():
        pair = {left, left + 1}
        if len(swapped) < 2 * -(-wanted // 2) and free[left] and free[left + 1] and not pair & swapped:
            order[left], order[left + 1] = order[left + 1], order[left]
            swapped |= pair
    return order
