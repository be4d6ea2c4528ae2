"""Rows of like length run together: how they are cut up, and that outputs and gradients do not hang on it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from expunge import length_groups
from expunge.head import head_of
from expunge.length_groups import by_length, cut, runs
from expunge.tasks.base import Batch, Encoded
from expunge.tasks.text_classification import TextClassification
from expunge.tasks.token_classification import TokenClassification
from expunge.testing import TAGS, tiny_classifier, tiny_tagger, tiny_tokenizer, toy_records, toy_sentences

NAMES = ("water", "machine", "music")
TEXTS = TextClassification(tiny_tokenizer(), 48, NAMES)
WORDS = TokenClassification(tiny_tokenizer(), 48, TAGS)


def test_a_long_row_does_not_widen_the_others() -> None:
    """24 rows of 20 tokens and 8 of 60: 32 x 64 + 128 = 2176 tokens as one, 24 x 24 + 8 x 64 + 2 x 128 = 1344 as two."""
    lengths = [20, 20, 20, 60] * 8
    assert cut(lengths, 64) == [(list(range(3, 32, 4)), 64), ([i for i in range(32) if i % 4 != 3], 24)]


def test_what_saves_less_than_a_pass_costs_stays_together() -> None:
    """8 rows of 8 tokens and 8 of 16: 16 x 16 + 128 = 384 as one, 8 x 8 + 8 x 16 + 2 x 128 = 448 as two."""
    assert cut([8, 16] * 8, 16) == [(list(range(16)), 16)]
    assert cut([5], 48) == [([0], 8)]


def test_no_group_is_wider_than_the_batch() -> None:
    assert cut([30] * 16, 30) == [(list(range(16)), 30)], "a task's longest record may be no multiple of 8"


@pytest.mark.parametrize("most", [3, 8, 12, 64])
def test_no_group_has_more_rows_than_it_may(most: int) -> None:
    lengths = [5 + 7 * i % 60 for i in range(50)]
    groups = cut(lengths, 64, most=most)
    assert max(len(rows) for rows, _ in groups) <= most
    assert sorted(row for rows, _ in groups for row in rows) == list(range(50))
    assert all(max(lengths[row] for row in rows) <= width for rows, width in groups)


def test_a_pass_may_cost_less() -> None:
    """8 rows of 8 tokens and 8 of 16: 256 tokens as one, 192 as two; the second pass is worth it below 64."""
    assert len(cut([8, 16] * 8, 16, a_pass=63)) == 2
    assert len(cut([8, 16] * 8, 16, a_pass=65)) == 1


def test_an_accelerator_gets_whole_batches_and_a_cpu_little_padding() -> None:
    encoded = texts(40, 3)
    whole, apart = (runs(encoded, 32, torch.device(kind)) for kind in ("cuda", "cpu"))
    assert [len(rows) for rows in whole] == [32, 8]
    for groups in (whole, apart):
        assert sorted(i for rows in groups for i in rows) == list(range(40))
        assert encoded.lengths[groups[0][0]] == max(encoded.lengths)
    padded = [sum(len(rows) * max(encoded.lengths[i] for i in rows) for rows in groups) for groups in (whole, apart)]
    assert padded[1] < padded[0]
    assert runs(encoded.take([]), 32, torch.device("cpu")) == []


@pytest.mark.parametrize("kind", ["texts", "words"])
def test_records_of_two_groups_follow_each_other(kind: str) -> None:
    data = texts if kind == "texts" else words
    first, second = data(5, 1), data(4, 2)
    both = first.followed_by(second)
    assert (both.take(range(5)), both.take(range(5, 9))) == (first.take(range(5)), second.take(range(4)))


@pytest.fixture
def free_passes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another pass costs nothing, so that even a few short rows are cut up."""
    monkeypatch.setattr(length_groups, "_A_PASS", 0)


def texts(count: int, seed: int) -> Encoded:
    rows = toy_records(count, seed=seed)
    return TEXTS.encode_texts([(r["text"] * (1 + 3 * (i % 3)),) for i, r in enumerate(rows)], [0] * count)


def words(count: int, seed: int) -> Encoded:
    rows = toy_sentences(count, seed=seed)
    long = [r["tokens"] * (1 + i % 4) for i, r in enumerate(rows)]
    return WORDS.encode_texts([tuple(row) for row in long], [[0] * len(row) for row in long])


@pytest.mark.usefixtures("free_passes")
@pytest.mark.parametrize("kind", ["texts", "words"])
def test_outputs_and_gradients_are_those_of_separate_batches(kind: str) -> None:
    """In float64 and without dropout, for whole texts and for words within sentences, of two batches of other widths."""
    task, model, data = (TEXTS, tiny_classifier(), texts) if kind == "texts" else (WORDS, tiny_tagger(), words)
    model = model.double().eval()
    first, second = data(20, 1), data(17, 2)
    batches = [task.collate(first, range(8), views=2), task.collate(second, range(17)), None]
    head, passes = head_of(model, task, first), 0

    def run(batch: Batch) -> tuple[Tensor, Tensor]:
        nonlocal passes
        passes += 1
        return head.run(model, batch)

    def told(outputs: list[tuple[Tensor, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        flat = [tensor for pair in outputs for tensor in pair]
        weights = [torch.linspace(-1, 1, t.numel(), dtype=t.dtype).view_as(t) for t in flat]
        total = torch.stack([(t * w).sum() for t, w in zip(flat, weights, strict=True)]).sum()
        return flat, list(torch.autograd.grad(total, list(model.parameters()), allow_unused=True))

    expected = told([head.run(model, batch) for batch in batches if batch is not None])
    *found, nothing = by_length(run, batches)
    assert nothing is None
    assert passes > 1
    for mine, theirs in zip(told(found), expected, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-9)


def test_batches_of_one_width_run_as_they_come() -> None:
    """One pass, rows in order: dropout falls as if they had been one batch from the start."""
    rows = toy_records(9, seed=1)
    encoded = TEXTS.encode_texts([(r["text"],) for r in rows], [0] * 9)
    batches = [TEXTS.collate(encoded, range(4), length=24), TEXTS.collate(encoded, range(4, 9), length=24)]
    seen: list[Batch] = []

    def run(batch: Batch) -> tuple[Tensor, None]:
        seen.append(batch)
        return batch.inputs["input_ids"][:, :1], None

    first, second = by_length(run, batches)
    assert len(seen) == 1
    assert torch.equal(seen[0].inputs["input_ids"], torch.cat([b.inputs["input_ids"] for b in batches]))
    assert len(first[0]) == 4
    assert len(second[0]) == 5
