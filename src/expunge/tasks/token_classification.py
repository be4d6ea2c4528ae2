"""Classification of the words of a sentence, such as named-entity recognition: a unit is a word's first sub-token."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np

from expunge.data.records import Records
from expunge.tasks.base import Batch, Encoded, pad

__all__ = ["TokenClassification"]

_TAG = re.compile(r"([BIELSU])-(.+)", re.DOTALL)
_BEGINS = "BSU"  # S- (of BIOES) and U- (of BILOU) are entities of one word


@dataclass(frozen=True)
class TokenClassification:
    """Tagging of words with an `AutoModelForTokenClassification`.

    A record's `texts` are its words, its `labels` one class number a word. A word is read at its first sub-token. Words
    cut off by `max_length` are no units; a word of which the tokenizer makes nothing (zero-width characters) is read as
    the unknown token, so that it stays one.

    Attributes:
        tokenizer: The model's tokenizer, a fast one.
        max_length: Sub-tokens a sentence is cut to.
        label_names: Tags in the model's order.
    """

    tokenizer: Any
    max_length: int
    label_names: tuple[str, ...]

    auto_class = "AutoModelForTokenClassification"

    def encode(self, records: Records) -> Encoded:
        """Tokenise all records once, cut to `max_length`."""
        return self.encode_texts(records.texts, records.labels)  # pyright: ignore[reportArgumentType]

    def encode_texts(self, texts: Sequence[Sequence[str]], labels: Sequence[Sequence[int]] | None = None) -> Encoded:
        """Tokenise sentences of words; without labels every word gets class 0."""
        tokenizer = copy.deepcopy(self.tokenizer)  # truncation is a state of the tokenizer, and would be saved with it
        output = self._tokenised(tokenizer, texts)
        units = [_first_tokens(output.word_ids(row), len(words)) for row, words in enumerate(texts)]
        if emptied := self._without_tokens(tokenizer, texts, units):
            unknown = tokenizer.unk_token or "."
            texts = [[unknown if word in emptied else word for word in words] for words in texts]
            output = self._tokenised(tokenizer, texts)
            units = [_first_tokens(output.word_ids(row), len(words)) for row, words in enumerate(texts)]
        kept = [[place for place, at in enumerate(found) if at is not None] for found in units]
        return Encoded(
            output["input_ids"],
            output.get("token_type_ids"),
            [[0 if labels is None else labels[row][place] for place in places] for row, places in enumerate(kept)],
            [[at for at in found if at is not None] for found in units],
        )

    def _tokenised(self, tokenizer: Any, texts: Sequence[Sequence[str]]) -> Any:
        return tokenizer(
            [list(words) for words in texts],
            is_split_into_words=True,
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
        )

    def _without_tokens(
        self, tokenizer: Any, texts: Sequence[Sequence[str]], units: Sequence[Sequence[int | None]]
    ) -> set[str]:
        """The words of which the tokenizer makes nothing; those cut off by length are others."""
        lacking = {
            word
            for words, found in zip(texts, units, strict=True)
            for word, at in zip(words, found, strict=True)
            if at is None
        }
        return {
            word
            for word in lacking
            if not tokenizer([word], is_split_into_words=True, add_special_tokens=False)["input_ids"]
        }

    def collate(self, encoded: Encoded, positions: Sequence[int], views: int = 1, length: int | None = None) -> Batch:
        """A right-padded batch of the records at `positions`, as `expunge.tasks.base.pad` makes it."""
        return pad(encoded, positions, self.tokenizer, self.max_length, views, length)

    @cached_property
    def _tags(self) -> tuple[str, ...] | None:
        """The tags as B-, I- and O alone; None where they are no scheme of entities."""
        found = [_TAG.fullmatch(name) for name in self.label_names]
        entity = [match for match in found if match is not None]
        if not entity or any(m is None and name != "O" for m, name in zip(found, self.label_names, strict=True)):
            return None
        return tuple("O" if m is None else f"{'B' if m[1] in _BEGINS else 'I'}-{m[2]}" for m in found)

    def entities(self, labels: Any, predictions: Any, offsets: Any) -> np.ndarray | None:
        """Entities found right, predicted and true, of each record.

        Spans are those of nervaluate; right is what has the type, the start and the end of a true one (its "strict").
        Tags may follow BIO (IOB2), IOB1, BIOES or BILOU.

        Args:
            labels: (U,) true classes.
            predictions: (U,) predicted classes.
            offsets: (N + 1,) first unit of each record, and last the count of units.

        Returns:
            (N, 3) counts; None where the tags are of another kind: there are no entities then, only words.
        """
        from nervaluate.loaders import ListLoader

        if (tags := self._tags) is None:
            return None
        loader = ListLoader()
        cuts = [int(cut) for cut in offsets]

        def spans(classes: Any) -> list[set[Any]]:
            names = [tags[number] for number in np.asarray(classes).tolist()]
            found = loader.load([names[a:b] for a, b in pairwise(cuts)])
            return [set(entities) for entities in found]

        pairs = zip(spans(predictions), spans(labels), strict=True)
        counts = [(len(found & true), len(found), len(true)) for found, true in pairs]
        return np.array(counts, dtype=int).reshape(-1, 3)


def _first_tokens(word_ids: Sequence[int | None], count: int) -> list[int | None]:
    """Position of each word's first sub-token, None for words that have none."""
    first: list[int | None] = [None] * count
    for position, word in enumerate(word_ids):
        if word is not None and first[word] is None:
            first[word] = position
    return first
