"""Single-label classification of a text or a pair of texts: a unit is a record."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expunge.data.records import Records
from expunge.errors import Problem, UsageError
from expunge.tasks.base import Batch, Encoded

__all__ = ["TextClassification", "class_numbers", "default_max_length"]

_PAD_TO = 8


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

    def encode(self, records: Records) -> Encoded:
        """Tokenise all records once, cut to `max_length`."""
        return self.encode_texts(records.texts, records.labels)

    def encode_texts(self, texts: Sequence[tuple[str, ...]], labels: Sequence[int] | None = None) -> Encoded:
        """Tokenise texts or pairs; without labels every one gets class 0."""
        columns = list(zip(*texts, strict=True))
        output = self.tokenizer(
            list(columns[0]),
            list(columns[1]) if len(columns) == 2 else None,
            truncation=True,
            max_length=self.max_length,
            padding=False,
            return_attention_mask=False,
        )
        return Encoded(output["input_ids"], output.get("token_type_ids"), labels or [0] * len(texts))

    def collate(self, encoded: Encoded, positions: Sequence[int], views: int = 1, length: int | None = None) -> Batch:
        """A right-padded batch of the records at `positions`, each `views` times.

        Args:
            encoded: Tokenised records.
            positions: Which records.
            views: Copies of each record (dropout makes them differ). All first copies come first.
            length: Least padded length; the result's is a multiple of 8.
        """
        import torch

        rows = [encoded.input_ids[i] for i in positions]
        width = max(max(map(len, rows)), length or 1)
        width = -(-width // _PAD_TO) * _PAD_TO
        pad = self.tokenizer.pad_token_id
        inputs = {
            "input_ids": torch.tensor([[*row, *[pad] * (width - len(row))] for row in rows]),
            "attention_mask": torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in rows]),
        }
        if encoded.token_types is not None:
            types = [encoded.token_types[i] for i in positions]
            pad_type = self.tokenizer.pad_token_type_id
            inputs["token_type_ids"] = torch.tensor([[*row, *[pad_type] * (width - len(row))] for row in types])
        labels = torch.tensor([encoded.labels[i] for i in positions])
        index = torch.arange(len(positions))
        return Batch({k: v.repeat(views, 1) for k, v in inputs.items()}, labels.repeat(views), index.repeat(views))


def default_max_length(tokenizer: Any, config: Any) -> int:
    """The tokenizer's own limit, or what the model's positions allow where it names none."""
    if tokenizer.model_max_length < 100_000:
        return int(tokenizer.model_max_length)
    positions = getattr(config, "max_position_embeddings", None) or 512
    offset = (config.pad_token_id or 0) + 1 if "roberta" in str(config.model_type) else 0
    return int(min(positions - offset, 2048))


def class_numbers(values: Sequence[Any], label_names: Sequence[str], *, where: str) -> list[int]:
    """Class numbers of label values: names as in `label_names`, or numbers 0 ... C-1.

    Raises:
        UsageError: Values that are neither; the message shows up to five of them.
    """
    number_of = {name: number for number, name in enumerate(label_names)}
    known: dict[Any, int] = {}
    for value in dict.fromkeys(values):
        if isinstance(value, str) and value in number_of:
            known[value] = number_of[value]
        elif not isinstance(value, bool) and isinstance(value, int | str):
            text = str(value).strip()
            if text.isascii() and text.isdigit() and int(text) < len(label_names):
                known[value] = int(text)
    unknown = [value for value in dict.fromkeys(values) if value not in known]
    if unknown:
        rows = sum(value not in known for value in values)
        shown = ", ".join(repr(value) for value in unknown[:5]) + (" ..." if len(unknown) > 5 else "")
        names = ", ".join(label_names[:12]) + (" ..." if len(label_names) > 12 else "")
        way_out = (
            f"The model knows {len(label_names)} classes: {names} (or their numbers). "
            "Mend the labels, or give the names in the model's order with data.labels (--labels)."
        )
        raise UsageError(Problem(where, f"{rows} records have labels the model does not know: {shown}", way_out))
    return [known[value] for value in values]
