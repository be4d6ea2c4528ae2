"""Records of a causal language model: what a unit is, and that neither padding nor a chat template changes it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from expunge.data.records import Records
from expunge.errors import UsageError
from expunge.generating import generate
from expunge.head import head_of
from expunge.scoring import score
from expunge.tasks.generation import Generation, template_problems
from expunge.testing import byte_tokenizer, tiny_causal

PLAIN, CHAT = byte_tokenizer(), byte_tokenizer(chat=True)
END = PLAIN.eos_token_id
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=("Cs",)), min_size=1, max_size=12).filter(str.strip)


def task(tokenizer: Any = PLAIN, length: int = 96, **settings_: Any) -> Generation:
    return Generation(tokenizer, length, tuple(map(str, range(len(tokenizer)))), **settings_)


def test_units_are_the_answers_tokens_and_the_end_each_read_one_before() -> None:
    """``Who?`` and a line break are 5 byte tokens, 0 to 4; the answer begins at 5 and is read from 4 on."""
    encoded = task().encode_texts([("Who?", "Eve")])
    assert PLAIN.decode(encoded.input_ids[0]) == "Who?\nEve<|end|>"
    assert encoded.units is not None
    assert list(encoded.units[0]) == [4, 5, 6, 7]
    assert PLAIN.decode(encoded.labels[0]) == "Eve<|end|>"


def test_a_plain_text_is_all_units_but_its_first_token() -> None:
    encoded = task().encode_texts([("abc",)])
    assert encoded.units is not None
    assert (PLAIN.decode(encoded.labels[0]), list(encoded.units[0])) == ("bc<|end|>", [0, 1, 2])


def test_prompts_are_joined_by_chat_template_or_by_the_one_given() -> None:
    said = task(CHAT).encode_texts([("Who?", "Eve")])
    assert CHAT.decode(said.input_ids[0]) == "<|user|>Who?<|end|><|assistant|>Eve<|end|>"
    assert CHAT.decode(said.labels[0]) == "Eve<|end|>", "the end in the prompt is no unit, that of the answer is"
    asked = task(CHAT, template="Q: {prompt} A: {answer}").encode_texts([("Who?", "Eve")])
    assert CHAT.decode(asked.input_ids[0]) == "Q: Who? A: Eve<|end|>"
    assert CHAT.decode(asked.labels[0]) == "Eve<|end|>"
    assert CHAT.decode(task(CHAT).prompts([("Who?", "")])[0]) == "<|user|>Who?<|end|><|assistant|>"


@pytest.mark.parametrize("template", ["{answer}", "{prompt}", "{answer} {prompt}", "{prompt}{prompt}{answer}", "x"])
def test_a_template_holds_the_prompt_once_and_ends_with_the_answer(template: str) -> None:
    assert template_problems(template)
    assert not template_problems("Q: {prompt}\n{answer}")


@settings(max_examples=25, deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), st.integers(0, 40), st.booleans())
def test_padding_and_batches_change_nothing(texts: list[tuple[str, str]], more: int, chat: bool) -> None:
    padding_and_batches_change_nothing(task(CHAT if chat else PLAIN), tiny_causal(seed=3), texts, more)


def padding_and_batches_change_nothing(own: Generation, model: Any, texts: list[tuple[str, str]], more: int) -> None:
    """The mean loss over units of a padded batch is that of its records one by one, whatever pads and how far."""
    model = model.double().eval()
    encoded = own.encode_texts(texts)
    head = head_of(model, own, encoded)
    longest = max(map(len, encoded.input_ids))
    batch = own.collate(encoded, range(len(texts)), length=longest + more)
    hidden, _ = head.run(model, batch)
    together = functional.cross_entropy(head.logits(hidden), batch.labels, reduction="none")
    alone = []
    for ids, columns, labels in zip(encoded.input_ids, encoded.units or (), encoded.labels, strict=True):
        logits = model(input_ids=torch.tensor([list(ids)])).logits[0, list(columns)]
        alone.append(functional.cross_entropy(logits, torch.tensor(list(labels)), reduction="none"))
    assert torch.allclose(together, torch.cat(alone), atol=1e-9)
    ends = sum(labels[-1] == own.end for labels in encoded.labels)
    assert ends == len(texts), "every answer's end is counted, though it may be the padding token too"


def test_prompt_positions_get_no_gradient_of_their_own_labels() -> None:
    prompt_positions_get_no_gradient(task(), tiny_causal(seed=1))


def prompt_positions_get_no_gradient(own: Generation, model: Any) -> None:
    """With a loss over the units alone, the logits of prompt positions have gradient zero."""
    model = model.double()
    encoded = own.encode_texts([("Who?", "Eve"), ("Where is it?", "Up")])
    batch = own.collate(encoded, [0, 1])
    logits = model(**batch.inputs).logits
    logits.retain_grad()
    functional.cross_entropy(batch.select(logits), batch.labels).backward()
    at = torch.zeros(logits.shape[:2], dtype=torch.bool)
    at[batch.rows, batch.columns] = True
    assert not logits.grad[~at].any()
    assert logits.grad[at].any(dim=-1).all()


def test_scores_are_those_of_the_models_own_loss() -> None:
    own, model = task(), tiny_causal(seed=2).eval()
    encoded = own.encode_texts([("Who?", "Eve"), ("a plain text",)])
    table = score(model, head_of(model, own, encoded), encoded, own)
    for row, ids in enumerate(encoded.input_ids):
        labels = torch.tensor([list(ids)])
        labels[0, : len(ids) - len(encoded.labels[row])] = -100
        loss = model(input_ids=torch.tensor([list(ids)]), labels=labels).loss.detach()
        assert table.record_losses[row] == pytest.approx(float(loss), abs=1e-5)
    assert table.spread is not None
    assert table.spread.shape == (len(table.labels), 2)
    # Under a nearly uniform distribution over 259 tokens the mean of log p is near log(1/259) = -5.56.
    assert abs(table.spread[:, 0].mean() + 5.56) < 0.2


def test_answers_are_cut_at_the_end_and_prompts_never() -> None:
    own = task(length=8)
    encoded = own.encode_texts([("Who?", "Everyone")])
    assert len(encoded.input_ids[0]) == 8
    assert PLAIN.decode(encoded.labels[0]) == "Eve"
    assert list(encoded.cut or ()) == [6], "five letters and the end"
    records = Records(("a", "b"), (("Who?", "Eve"), ("Who is it now?", "Eve")), (0, 0))
    (problem,) = own.misfits(records, "data.train")
    assert "1 records have no token of an answer within 8 tokens, the first is record 2" in str(problem)


def test_empty_answers_class_names_and_foreign_tokens_are_refused() -> None:
    with pytest.raises(UsageError, match="2 rows have an empty answer, the first is row 1"):
        Generation.read({"prompt": ["a", "b", "c"], "answer": ["", " ", "x"]}, ("prompt",), "answer", (), where="data")
    config = tiny_causal(vocabulary=270).config
    names = Generation.names(config, PLAIN, ())
    assert (len(names), names[END], names[-1]) == (270, "<|end|>", "<unused 269>")
    with pytest.raises(UsageError, match=r"Leave data\.labels out"):
        Generation.names(config, PLAIN, ("yes", "no"))
    with pytest.raises(UsageError, match="its tokenizer has 259 tokens, the model's vocabulary 200"):
        Generation.names(SimpleNamespace(vocab_size=200), PLAIN, ())


def test_what_is_written_does_not_hang_on_the_batch() -> None:
    """Prompts of several lengths are padded on the left: each is answered as alone."""
    own, model = task(), tiny_causal(seed=4)
    texts = [("Who?", ""), ("Where is it, then?", ""), ("A", "")]
    together = generate(model, own, texts, tokens=6)
    assert together == [generate(model, own, [text], tokens=6)[0] for text in texts]
    drawn = [generate(model, own, texts, tokens=6, temperature=1.5, seed=seed) for seed in (1, 1, 2)]
    assert drawn[0] == drawn[1] != drawn[2]
