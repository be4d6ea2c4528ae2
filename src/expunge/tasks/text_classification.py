"""Single-label classification of a text or a pair of texts: a unit is a record."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from numbers import Integral
from typing import Any

from expunge.data.records import Records
from expunge.errors import Problem, UsageError
from expunge.tasks.base import Batch, Encoded, pad

__all__ = ["TextClassification", "class_numbers", "default_max_length", "longest_input"]


@dataclass(frozen=True)
class TextClassification:
    """Text classification with an `AutoModelForSequenceClassification`.

    Attributes:
        tokenizer: The model's tokenizer.
        max_length: Tokens a text (or pair) is cut to.
        label_names: Class names in the model's order.
    """

    tokenizer: Any
    max_length: int
    label_names: tuple[str, ...]

    auto_class = "AutoModelForSequenceClassification"

    def entities(self, labels: Any, predictions: Any, offsets: Any) -> None:
        """None: a text has no entities."""

    def encode(self, records: Records) -> Encoded:
        """Tokenise all records once, cut to `max_length`."""
        return self.encode_texts(records.texts, records.labels)

    def encode_texts(self, texts: Sequence[tuple[str, ...]], labels: Sequence[int] | None = None) -> Encoded:
        """Tokenise texts or pairs; without labels every one gets class 0."""
        columns = list(zip(*texts, strict=True))
        tokenizer = copy.deepcopy(self.tokenizer)  # truncation is a state of the tokenizer, and would be saved with it
        output = tokenizer(
            list(columns[0]),
            list(columns[1]) if len(columns) == 2 else None,
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
        )
        return Encoded(
            output["input_ids"], output.get("token_type_ids"), [(label,) for label in labels or [0] * len(texts)]
        )

    def collate(self, encoded: Encoded, positions: Sequence[int], views: int = 1, length: int | None = None) -> Batch:
        """A right-padded batch of the records at `positions`, as `expunge.tasks.base.pad` makes it."""
        return pad(encoded, positions, self.tokenizer, self.max_length, views, length)


def longest_input(config: Any) -> int | None:
    """Tokens the model has positions for; None where it sets no limit."""
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not positions or positions < 0:
        return None
    offset = (config.pad_token_id or 0) + 1 if "roberta" in str(config.model_type) else 0
    return int(positions - offset)


def default_max_length(tokenizer: Any, config: Any) -> int:
    """The tokenizer's own limit (2048 where it names none), but no more than the model has positions for."""
    own = int(tokenizer.model_max_length) if tokenizer.model_max_length < 100_000 else 2048
    return min(own, longest_input(config) or own)


def class_numbers(values: Sequence[Any], label_names: Sequence[str], *, where: str) -> list[int]:
    """Class numbers of label values: names as in `label_names`, or numbers 0 ... C-1.

    Where a name is itself a number ("1" to "5" stars), values are read as names only.

    Raises:
        UsageError: Values that are neither; the message shows up to five of them.
    """
    number_of = {name: number for number, name in enumerate(label_names)}
    if not any(name.strip().isdigit() for name in label_names):
        number_of.update({str(number): number for number in range(len(label_names))})
    found = [number_of.get(_as_name(value)) for value in values]
    unknown = list(dict.fromkeys(repr(value) for value, number in zip(values, found, strict=True) if number is None))
    if unknown:
        rows = sum(number is None for number in found)
        shown = ", ".join(unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        names = ", ".join(label_names[:12]) + (" ..." if len(label_names) > 12 else "")
        way_out = (
            f"The model knows {len(label_names)} classes: {names} (or their numbers). "
            "Mend the labels, or give the names in the model's order with data.labels (--labels)."
        )
        raise UsageError(Problem(where, f"{rows} records have labels the model does not know: {shown}", way_out))
    return [number for number in found if number is not None]


def _as_name(value: Any) -> str:
    """A label as text: whole numbers without their decimals; what is neither text nor a whole number as no label."""
    if isinstance(value, str):
        return value
    if isinstance(value, Integral) and not isinstance(value, bool):
        return str(int(value))
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return ""
