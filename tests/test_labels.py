"""Labels that the model does not know: what the message shows of them, and what it keeps to itself."""

from __future__ import annotations

import pytest

from expunge.errors import UsageError
from expunge.tasks.labels import class_numbers

NAMES = ("water", "machine", "music")


def refusal(values: list[object]) -> str:
    with pytest.raises(UsageError) as refused:
        class_numbers(values, NAMES, where="data.train, column label")
    return refused.value.problems[0].what


def test_of_training_texts_in_the_place_of_labels_the_beginning_of_one_is_shown() -> None:
    """With `--label body` the values are the texts themselves, which belong in no log."""
    texts = [f"Patient {i} was told on Monday that the results of all her tests had come back." for i in range(7)]
    assert refusal([*texts, "water", texts[0]]) == (
        "8 records have labels the model does not know: 'Patient 0 was told on Monday that the r... and 6 other values"
    )


def test_a_short_value_is_shown_whole() -> None:
    assert refusal(["wind"]) == "1 records have labels the model does not know: 'wind'"
    assert refusal(["wind", "fire"]).endswith("'wind' and 1 other value")
