"""Tiny models, a tokenizer and labelled records, built in process: for Expunge's own tests and for plug-in authors."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from expunge.errors import Problem, UsageError
from expunge.options import did_you_mean

__all__ = ["FAMILIES", "tiny_classifier", "tiny_tokenizer", "toy_records"]

_WORDS = 240
_CLASS_WORDS = ("river", "engine", "violin", "pepper", "comet")
_SPECIAL = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")

_ENCODER = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
_COMMON = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3, "cls_token_id": 2, "sep_token_id": 3}
_DECODER = {**_ENCODER, "num_key_value_heads": 2, "max_position_embeddings": 64}
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
    import torch
    import transformers

    if family not in FAMILIES:
        way_out = f"{did_you_mean(family, FAMILIES)}Known families: {', '.join(FAMILIES)}."
        raise UsageError(Problem("family", f'unknown family "{family}"', way_out))
    torch.manual_seed(seed)
    name, sizes = FAMILIES[family]
    names = dict(enumerate(labels))
    config = getattr(transformers, name)(
        vocab_size=len(_SPECIAL) + len(_CLASS_WORDS) + _WORDS,
        id2label=names,
        label2id={label: i for i, label in names.items()},
        **_COMMON,
        **sizes,
    )
    return transformers.AutoModelForSequenceClassification.from_config(config)


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
