"""Look at a model folder before any weight loads; load it; find its last linear layer."""

from __future__ import annotations

import copy
import hashlib
import json
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
from torch import Tensor

from expunge.config_paths import meant_beside, path_problem
from expunge.errors import Problem, UsageError

__all__ = [
    "between", "cast", "fresh", "head_sizes", "inspect_folder", "is_local", "load_config", "load_model",
    "load_tokenizer", "move_back", "passes_of", "weights_of_base",
    "weights_sha256",
]  # fmt: skip

_PICKLED = ("pytorch_model*.bin", "*.pt", "*.pth", "*.ckpt")


def is_local(path: str) -> bool:
    """Whether a model is a folder here rather than a hub id."""
    return Path(path).expanduser().exists() or path.startswith((".", "/", "~")) or path.count("/") > 1


def hub_file(source: str, name: str) -> Path | None:
    """A file of a model on a hub; None where there is none, or the hub cannot be reached."""
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, HFValidationError

    try:
        return Path(hf_hub_download(source, name))
    except (EntryNotFoundError, HfHubHTTPError, HFValidationError, OSError):
        return None


def inspect_folder(path: str, *, where: str) -> list[Problem]:
    """What keeps a folder from being loaded as a model; reads file names only. Hub ids pass."""
    if not path:
        return [Problem(where, "no model is named", f"Set {where} to a model folder or a hub id.")]
    if problem := path_problem(path, where, hub=True):
        return [problem]
    if not is_local(path):
        return []
    folder = Path(path).expanduser()
    if not folder.is_dir():
        return [
            Problem(
                where,
                f'"{path}" is no folder',
                f"{meant_beside(path)}Give a folder written by save_pretrained, or a hub id.",
            )
        ]
    way_out = "Copy the file in place of the link."
    problems = [
        Problem(where, f'"{path}" holds {name}, a link out of the folder to "{target}"', way_out)
        for name, target in _outside(folder)
    ]
    if (special := _special(path)) is not None:
        return problems or special.problems(path, where=where)
    if (folder / "adapter_config.json").is_file():
        way_out = "Give a folder of either. To merge: model.merge_and_unload(), then save_pretrained elsewhere."
        return [Problem(where, f'"{path}" holds an adapter beside a whole model', way_out)]
    if not (folder / "config.json").is_file():
        problems.append(Problem(where, f'"{path}" has no config.json', "Give a folder written by save_pretrained."))
    if not any(folder.glob("*.safetensors")):
        pickled = sorted(file.name for pattern in _PICKLED for file in folder.glob(pattern))
        if pickled:
            what = f'"{path}" holds pickled weights only ({", ".join(pickled)})'
            way_out = "Pickle can run code. Load the model where you trust it and save_pretrained it: that writes safetensors."
        else:
            what = f'"{path}" holds no weights'
            way_out = "Give a folder with model.safetensors."
        problems.append(Problem(where, what, way_out))
    return problems


def _outside(folder: Path) -> list[tuple[str, str]]:
    """Links in a folder, and in those below, to files outside it: others may change them, or what they lead to is no part
    of the model. A hub cache links to its own files."""
    own = folder.resolve()
    if own.parent.name == "snapshots":
        own = own.parent.parent
    links = [file for file in sorted(folder.rglob("*")) if file.is_symlink()]
    return [
        (str(file.relative_to(folder)), os.readlink(file))
        for file in links
        if not file.exists() or not file.resolve().is_relative_to(own)
    ]


def load_config(path: str, *, where: str, trust_remote_code: bool = False) -> Any:
    """The model's configuration.

    Raises:
        UsageError: It cannot be had, or is not JSON.
    """
    from transformers import AutoConfig

    from expunge import adapter_folder

    if adapter_folder.is_adapter(path):
        return adapter_folder.model_config(path, where=where, trust_remote_code=trust_remote_code)
    try:
        return AutoConfig.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # transformers raises many kinds; each means the model cannot be had
        raise UsageError(Problem(where, *_unloadable(path, error))) from None


def _unloadable(path: str, error: Exception) -> tuple[str, str]:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()] or [type(error).__name__]
    reason = lines[0]
    if "trust_remote_code" in str(error):
        reason = "it wants its own code run, which is done with model.trust_remote_code=true only, where you trust its author"
    elif "ignore_mismatched_sizes" in str(error):
        reason = "its weights have other shapes than its config.json says"
    elif reason.endswith(":") and len(lines) > 1:  # validators give the field first, then what is wrong with it
        reason = f"{reason} {lines[1]}"
    if not is_local(path):
        reason = f"there is no such folder here, and as a hub id: {reason}"
    way_out = "Give a folder written by save_pretrained, or a hub id."
    return (
        f'"{path}" cannot be loaded ({reason.rstrip(".")})',
        f"{'' if is_local(path) else meant_beside(path)}{way_out}",
    )


