"""Classification of the words of a sentence, such as named-entity recognition: a unit is a word's first sub-token."""

from __future__ import annotations

import copy
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any, ClassVar

import numpy as np

from expunge.data.records import Records, is_text
from expunge.errors import Collector, Problem, UsageError, rows_have
from expunge.options import did_you_mean
from expunge.tasks.base import Batch, Encoded, pad
from expunge.tasks.labels import OfClasses, class_numbers

__all__ = ["TokenClassification"]

_TAG = re.compile(r"([BIELSU])-(.+)", re.DOTALL)
_BEGINS = "BSU"  # S- (of BIOES) and U- (of BILOU) are entities of one word


@dataclass(frozen=True)
class TokenClassification(OfClasses):
    """Tagging of words with an `AutoModelForTokenClassification`.

    A record's `texts` are its words, its `labels` one class number a word. A word is read at its first sub-token. Words
    cut off by `max_length` are no units. Nor is, where the tokenizer cuts from the left, a word that the cut goes
    through, unless nothing else stays of its sentence. A word of which the tokenizer makes nothing (zero-width
    characters) is read as the unknown token, so that it stays one.

    Attributes:
        tokenizer: The model's tokenizer, a fast one.
        max_length: Sub-tokens a sentence is cut to.
        label_names: Tags in the model's order.
    """

    tokenizer: Any
    max_length: int
    label_names: tuple[str, ...]

    auto_class: ClassVar[str] = "AutoModelForTokenClassification"
    architecture: ClassVar[str | tuple[str, ...]] = "ForTokenClassification"
    noun: ClassVar[str] = "tagger"
    text_columns: ClassVar[tuple[str, ...]] = ("tokens",)
    label_column: ClassVar[str] = "ner_tags"

    @staticmethod
    def unsuitable(model_config: Any, tokenizer: Any) -> list[Problem]:
        """Tokenizers that cannot say which word a sub-token is of."""
        del model_config
        if tokenizer is None:  # a problem of its own
            return []
        if not tokenizer.is_fast:
            way_out = "Save a fast one (a tokenizer.json) with the model."
            return [Problem("model.path", "its tokenizer is a slow one, which cannot tell words apart", way_out)]
        try:
            tokenizer(["a", "b"], is_split_into_words=True).word_ids()
        except (AssertionError, ValueError) as error:  # older byte-level tokenizers refuse words
            reason = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
            way_out = "Save the tokenizer with add_prefix_space=True, as a tagger of this kind is trained with."
            return [Problem("model.path", f"its tokenizer takes no words ({reason})", way_out)]
        return []

    @staticmethod
    def read(
        columns: dict[str, list[Any]], text: Sequence[str], label: str, label_names: Sequence[str], *, where: str
    ) -> tuple[tuple[tuple[str, ...], ...], tuple[tuple[int, ...], ...]]:
        """Words and class numbers of the columns named.

        Raises:
            UsageError: Cells that are no list of words, sentences without a word, as many tags as words in one row but
                not in another, and tags the model does not know.
        """
        found = Collector()
        if len(text) > 1:
            what = f"{len(text)} text columns are named"
            found.problems.append(Problem("data.text", what, "A tagger reads one column: the sentence's words."))
        sentences, tags = columns[text[0]], columns[label]
        bad: dict[str, list[int]] = {"words": [], "tags": [], "empty": [], "length": []}
        for row, (words, own) in enumerate(zip(sentences, tags, strict=True)):
            words_are_bad = not isinstance(words, list | tuple) or not all(map(is_text, words))
            tags_are_bad = not isinstance(own, list | tuple)
            for kind, wrong in (("words", words_are_bad), ("tags", tags_are_bad)):
                if wrong:
                    bad[kind].append(row)
            if not words_are_bad and not words:
                bad["empty"].append(row)
            elif not words_are_bad and not tags_are_bad and len(words) != len(own):
                bad["length"].append(row)
        found.problems.extend(_malformed(bad, sentences, tags, text[0], label, where))
        right = set(range(len(tags))) - set(bad["tags"])
        flat = [tag for row in sorted(right) for tag in tags[row]]
        numbers = found.run(class_numbers, flat, label_names, where=f"{where}, column {label}", of="words")
        found.finish()
        drawn = iter(numbers)
        return (
            tuple(tuple(words) for words in sentences),
            tuple(tuple(next(drawn) for _ in own) for own in tags),
        )

    @staticmethod
    def labelled(labels: Sequence[Sequence[int]], wanted: str, label_names: Sequence[str]) -> list[int]:
        """Positions of the records with an entity of a type (``person``), or with a tag (``B-person``).

        Raises:
            UsageError: The model knows no such type or tag.
        """
        known = {name: {number} for number, name in enumerate(label_names)}
        for number, name in enumerate(label_names):
            if match := _TAG.fullmatch(name):
                known.setdefault(match[2], set()).add(number)
        if wanted not in known:
            types = [name for name in known if name not in label_names] or label_names
            way_out = f"{did_you_mean(wanted, known)}The model knows: {', '.join(types)}."
            raise UsageError(Problem("request.label", f'"{wanted}" is no type of entity', way_out))
        return [position for position, own in enumerate(labels) if known[wanted].intersection(own)]

    def encode(self, records: Records) -> Encoded:
        """Tokenise all records once, cut to `max_length`."""
        return self.encode_texts(records.texts, records.labels)  # pyright: ignore[reportArgumentType]

    def encode_texts(self, texts: Sequence[Sequence[str]], labels: Sequence[Sequence[int]] | None = None) -> Encoded:
        """Tokenise sentences of words; without labels every word gets class 0."""
        tokenizer = copy.deepcopy(self.tokenizer)  # truncation is a state of the tokenizer, and would be saved with it
        output = self._tokenised(tokenizer, texts)
        units = self._units(output, texts)
        if emptied := self._without_tokens(tokenizer, texts, units):
            unknown = tokenizer.unk_token or "."
            texts = [[unknown if word in emptied else word for word in words] for words in texts]
            output = self._tokenised(tokenizer, texts)
            units = self._units(output, texts)
        kept = [[place for place, at in enumerate(found) if at is not None] for found in units]
        return Encoded(
            output["input_ids"],
            output.get("token_type_ids"),
            [[0 if labels is None else labels[row][place] for place in places] for row, places in enumerate(kept)],
            [[at for at in found if at is not None] for found in units],
            cut=[len(words) - len(places) for words, places in zip(texts, kept, strict=True)],
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

    def _units(self, output: Any, texts: Sequence[Sequence[str]]) -> list[list[int | None]]:
        """Where each word of each sentence is read; None for those that are no units."""
        found = []
        for row, (words, encoding) in enumerate(zip(texts, output.encodings, strict=True)):
            first = _first_tokens(output.word_ids(row), len(words))
            if self.tokenizer.truncation_side == "left":
                gone = {word for part in encoding.overflowing for word in part.word_ids}
                whole = [None if word in gone else at for word, at in enumerate(first)]
                first = whole if any(at is not None for at in whole) else first
            found.append(first)
        return found

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

    def as_texts(self, given: Sequence[Sequence[str]]) -> list[tuple[str, ...]]:
        """Sentences of words as `Records.texts`.

        Raises:
            UsageError: A sentence is one string.
        """
        if isinstance(given, str) or any(isinstance(words, str) for words in given):
            way_out = 'Split sentences into words, as in training: [["Anna", "sings"]].'
            raise UsageError(Problem("texts", "a sentence is given as one string", way_out))
        return [tuple(words) for words in given]

    def by_record(self, texts: Sequence[tuple[str, ...]], encoded: Encoded, values: np.ndarray) -> list[np.ndarray]:
        """For each sentence the (n_words, C) values of its words; NaN for words cut off by length."""
        found = []
        for words, start, end in zip(texts, encoded.offsets, encoded.offsets[1:], strict=False):
            cut = np.full((len(words) - (end - start), values.shape[1]), np.nan)
            whole = [values[start:end], cut]
            found.append(np.concatenate(whole[::-1] if self.tokenizer.truncation_side == "left" else whole))
        return found

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


def _malformed(
    bad: dict[str, list[int]], sentences: Sequence[Any], tags: Sequence[Any], text: str, label: str, where: str
) -> list[Problem]:
    found = []

    def said(kind: str, what: str, way_out: str) -> None:
        if rows := bad[kind]:
            found.append(Problem(where, f"{len(rows)} rows {what}, the first is row {rows[0] + 1}", way_out))

    lists = "Give lists in .jsonl, .parquet or a dataset, or a .conll file (a word and its tag a line)."
    said("words", f"have no list of words in column {text}", lists)
    said("tags", f"have no list of tags in column {label}", lists)
    said("empty", "hold no word", "Leave empty sentences out.")
    if rows := bad["length"]:
        words, own = len(sentences[rows[0]]), len(tags[rows[0]])
        what = f"{rows_have(len(rows))} not one tag a word, the first is row {rows[0] + 1}: {words} words, {own} tags"
        found.append(Problem(where, what, "Give each word one tag."))
    return found


def _first_tokens(word_ids: Sequence[int | None], count: int) -> list[int | None]:
    """Position of each word's first sub-token, None for words that have none."""
    first: list[int | None] = [None] * count
    for position, word in enumerate(word_ids):
        if word is not None and first[word] is None:
            first[word] = position
    return first
