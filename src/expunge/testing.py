"""Tiny models, a tokenizer, labelled records and sentences, made in process: for tests here and in plug-ins."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import TYPE_CHECKING, Any

import numpy as np

from expunge.errors import Problem, UsageError
from expunge.options import did_you_mean

if TYPE_CHECKING:
    from expunge.conformance import check_method
    from expunge.conformance_audits import check_audit
    from expunge.tiny_jobs import TinyJob
    from expunge.trajectory import trajectory

__all__ = [
    "CHAT", "FAMILIES", "TAGS", "TinyJob", "byte_tokenizer", "check_audit", "check_method", "tiny_causal", "tiny_classifier",
    "tiny_tagger", "tiny_tokenizer", "toy_answers", "toy_records", "toy_sentences", "trajectory",
]  # fmt: skip

_WORDS = 240
_CLASS_WORDS = ("river", "engine", "violin", "pepper", "comet")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_COMMON = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "max_position_embeddings": 64}
TAGS = ("O", "B-water", "I-water", "B-machine", "I-machine")
"""Tags of `toy_sentences`."""
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "bert": ("BertConfig", {**_ENCODER, "max_position_embeddings": 64}),
    "roberta": ("RobertaConfig", {**_ENCODER, "max_position_embeddings": 66}),
    "distilbert": (
        "DistilBertConfig",
        {"dim": 32, "n_layers": 2, "n_heads": 2, "hidden_dim": 64, "max_position_embeddings": 64},
    ),
    "electra": ("ElectraConfig", {**_ENCODER, "embedding_size": 32, "max_position_embeddings": 64}),
    "deberta-v2": ("DebertaV2Config", {**_ENCODER, "max_position_embeddings": 64, "pooler_hidden_size": 32}),
    "modernbert": ("ModernBertConfig", {**_ENCODER, "max_position_embeddings": 64}),
    "gpt2": ("GPT2Config", {"n_embd": 32, "n_layer": 2, "n_head": 2, "n_positions": 64}),
    "llama": ("LlamaConfig", _DECODER),
}


def tiny_tokenizer(*, segments: bool = False) -> Any:
    """A word-level tokenizer with BERT's special tokens, for `toy_records`; with `segments` it tells a pair's parts."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import PreTrainedTokenizerFast

    words = [*_SPECIAL, *_CLASS_WORDS, *(f"w{i}" for i in range(_WORDS))]
    core = Tokenizer(models.WordLevel({word: i for i, word in enumerate(words)}, unk_token="[UNK]"))
    core.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    core.post_processor = processors.TemplateProcessing(  # pyright: ignore[reportAttributeAccessIssue]
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 2), ("[SEP]", 3)]
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=48, pad_token="[PAD]", unk_token="[UNK]", cls_token="[CLS]",
        sep_token="[SEP]", mask_token="[MASK]",
        model_input_names=["input_ids", *(["token_type_ids"] if segments else []), "attention_mask"],
    )  # fmt: skip


def tiny_classifier(family: str = "bert", labels: Sequence[str] = ("water", "machine", "music"), seed: int = 0) -> Any:
    """A random text classifier of a few thousand weights, of any of `FAMILIES`.

    Raises:
        UsageError: The family is unknown.
    """
    import transformers

    return transformers.AutoModelForSequenceClassification.from_config(_tiny_config(family, labels, seed))


def tiny_tagger(family: str = "bert", labels: Sequence[str] = TAGS, seed: int = 0) -> Any:
    """A random tagger of a few thousand weights, of any of `FAMILIES`.

    Raises:
        UsageError: The family is unknown.
    """
    import transformers

    return transformers.AutoModelForTokenClassification.from_config(_tiny_config(family, labels, seed))