def load_tokenizer(path: str, *, where: str, trust_remote_code: bool = False) -> Any:
    """The model's tokenizer.

    Raises:
        UsageError: It cannot be had, or has no padding token.
    """
    from transformers import AutoTokenizer

    from expunge import adapter_folder

    if adapter_folder.is_adapter(path):
        path = adapter_folder.tokenizer_source(path)
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=trust_remote_code)
    except Exception as error:  # as in load_config
        what, _ = _unloadable(path, error)
        way_out = "Save the tokenizer into the model folder: tokenizer.save_pretrained(folder)."
        raise UsageError(Problem(where, f"the tokenizer of {what}", way_out)) from None
    files = {"tokenizer.json", *tokenizer.vocab_files_names.values()}
    if is_local(path) and not any((Path(path).expanduser() / file).is_file() for file in files):
        # transformers makes an empty tokenizer of such a folder, and every text would be unknown words.
        way_out = "Save the tokenizer into the model folder: tokenizer.save_pretrained(folder)."
        raise UsageError(Problem(where, f'the tokenizer of "{path}" is missing', way_out))
    if tokenizer.pad_token_id is None:
        way_out = "Set one (tokenizer.pad_token = ..., model.config.pad_token_id = ...) and save both again."
        raise UsageError(Problem(where, f'the tokenizer of "{path}" has no padding token', way_out))
    return tokenizer


def load_model(
    path: str, auto_class: str, *, where: str, new_head: dict[str, Any] | None = None, **options: Any
) -> Any:
    """The model in float32, from safetensors only; what a folder of an adapter, SISA, offset or O3 stands for as one object.

    Args:
        path: Folder or hub id.
        auto_class: Name of a transformers auto class.
        where: The setting, for messages.
        new_head: For a base model that gets a fresh head: `num_labels`, `id2label`, `label2id`. A head of that size that
            the folder already has is kept.
        options: Passed on, e.g. `trust_remote_code`.

    Raises:
        UsageError: Weights are missing, broken or not finite.
    """
    special = _special(path)
    if special is not None and new_head:
        what = f'"{path}" is {special.noun}, no base model'
        raise UsageError(Problem(where, what, "Give the model that was fine-tuned from."))
    if special is not None:
        return special.load(path, auto_class, where=where, **options)
    return _loaded(path, auto_class, where=where, new_head=new_head, **options)[0]


class _Folder(NamedTuple):
    """A kind of folder that holds more than a plain model."""

    noun: str
    is_own: Callable[[str], bool]
    problems: Callable[..., list[Problem]]
    load: Callable[..., Any]


def _special(path: str) -> _Folder | None:
    """Which kind of folder it is; None for a plain model, or a hub id."""
    from expunge import adapter_folder
    from expunge.o3 import folder as o3
    from expunge.offset import folder as offset
    from expunge.sisa import folder as sisa

    kinds = (
        _Folder("a SISA folder", sisa.is_sisa, sisa.problems, sisa.load_ensemble),
        _Folder("an offset folder", offset.is_offset, offset.problems, offset.load_offset),
        _Folder("an O3 folder", o3.is_o3, o3.problems, o3.load),
        _Folder("an adapter", adapter_folder.is_adapter, adapter_folder.problems, adapter_folder.load),
    )
    return next((kind for kind in kinds if kind.is_own(path)), None)


def _loaded(
    path: str, auto_class: str, *, where: str, new_head: dict[str, Any] | None, **options: Any
) -> tuple[Any, set[str]]:
    """`load_model` of a plain folder, and the names of the weights that the folder has not got."""
    head_sizes = {"ignore_mismatched_sizes": True, **new_head} if new_head else {}
    model, made = _from_pretrained(path, auto_class, where=where, **head_sizes, **options)
    missing = sorted(made)
    if new_head:  # a fresh head is what is wanted, and a pooler may be new too; the encoder must be there
        missing = _encoders(model, missing)
    if missing:
        way_out = "Give a whole model: a fine-tuned one with its classification head, or the base it was trained from."
        what = f'"{path}" lacks weights: {", ".join(missing[:4])}{" ..." if len(missing) > 4 else ""}'
        raise UsageError(Problem(where, what, way_out))
    return model, made


def fresh(path: str, auto_class: str, config: Any, *, where: str, **options: Any) -> tuple[Any, set[str]]:
    """A base model of that configuration in float32, and the names of the weights of its head that the folder has not got.

    Raises:
        UsageError: Weights below the head are missing, broken or not finite.
    """
    sizes = {"config": config, "ignore_mismatched_sizes": True}
    model, made = _from_pretrained(path, auto_class, where=where, **sizes, **options)
    if missing := _encoders(model, sorted(made)):
        way_out = "Give the base that the adapter was trained on."
        raise UsageError(Problem(where, f'"{path}" lacks weights: {", ".join(missing[:4])}', way_out))
    return model, made


