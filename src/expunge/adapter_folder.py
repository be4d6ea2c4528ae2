"""A folder with a LoRA adapter alone, as peft's `save_pretrained` writes it: opened as its base with the adapter merged."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from expunge.adapter import PEFT
from expunge.errors import Problem, UsageError

__all__ = ["base_of", "is_adapter", "load", "model_config", "problems", "tokenizer_source"]

_CONFIG, _WEIGHTS = "adapter_config.json", "adapter_model.safetensors"
_CLASSES = {
    "SEQ_CLS": "AutoModelForSequenceClassification",
    "TOKEN_CLS": "AutoModelForTokenClassification",
    "CAUSAL_LM": "AutoModelForCausalLM",
}
_HEADS = ("classifier.weight", "score.weight", "out_proj.weight")
_TOKENIZER = ("tokenizer.json", "tokenizer_config.json")


def is_adapter(path: str) -> bool:
    """Whether a folder holds an adapter and no whole model."""
    folder = Path(path).expanduser()
    return (folder / _CONFIG).is_file() and not (folder / "config.json").is_file()


def base_of(path: str) -> str:
    """Folder or hub id of the model that an adapter belongs to; empty where it names none."""
    named = _settings(path).get("base_model_name_or_path")
    return named if isinstance(named, str) else ""


def _settings(path: str) -> dict[str, Any]:
    try:
        found = json.loads((Path(path).expanduser() / _CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def problems(path: str, *, where: str) -> list[Problem]:
    """What keeps an adapter from being merged into its base; reads file names and settings only."""
    from importlib.util import find_spec

    from expunge.models import inspect_folder

    merge = "Merge it yourself: model.merge_and_unload(), then save_pretrained; and give that folder."
    settings, found = _settings(path), list[Problem]()
    if not settings:
        return [Problem(where, f'{_CONFIG} of "{path}" is no JSON of an adapter\'s settings', merge)]
    if not find_spec("peft"):
        what = f'"{path}" holds an adapter, and peft is not installed'
        found.append(Problem(where, what, f"{PEFT} Or merge the adapter before."))
    if (kind := settings.get("peft_type")) != "LORA":
        found.append(Problem(where, f'"{path}" holds an adapter of the kind {kind}; LORA is known', merge))
    if (task := settings.get("task_type")) not in _CLASSES:
        what = f'the adapter in "{path}" is for the task {task}; known are {", ".join(_CLASSES)}'
        found.append(Problem(where, what, f"Write the right one into {_CONFIG}, as task_type."))
    if not (Path(path).expanduser() / _WEIGHTS).is_file():
        what = f'"{path}" has no {_WEIGHTS}'
        found.append(
            Problem(where, what, "Load the adapter where you trust it and save_pretrained it: that writes safetensors.")
        )
    base, way_out = base_of(path), f"Name it in {_CONFIG}, as base_model_name_or_path. {merge}"
    if not base:
        found.append(Problem(where, f'the adapter in "{path}" does not name its base', way_out))
    elif is_adapter(base):
        found.append(Problem(where, f'the base "{base}" of the adapter in "{path}" is an adapter itself', merge))
    elif of_base := inspect_folder(base, where=f"{where}, base of the adapter"):
        found += [Problem(one.where, one.what, f"{one.way_out} {way_out}") for one in of_base]
    return found


def model_config(path: str, *, where: str, trust_remote_code: bool = False) -> Any:
    """The configuration that the base has with the adapter's head.

    Raises:
        UsageError: The base's cannot be had, or there is no model of the adapter's task for it.
    """
    import transformers

    from expunge.models import load_config

    config = load_config(base_of(path), where=where, trust_remote_code=trust_remote_code)
    auto_class = _CLASSES[_settings(path)["task_type"]]
    mapping = getattr(transformers, auto_class)._model_mapping
    if type(config) not in mapping:
        what = f'the base of the adapter in "{path}" is a {config.model_type}, of which there is no {auto_class}'
        raise UsageError(Problem(where, what, "Give an adapter of a model that transformers knows for this task."))
    count = None if auto_class.endswith("CausalLM") else _classes(path)
    if count is not None and count != config.num_labels:
        config.num_labels = count
    config.architectures = [mapping[type(config)].__name__]
    return config


def _classes(path: str) -> int | None:
    """How many classes the adapter's own head tells apart; None where it has none."""
    sizes = [shape[0] for name, shape in _shapes(path).items() if name.endswith(_HEADS)]
    return sizes[0] if len(sizes) == 1 else None


def _shapes(path: str) -> dict[str, list[int]]:
    """Names and shapes of the adapter's weights; empty where they cannot be read, which loading them tells."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(Path(path).expanduser() / _WEIGHTS, framework="pt") as stored:
            return {name: stored.get_slice(name).get_shape() for name in stored.keys()}  # noqa: SIM118
    except (OSError, SafetensorError):
        return {}


def tokenizer_source(path: str) -> str:
    """Where the tokenizer is: with the adapter, else with its base."""
    folder = Path(path).expanduser()
    return path if any((folder / name).is_file() for name in _TOKENIZER) else base_of(path)


def load(path: str, auto_class: str, *, where: str, **options: Any) -> Any:
    """The base with the adapter added to its weights: a plain model, in float32.

    Raises:
        UsageError: Weights are missing, broken or not finite.
    """
    from peft import PeftModel
    from safetensors import SafetensorError
    from torch import isfinite

    from expunge.models import fresh

    config = model_config(path, where=where, trust_remote_code=bool(options.get("trust_remote_code")))
    model, made = fresh(base_of(path), auto_class, config, where=where, **options)
    stored = _shapes(path)
    if missing := sorted(name for name in made if stored and f"base_model.model.{name}" not in stored):
        way_out = "Save the adapter with its head: modules_to_save in its LoraConfig; or merge it before."
        what = f'neither the adapter in "{path}" nor its base has {", ".join(missing[:4])}'
        raise UsageError(Problem(where, what, way_out))
    try:
        whole = PeftModel.from_pretrained(model, str(Path(path).expanduser()), torch_device="cpu")
    except (OSError, KeyError, RuntimeError, ValueError, SafetensorError) as error:
        reason = str(error).splitlines()[0]
        way_out = "Is it the base it was trained on? Else merge it where it works: model.merge_and_unload()."
        raise UsageError(
            Problem(where, f'the adapter in "{path}" cannot be put on its base ({reason})', way_out)
        ) from None
    merged = whole.merge_and_unload().requires_grad_(True)
    broken = [name for name, tensor in merged.named_parameters() if not isfinite(tensor).all()]
    if broken:
        what = f'the adapter in "{path}" holds NaN or infinite weights ({broken[0]})'
        raise UsageError(Problem(where, what, "It was saved broken; give an intact copy."))
    return merged
