"""Taggers: units are words' first sub-tokens, entities are counted as nervaluate counts them, and the methods work on both."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from nervaluate import Evaluator
from transformers import BertTokenizer

from expunge.errors import UsageError
from expunge.head import find_head
from expunge.methods.contrastive import ContrastiveUnlearning
from expunge.methods.deepcut import DeepCUT
from expunge.methods.gradient_difference import GradientDifference
from expunge.partner_queue import PartnerQueue
from expunge.scoring import score
from expunge.step import Scores, Step
from expunge.tasks.base import IGNORED, Encoded
from expunge.tasks.token_classification import TokenClassification
from expunge.testing import FAMILIES, TAGS, tiny_tagger, tiny_tokenizer, toy_sentences

TASK = TokenClassification(tiny_tokenizer(), 48, TAGS)
ROWS = toy_sentences(9, seed=4)


def numbers(tags: list[str]) -> list[int]:
    return [TAGS.index(tag) for tag in tags]


DATA = TASK.encode_texts([row["tokens"] for row in ROWS], [numbers(row["ner_tags"]) for row in ROWS])


def test_a_unit_is_a_words_first_sub_token() -> None:
    # [CLS] w1 - w2 river [SEP]: "w1-w2" has three sub-tokens, so that "river" stands at position 4.
    encoded = TASK.encode_texts([["w1-w2", "river"]], [[0, 1]])
    assert [len(ids) for ids in encoded.input_ids] == [6]
    assert (encoded.units, encoded.labels) == ([[1, 4]], [[0, 1]])


def test_words_cut_off_are_no_units() -> None:
    cut = TokenClassification(tiny_tokenizer(), 5, TAGS).encode_texts([["w1-w2", "river", "w3"]], [[0, 1, 2]])
    assert (cut.units, cut.labels) == ([[1]], [[0]]), "[CLS] w1 - w2 [SEP]"


def test_a_word_that_a_cut_from_the_left_goes_through_is_no_unit() -> None:
    """It would be read in its middle. The cut may fall between words too, and a sentence keeps its last word."""
    tokenizer = tiny_tokenizer()
    tokenizer.truncation_side = "left"
    sentences = [["river", "w1-w2", "w3"], ["w1-w2", "w3", "w4"], ["river", "w5", "w6", "w7"], ["w1-w2-w3"], ["w8"]]
    encoded = TokenClassification(tokenizer, 5, TAGS).encode_texts(
        sentences, [[0, 1, 2], [0, 1, 2], [0, 1, 2, 3], [4], [1]]
    )
    # [CLS] - w2 w3 [SEP]; [CLS] w2 w3 w4 [SEP]; [CLS] w5 w6 w7 [SEP]; [CLS] w2 - w3 [SEP]; [CLS] w8 [SEP]
    assert encoded.units == [[3], [2, 3], [1, 2, 3], [1], [1]]
    assert encoded.labels == [[2], [1, 2], [1, 2, 3], [4], [1]]
    values = np.arange(8.0)[:, None]
    found = TokenClassification(tokenizer, 5, TAGS).by_record([tuple(words) for words in sentences], encoded, values)
    assert [np.isnan(rows[:, 0]).tolist() for rows in found][:2] == [[True, True, False], [True, False, False]]


def test_a_word_without_tokens_is_the_unknown_word(tmp_path) -> None:
    (tmp_path / "vocab.txt").write_text("\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", "the", "ri", "##ver"]))
    task = TokenClassification(BertTokenizer(str(tmp_path / "vocab.txt")), 6, TAGS)
    encoded = task.encode_texts([["river", "\u200b", "the", "the", "river"], ["\u200b", ""]], [[1, 2, 3, 4, 0], [1, 0]])
    assert encoded.input_ids == [[2, 6, 7, 1, 5, 3], [2, 1, 1, 3]], "BERT's tokenizer drops a zero-width space"
    assert encoded.units == [[1, 3, 4], [1, 2]]
    assert encoded.labels == [[1, 2, 3], [1, 0]]


def test_targets_are_ignored_where_there_is_no_unit() -> None:
    encoded = TASK.encode_texts([["w1-w2", "river"], ["w3"]], [[0, 1], [3]])
    batch = TASK.collate(encoded, [0, 1], views=2)
    x = IGNORED
    rows = [[x, 0, x, x, 1, x, x, x], [x, 3, x, x, x, x, x, x]]
    assert batch.targets().tolist() == rows * 2
    assert batch.labels.tolist() == [0, 1, 3] * 2
    assert batch.record_index.tolist() == [0, 0, 1] * 2
    assert batch.unit_index.tolist() == [0, 1, 2] * 2


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_is_read_at_first_sub_tokens(family: str) -> None:
    model = tiny_tagger(family).eval()
    head = find_head(model, TASK.collate(DATA, [0]))
    batch = TASK.collate(DATA, range(9))
    hidden, logits = head.run(model, batch)
    torch.testing.assert_close(head.module(hidden), logits, rtol=1e-4, atol=1e-5)
    whole = model(**batch.inputs).logits
    assert DATA.units is not None
    expected = torch.stack([whole[row, at] for row, places in enumerate(DATA.units) for at in places])
    torch.testing.assert_close(logits, expected)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_do_not_depend_on_batch_or_order(family: str) -> None:
    model = tiny_tagger(family)
    head = find_head(model, TASK.collate(DATA, [0]))
    whole = score(model, head, DATA, TASK, batch_size=64)
    single = score(model, head, DATA, TASK, batch_size=1)
    np.testing.assert_allclose(whole.margins, single.margins, rtol=1e-4, atol=1e-5)
    assert whole.labels.tolist() == DATA.flat_labels
    backwards = score(model, head, DATA.take(range(8, -1, -1)), TASK)
    np.testing.assert_allclose(whole.record_margins, backwards.record_margins[::-1], rtol=1e-4, atol=1e-5)
    assert whole.entities is not None
    assert backwards.entities is not None
    assert whole.entities.tolist() == backwards.entities.tolist()[::-1]


def counted(tags: tuple[str, ...], true: list[list[str]], found: list[list[str]]) -> list[list[int]]:
    task = TokenClassification(None, 8, tags)
    flat = [[tags.index(tag) for row in rows for tag in row] for rows in (true, found)]
    result = task.entities(*map(np.array, flat), np.cumsum([0, *map(len, true)]))
    assert result is not None
    return result.tolist()


def test_entities_by_hand() -> None:
    true = [["B-water", "I-water", "O", "B-machine"], ["O", "O"], ["B-water", "B-water"]]
    found = [
        ["B-water", "I-water", "O", "B-water"],  # one right, one of the wrong type: 1 of 2 found, 2 true
        ["O", "B-machine"],  # one found where none is
        ["B-water", "I-water"],  # one long entity for two short ones: none right
    ]
    assert counted(TAGS, true, found) == [[1, 2, 2], [0, 1, 0], [0, 1, 2]]


def test_other_schemes_name_the_same_entities() -> None:
    iob1 = [["I-a", "I-a", "B-a", "O", "I-a"]]  # (0-1), (2), (4): B- only where two meet
    assert counted(("O", "I-a", "B-a"), iob1, iob1) == [[3, 3, 3]]
    bioes = [["S-a", "S-a", "O", "B-a", "I-a", "E-a"]]
    assert counted(("O", "B-a", "I-a", "E-a", "S-a"), bioes, bioes) == [[3, 3, 3]]
    bilou = [["U-a", "B-a", "L-a"]]
    assert counted(("O", "B-a", "I-a", "L-a", "U-a"), bilou, bilou) == [[2, 2, 2]]


@pytest.mark.parametrize("names", [("NOUN", "VERB", "O"), ("O", "PER", "B-LOC"), ("O",)])
def test_tags_of_another_kind_have_no_entities(names: tuple[str, ...]) -> None:
    assert TokenClassification(None, 8, names).entities(np.array([0]), np.array([0]), np.array([0, 1])) is None


@settings(max_examples=100, deadline=None)
@given(st.lists(st.lists(st.tuples(st.sampled_from(TAGS), st.sampled_from(TAGS)), min_size=1, max_size=8), min_size=1))
def test_entity_f1_is_nervaluates_strict_f1(sentences: list[list[tuple[str, str]]]) -> None:
    true, found = ([[pair[side] for pair in row] for row in sentences] for side in (0, 1))
    right, predicted, real = np.sum(counted(TAGS, true, found), axis=0)
    theirs = Evaluator(true, found, tags=["water", "machine"], loader="list").evaluate()["overall"]["strict"]
    assert (right, predicted, real) == (theirs.correct, theirs.actual, theirs.possible)
    assert 2 * right / max(1, predicted + real) == pytest.approx(theirs.f1)


METHODS: list[Any] = [
    DeepCUT(),
    DeepCUT(partners="both", views=2, mixed_negatives=3),
    DeepCUT(detach_partners=True),
    ContrastiveUnlearning(),
    ContrastiveUnlearning(form="class"),
]
TAG_NUMBERS = st.integers(0, len(TAGS) - 1)


def units(tags: list[int], method: Any, group: str, queued: Any = None, seed: int = 0) -> tuple[Scores, list[Any]]:
    """Units of one group with random hidden states, one record a unit, each as often as the method has views of it."""
    views = getattr(method, "views", 1) if group == "forget" else 1
    draws = torch.Generator().manual_seed(seed)
    hidden, logits = (
        torch.randn(len(tags) * views, width, generator=draws).requires_grad_() for width in (6, len(TAGS))
    )
    index = torch.arange(len(tags)).repeat(views)
    scores = Scores(
        hidden=hidden, logits=logits, labels=torch.tensor(tags).repeat(views), record_index=index, unit_index=index,
        allowed=method.reads, group=group, queued=queued,
    )  # fmt: skip
    return scores, [hidden, logits]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(TAG_NUMBERS, min_size=1, max_size=5), st.lists(TAG_NUMBERS, min_size=1, max_size=7),
    st.lists(TAG_NUMBERS, max_size=7),
)  # fmt: skip
def test_contrastive_losses_are_finite_whatever_tags_meet(
    forget: list[int], retain: list[int], before: list[int]
) -> None:
    """With tags of the anchors absent from retain: from the queue where an earlier batch had them, else without."""
    queue = PartnerQueue()
    if before:
        queue.add(torch.randn(len(before), 6, generator=torch.Generator().manual_seed(1)), torch.tensor(before))
    queued = queue.lacking(torch.tensor(retain), torch.tensor(forget))
    assert (queued is not None) == bool((set(forget) - set(retain)) & set(before))
    for method in METHODS:
        anchors, leaves = units(forget, method, "forget", seed=2)
        partners, more = units(retain, method, "retain", queued, seed=3)
        step = Step(anchors, partners, 0)
        parts = method.loss(step)
        assert all(torch.isfinite(part) for part in parts.values())
        torch.stack(list(parts.values())).sum().backward()
        for leaf in (*leaves, *more):
            assert leaf.grad is None or torch.isfinite(leaf.grad).all()
        if method == DeepCUT():
            alone = [tag for tag in forget if tag not in retain and tag not in before]
            assert method.counts(step)["anchors_without_same_class"] == len(alone)


def test_the_queue_gives_a_rare_tag_its_partners() -> None:
    """A batch without the anchor's tag: DeepCUT pushes away from what an earlier batch had of it, and not from nothing."""
    queue = PartnerQueue()
    earlier = torch.tensor([[1.0, 0, 0, 0, 0, 0]])
    queue.add(earlier, torch.tensor([2]))
    method = DeepCUT()
    anchors, (hidden, _) = units([2], method, "forget")
    for queued, pushed in ((None, False), (queue.lacking(torch.tensor([0]), torch.tensor([2])), True)):
        hidden.grad = None
        partners, _ = units([0, 0], method, "retain", queued)
        method.loss(Step(anchors, partners, 0))["forget"].backward()
        assert bool(hidden.grad is not None and hidden.grad.abs().sum() > 0) is pushed


