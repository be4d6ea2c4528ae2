"""Records: texts or sentences of words, labels and stable ids, as plain columns."""

from __future__ import annotations

import hashlib
import json
import unicodedata
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = ["Columns", "Records", "content_ids", "is_text", "normal_form"]

Columns = dict[str, Sequence[Any]]
"""Values of each column of a table, row by row."""


@dataclass(frozen=True)
class Records:
    """Labelled texts, or sentences of labelled words, in a fixed order.

    Attributes:
        ids: A stable, unique string for each record.
        texts: For each record a tuple of one text, of two for a pair, or of a sentence's words.
        labels: Class number of each record, or those of its words.
        made_ids: Whether the ids were made from content.
        alternatives: For each record of a prompt and its answer that answer in other words ("" where there is none) and then
            false ones; empty where the data have none.
    """

    ids: tuple[str, ...]
    texts: Sequence[tuple[str, ...]]
    labels: tuple[int, ...] | tuple[tuple[int, ...], ...]
    made_ids: bool = False
    alternatives: tuple[tuple[str, ...], ...] = ()

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def of_words(self) -> bool:
        """Whether the parts of a record's text are words of a sentence, rather than texts of their own."""
        return bool(self.labels) and not isinstance(self.labels[0], int)

    def take(self, positions: Sequence[int]) -> Records:
        """The records at `positions`, in that order."""
        return Records(
            tuple(self.ids[i] for i in positions),
            tuple(self.texts[i] for i in positions),
            tuple(self.labels[i] for i in positions),  # pyright: ignore[reportArgumentType]
            self.made_ids,
            tuple(self.alternatives[i] for i in positions) if self.alternatives else (),
        )

    def classes(self, positions: Iterable[int]) -> set[int]:
        """Classes that the records at `positions`, or their words, have."""
        own = (self.labels[i] for i in positions)
        return {label for labels in own for label in ([labels] if isinstance(labels, int) else labels)}

    def sha256(self) -> str:
        """Hash of ids, texts and labels in their order."""
        digest = hashlib.sha256()
        for row in zip(self.ids, self.texts, self.labels, strict=True):
            digest.update(json.dumps(row, ensure_ascii=False).encode())
        return digest.hexdigest()


def content_ids(texts: Sequence[tuple[str, ...]], labels: Sequence[object]) -> list[str]:
    """Ids for records that have none: a hash of text and label, and the occurrence number (``3f2a...-1``)."""
    seen: Counter[str] = Counter()
    ids = []
    for text, label in zip(texts, labels, strict=True):
        digest = hashlib.sha256(json.dumps([text, label], ensure_ascii=False).encode()).hexdigest()[:16]
        seen[digest] += 1
        ids.append(f"{digest}-{seen[digest]}")
    return ids


def normal_form(text: Sequence[str]) -> str:
    """What two texts share when they differ only in Unicode form, case or white space."""
    return "\x1f".join(" ".join(unicodedata.normalize("NFKC", part).casefold().split()) for part in text)


def is_text(value: Any) -> bool:
    """Whether a value is text that can be written down: not half of a surrogate pair, as a cut emoji leaves it, and no NUL."""
    try:
        return isinstance(value, str) and value.encode() is not None and "\0" not in value
    except UnicodeEncodeError:
        return False
