"""Which facts a causal language model still answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from expunge.generating import generate
from expunge.head import head_of
from expunge.scoring import score

__all__ = ["TOKENS", "answered"]

TOKENS = 10
"""Tokens written to each question, as in EDU-RELAT."""


def answered(
    model: Any, task: Any, questions: Sequence[tuple[str, str]], *, tokens: int = TOKENS, batch_size: int = 64
) -> NDArray[np.bool_]:
    """(N,) whether what the model writes, the most probable token each time, holds the answer.

    The probe of EDU-RELAT (arXiv 2410.15153): `tokens` new tokens at most, right where the answer stands in them as it is
    written. One pass over questions with their answers tells where the most probable token is the answer's at each
    place: there the answer is what would be written, and nothing is; to the other questions it is.

    Args:
        model: A causal language model.
        task: The `Generation` task it was trained with.
        questions: Questions with their answers.
        tokens: Tokens written at most.
        batch_size: Questions at once.
    """
    if not questions:
        return np.zeros(0, dtype=bool)
    encoded = task.encode_texts(list(questions))
    close = replace(task, max_length=1)  # collates without padding up to a multiple of eight: questions are short
    table = score(model, head_of(model, task, encoded), encoded, close, batch_size=batch_size, keep_hidden=False)
    right = table.predictions == table.labels
    found = np.zeros(len(questions), dtype=bool)
    for i, (start, end) in enumerate(zip(table.offsets, table.offsets[1:], strict=False)):
        own = slice(start, end - 1)  # the last unit is the end of the text, which need not follow
        found[i] = 0 < end - 1 - start <= tokens and bool(right[own].all())
    left = [i for i in range(len(questions)) if not found[i]]
    said = generate(model, task, [questions[i] for i in left], tokens=tokens, batch_size=batch_size) if left else []
    for i, written in zip(left, said, strict=True):
        found[i] = questions[i][1].strip() in written
    return found