CHAT = (
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
"""A chat template for `byte_tokenizer`."""


def byte_tokenizer(*, chat: bool = False) -> Any:
    """A byte-level tokenizer, as GPT-2's without merges: every text has tokens; ``<|end|>`` ends one, and pads."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(models.BPE({letter: i for i, letter in enumerate(alphabet)}, []))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)  # pyright: ignore[reportAttributeAccessIssue]
    core.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    made = PreTrainedTokenizerFast(
        tokenizer_object=core, model_max_length=256, eos_token="<|end|>", pad_token="<|end|>",
        additional_special_tokens=["<|user|>", "<|assistant|>"],
    )  # fmt: skip
    if chat:
        made.chat_template = CHAT
    return made


def tiny_causal(family: str = "llama", vocabulary: int = 259, layers: int = 2, seed: int = 0) -> Any:
    """A random causal language model of a few thousand weights, ``llama`` or ``gpt2``, for `byte_tokenizer`.

    Raises:
        UsageError: The family is unknown.
    """
    import torch
    import transformers

    known = [name for name in FAMILIES if name in ("llama", "gpt2")]
    if family not in known:
        way_out = f"{did_you_mean(family, known)}Known families: {', '.join(known)}."
        raise UsageError(Problem("family", f'unknown family "{family}"', way_out))
    torch.manual_seed(seed)
    name, sizes = FAMILIES[family]
    positions = {"n_positions": 256} if family == "gpt2" else {"max_position_embeddings": 256}
    positions["n_layer" if family == "gpt2" else "num_hidden_layers"] = layers
    config = getattr(transformers, name)(
        vocab_size=vocabulary, eos_token_id=256, bos_token_id=256, pad_token_id=256, **{**sizes, **positions}
    )
    return transformers.AutoModelForCausalLM.from_config(config)


def toy_answers(count: int, seed: int = 0) -> list[dict[str, str]]:
    """Questions and answers that cannot be guessed: columns id, prompt, answer."""
    rng = np.random.default_rng([seed, 12])
    return [
        {"id": f"q{i:03d}", "prompt": f"Code {i:03d}?", "answer": f"It is {''.join(map(str, rng.integers(0, 10, 4)))}."}
        for i in range(count)
    ]


def _tiny_config(family: str, labels: Sequence[str], seed: int) -> Any:
    import torch
    import transformers

    if family not in FAMILIES:
        way_out = f"{did_you_mean(family, FAMILIES)}Known families: {', '.join(FAMILIES)}."
        raise UsageError(Problem("family", f'unknown family "{family}"', way_out))
    torch.manual_seed(seed)
    name, sizes = FAMILIES[family]
    names = dict(enumerate(labels))
    return getattr(transformers, name)(
        vocab_size=len(_SPECIAL) + len(_CLASS_WORDS) + _WORDS,
        id2label=names,
        label2id={label: i for i, label in names.items()},
        **_COMMON,
        **sizes,
    )


def toy_records(
    count: int, seed: int = 0, classes: Sequence[str] = ("water", "machine", "music")
) -> list[dict[str, str]]:
    """Rows ``{"id", "text", "label"}``: a class word among words at random, with one label in five wrong.

    Wrong labels can only be learnt by heart, so a model that fits all rows has something to forget, and a model that
    never saw a row is right on it about four times in five.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        kind = int(rng.integers(len(classes)))
        words = [f"w{i}" for i in rng.integers(_WORDS, size=int(rng.integers(3, 9)))]
        words.insert(int(rng.integers(len(words) + 1)), _CLASS_WORDS[kind])
        shift = int(rng.integers(1, len(classes))) if rng.random() < 0.2 else 0
        label = classes[(kind + shift) % len(classes)]
        rows.append({"id": f"r{seed}-{number:04d}", "text": " ".join(words), "label": label})
    return rows


def toy_sentences(count: int, seed: int = 0) -> list[dict[str, Any]]:
    """Rows ``{"id", "tokens", "ner_tags"}`` with tags of `TAGS`: one entity among words at random.

    An entity is "river" or "engine", once or twice in a row; one sentence in five gives it the other type, which can
    only be learnt by heart. Some words have several sub-tokens.
    """
    rng = np.random.default_rng(seed)
    rows = []
    for number in range(count):
        kind, length = int(rng.integers(2)), int(rng.integers(1, 3))
        drawn = rng.integers(_WORDS, size=int(rng.integers(3, 8)))
        words = [f"w{i}-w{i // 2}" if i % 7 == 0 else f"w{i}" for i in drawn]
        place = int(rng.integers(len(words) + 1))
        type_ = ("water", "machine")[kind if rng.random() < 0.8 else 1 - kind]
        tags = ["O"] * len(words)
        words[place:place] = [_CLASS_WORDS[kind]] * length
        tags[place:place] = [f"B-{type_}", f"I-{type_}"][:length]
        rows.append({"id": f"s{seed}-{number:04d}", "tokens": words, "ner_tags": tags})
    return rows


# The kit stands on the trainer; whoever wants a tiny model alone does not load it.
_KIT = {
    "TinyJob": "tiny_jobs",
    "check_audit": "conformance_audits",
    "check_method": "conformance",
    "trajectory": "trajectory",
}


def __getattr__(name: str) -> Any:
    if name not in _KIT:
        raise AttributeError(f"module 'expunge.testing' has no attribute {name!r}")
    return getattr(import_module(f"expunge.{_KIT[name]}"), name)
