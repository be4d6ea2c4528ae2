"""Single-label classification of a text or a pair of texts: a unit is a record."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

from expunge.data.long_text import text_rows
from expunge.data.records import Columns, Records, is_text
from expunge.errors import Collector, Problem, UsageError, rows_have
from expunge.options import did_you_mean
from expunge.tasks.base import Batch, Encoded, pad
from expunge.tasks.labels import OfClasses, class_numbers
from expunge.tasks.on_demand import MANY, OnDemand, Tokens

__all__ = ["TextClassification"]


@dataclass(frozen=True)
class TextClassification(OfClasses):
    """Text classification with an `AutoModelForSequenceClassification`.

    Attributes:
        tokenizer: The model's tokenizer.
        max_length: Tokens a text (or pair) is cut to.
        label_names: Class names in the model's order.
    """

    tokenizer: Any
    max_length: int
    label_names: tuple[str, ...]

    auto_class: ClassVar[str] = "AutoModelForSequenceClassification"
    architecture: ClassVar[str | tuple[str, ...]] = "ForSequenceClassification"
    noun: ClassVar[str] = "text classifier"
    text_columns: ClassVar[tuple[str, ...]] = ("text",)
    label_column: ClassVar[str] = "label"

    @staticmethod
    def unsuitable(model_config: Any, tokenizer: Any) -> list[Problem]:
        """Models with several labels a text, or a number instead of a class."""
        del tokenizer
        if model_config.problem_type not in ("multi_label_classification", "regression"):
            return []
        what = f"the model is of the kind {model_config.problem_type}"
        return [Problem("model.path", what, "Only single-label classification is supported for now.")]

    @staticmethod
    def read(
        columns: Columns, text: Sequence[str], label: str, label_names: Sequence[str], *, where: str
    ) -> tuple[Sequence[tuple[str, ...]], tuple[int, ...]]:
        """Texts (or pairs) and class numbers of the columns named.

        Raises:
            UsageError: Rows without text, and labels the model does not know.
        """
        found = Collector()
        if len(text) > 2:
            what = f"{len(text)} text columns are named"
            found.problems.append(Problem("data.text", what, "Name one column, or two for a text pair."))
        texts = text_rows([columns[name] for name in text])
        bad = [row for row, parts in enumerate(texts, start=1) if not all(map(is_text, parts))]
        if bad:
            what = f"{rows_have(len(bad))} no text or broken Unicode or a NUL in it, the first is row {bad[0]}"
            found.problems.append(Problem(where, what, f"Every row needs text in {', '.join(text)}."))
        labels = found.run(class_numbers, columns[label], label_names, where=f"{where}, column {label}")
        found.finish()
        return texts, tuple(labels)

    @staticmethod
    def labelled(labels: Sequence[int], wanted: str, label_names: Sequence[str]) -> list[int]:
        """Positions of the records of a class, named or by number.

        Raises:
            UsageError: The model knows no such class.
        """
        try:
            number = class_numbers([wanted], label_names, where="request.label")[0]
        except UsageError:
            way_out = f"{did_you_mean(wanted, label_names)}The model knows: {', '.join(label_names)}."
            raise UsageError(Problem("request.label", f'"{wanted}" is no class', way_out)) from None
        return [position for position, label in enumerate(labels) if label == number]

    def entities(self, labels: Any, predictions: Any, offsets: Any) -> None:
        """None: a text has no entities."""

    def encode(self, records: Records) -> Encoded:
        """Tokenise all records once, cut to `max_length`; from 20,000 on when they are asked for."""
        if len(records) < MANY:
            return self.encode_texts(records.texts, records.labels)  # pyright: ignore[reportArgumentType]
        tokens = Tokens(records.texts, self._tokeniser())
        everywhere = range(len(records))
        types = OnDemand(tokens, "token_type_ids", everywhere) if "token_type_ids" in tokens.fields else None
        rows = {label: (label,) for label in set(records.labels)}
        return Encoded(OnDemand(tokens, "input_ids", everywhere), types, [rows[label] for label in records.labels])  # pyright: ignore[reportArgumentType]

    def encode_texts(self, texts: Sequence[tuple[str, ...]], labels: Sequence[int] | None = None) -> Encoded:
        """Tokenise texts or pairs; without labels every one gets class 0."""
        output = self._tokeniser()(texts)
        return Encoded(
            output["input_ids"], output.get("token_type_ids"), [(label,) for label in labels or [0] * len(texts)]
        )

    def _tokeniser(self) -> Callable[[Sequence[tuple[str, ...]]], Mapping[str, Any]]:
        tokenizer = copy.deepcopy(self.tokenizer)  # truncation is a state of the tokenizer, and would be saved with it

        def tokenise(texts: Sequence[tuple[str, ...]]) -> Mapping[str, Any]:
            columns = list(zip(*texts, strict=True))
            return tokenizer(
                list(columns[0]),
                list(columns[1]) if len(columns) == 2 else None,
                truncation=True,
                max_length=self.max_length,
                padding=False,
                return_attention_mask=False,
            )

        return tokenise

    def collate(self, encoded: Encoded, positions: Sequence[int], views: int = 1, length: int | None = None) -> Batch:
        """A right-padded batch of the records at `positions`, as `expunge.tasks.base.pad` makes it."""
        return pad(encoded, positions, self.tokenizer, self.max_length, views, length)

    def as_texts(self, given: Sequence[str | tuple[str, ...]]) -> list[tuple[str, ...]]:
        """Texts or pairs as `Records.texts`; one text alone is a list of one."""
        rows = [given] if isinstance(given, str) else given
        return [(row,) if isinstance(row, str) else tuple(row) for row in rows]

    def by_record(self, texts: Sequence[tuple[str, ...]], encoded: Encoded, values: Any) -> Any:
        """(N, C) values: a text is one unit."""
        return values
