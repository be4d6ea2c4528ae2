"""The tiny jobs that `check_method` checks methods on: a model without dropout, and records."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from expunge.tasks.base import Encoded

__all__ = ["TinyJob", "answer_job", "tag_job", "text_job"]


@dataclass(frozen=True)
class TinyJob:
    """A model and records of one task, small enough to check a method on in a second or two.

    Attributes:
        name: What messages call it.
        task: Collates the records.
        model: seed -> a model with random weights, in float64 and without dropout.
        forget: At least five records to forget.
        retain: At least nine retained records.
        unseen: Records never trained on.
        texts: Texts of the forget records, where a method may ask for other answers to them.
    """

    name: str
    task: Any
    model: Callable[[int], Any]
    forget: Encoded
    retain: Encoded
    unseen: Encoded
    texts: tuple[tuple[str, ...], ...] = ()


def text_job() -> TinyJob:
    """Texts of three classes and a tiny BERT: a unit is a text."""
    from expunge.tasks.text_classification import TextClassification
    from expunge.testing import tiny_classifier, tiny_tokenizer, toy_records

    names = ("water", "machine", "music")
    task = TextClassification(tiny_tokenizer(), 48, names)
    rows = toy_records(60, seed=4)
    encoded = task.encode_texts([(row["text"],) for row in rows], [names.index(row["label"]) for row in rows])
    return _job("texts", task, lambda seed: tiny_classifier(seed=seed), encoded)


def tag_job() -> TinyJob:
    """Sentences with five tags and a tiny BERT: a unit is a word, and some words have several tokens."""
    from expunge.tasks.token_classification import TokenClassification
    from expunge.testing import TAGS, tiny_tagger, tiny_tokenizer, toy_sentences

    task = TokenClassification(tiny_tokenizer(), 48, TAGS)
    rows = toy_sentences(60, seed=5)
    labels = [[TAGS.index(tag) for tag in row["ner_tags"]] for row in rows]
    encoded = task.encode_texts([row["tokens"] for row in rows], labels)
    return _job("tags", task, lambda seed: tiny_tagger(seed=seed), encoded)


def answer_job() -> TinyJob:
    """Questions with answers and a tiny Llama of two layers: a unit is a token."""
    from expunge.tasks.generation import Generation
    from expunge.testing import byte_tokenizer, tiny_causal, toy_answers

    tokenizer = byte_tokenizer()
    task = Generation(tokenizer, 48, tuple(str(i) for i in range(len(tokenizer))))
    texts = tuple((row["prompt"], row["answer"]) for row in toy_answers(60, seed=6))
    return _job("answers", task, lambda seed: tiny_causal(seed=seed), task.encode_texts(texts), texts[:7])


def _job(
    name: str, task: Any, model: Callable[[int], Any], encoded: Encoded, texts: tuple[tuple[str, ...], ...] = ()
) -> TinyJob:
    def plain(seed: int) -> Any:
        import torch

        made = model(seed)
        for module in made.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        return made.double()

    forget, retain, unseen = (encoded.take(range(*ends)) for ends in ((0, 7), (7, 40), (40, 60)))
    return TinyJob(name, task, plain, forget, retain, unseen, texts)