def _encoders(model: Any, names: Sequence[str]) -> list[str]:
    """Weights below the head; a pooler may be new as a head may."""
    inside = f"{model.base_model_prefix}."
    return [name for name in names if name.startswith(inside) and "pooler" not in name]


def _from_pretrained(path: str, auto_class: str, *, where: str, **options: Any) -> tuple[Any, set[str]]:
    """A model in float32 whose weights are finite, and the names of those that were made, not read."""
    import transformers

    cls = getattr(transformers, auto_class)
    if not torch.cuda.is_available():
        # With attention dropout torch's CPU kernel falls back to plain arithmetic, slower than transformers' own.
        options.setdefault("attn_implementation", "eager")
    try:
        model, info = cls.from_pretrained(
            path, dtype=torch.float32, use_safetensors=True, output_loading_info=True, **options
        )
    except Exception as error:  # as in load_config
        raise UsageError(Problem(where, *_unloadable(path, error))) from None
    broken = [name for name, tensor in model.named_parameters() if not torch.isfinite(tensor).all()]
    if broken:
        way_out = "The model was saved broken; give an intact copy."
        raise UsageError(Problem(where, f'"{path}" holds NaN or infinite weights ({broken[0]})', way_out))
    return model, set(info["missing_keys"])


def weights_of_base(base: str, model: Any, auto_class: str, **options: Any) -> dict[str, Tensor]:
    """Weights of the base by their names in a model fine-tuned from it; those it has not got are left out.

    Of a classifier those below its head, which came with the fine-tuning; of a language model all.

    Args:
        base: Folder or hub id of the base.
        model: The fine-tuned model.
        auto_class: Name of its transformers auto class.
        options: Passed on, e.g. `trust_remote_code`.
    """
    head = {"num_labels": model.config.num_labels}
    found, made = _loaded(base, auto_class, where="retrain.base", new_head=head, **options)
    prefix = f"{found.base_model_prefix}."
    inside = {
        n: p.detach()
        for n, p in found.named_parameters()
        if n not in made and (n.startswith(prefix) or found.get_output_embeddings() is not None)
    }
    own = {_without_adapter(n): (n, p) for n, p in model.named_parameters()}
    return {own[n][0]: p for n, p in inside.items() if n in own and own[n][1].shape == p.shape}


def _without_adapter(name: str) -> str:
    """A parameter's name in the model that an adapter of peft's was put on."""
    return name.removeprefix("base_model.model.").replace(".base_layer.", ".")


def between(base: Mapping[str, Tensor], model: Any, alpha: float) -> Any:
    """A copy of a fine-tuned model with its weights on the way from its base: ``base + alpha * (model - base)``.

    What the base has not got, such as the head, is the model's own (as in WiSE-FT, Wortsman et al., arXiv 2109.01903).

    Args:
        base: What `weights_of_base` gives.
        model: The fine-tuned model.
        alpha: 0 is the base, 1 the model.
    """
    mixed = copy.deepcopy(model).eval().requires_grad_(False)
    move_back(mixed, base, 1 - alpha)
    return mixed


def move_back(model: Any, base: Mapping[str, Tensor], share: float) -> None:
    """Move a model's weights this share of the way back to its base, in place; see `between`."""
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name in base:
                parameter.lerp_(base[name].to(parameter), share)


def weights_sha256(model: Any, dtype: torch.dtype | None = None) -> str:
    """Hash of all parameters and buffers: names, dtypes, shapes and bytes, in name order; as if in `dtype`, where given."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        if dtype is not None and tensor.is_floating_point():
            tensor = tensor.to(dtype)
        digest.update(json.dumps([name, str(tensor.dtype), list(tensor.shape)]).encode())
        digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def cast(model: Any, dtype: torch.dtype) -> Any:
    """The model with weights and saved buffers in a dtype; what it makes itself, as rotary frequencies, stays as it is."""
    own = [
        (module, name, module._buffers[name])
        for module in model.modules()
        for name in module._non_persistent_buffers_set
        if module._buffers.get(name) is not None
    ]
    model.to(dtype)
    for module, name, buffer in own:
        module._buffers[name] = buffer
    return model


def passes_of(model: Any) -> float:
    """Passes of a plain model that one of this model counts as: 1, but for a model that says otherwise."""
    return float(getattr(model, "passes", 1.0))


def head_sizes(label_names: Sequence[str]) -> dict[str, Any]:
    """`new_head` of `load_model` for these classes."""
    names = dict(enumerate(label_names))
    return {"num_labels": len(names), "id2label": names, "label2id": {name: i for i, name in names.items()}}