def test_training_survives_tags_that_retain_lacks() -> None:
    """Forget sentences all hold an entity type of which no retained sentence has any."""
    from expunge.config import StopConfig, TrainingConfig
    from expunge.unlearning import Unlearning

    rows = toy_sentences(60, seed=7)
    holds = ["B-machine" in row["ner_tags"] for row in rows]
    encoded = TASK.encode_texts([row["tokens"] for row in rows], [numbers(row["ner_tags"]) for row in rows])

    def only(wanted: bool) -> Encoded:
        return encoded.take([i for i, found in enumerate(holds) if found is wanted])

    forget, retain = only(True), only(False)
    for method in (DeepCUT(), ContrastiveUnlearning(form="class"), GradientDifference()):
        outcome = Unlearning(
            method=method, task=TASK, forget=forget, retain=retain, calibration=retain,
            forget_ids=[str(i) for i in range(len(forget))], retain_ids=[str(i) for i in range(len(retain))],
            training=TrainingConfig(min_steps=4, epochs=1.0, batch_size=4), stop=StopConfig(rule="none"), seed=0,
            label_names=TAGS,
        ).run(tiny_tagger(seed=3))  # fmt: skip
        assert all(np.isfinite(row["loss"]) for row in outcome.log["history"])
        assert all(torch.isfinite(parameter).all() for parameter in outcome.model.parameters())


def test_a_tokenizer_that_takes_no_words_is_refused() -> None:
    class Old:
        is_fast = True

        def __call__(self, *args: Any, **options: Any) -> Any:
            raise AssertionError("You need to instantiate it with add_prefix_space=True")

    (problem,) = TokenClassification.unsuitable(None, Old())
    assert "takes no words" in problem.what
    assert "add_prefix_space=True" in problem.way_out
    assert not TokenClassification.unsuitable(None, tiny_tokenizer())


def test_a_sentence_is_no_string() -> None:
    for given_ in ("Anna sings", ["Anna sings"]):
        with pytest.raises(UsageError, match="Split sentences into words"):
            TASK.as_texts(given_)
