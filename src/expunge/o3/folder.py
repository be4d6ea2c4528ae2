"""O3 folders on disk: look at one before weights load, write one, load it."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from safetensors import SafetensorError

from expunge.adapter import PEFT
from expunge.errors import Problem, RunError, UsageError
from expunge.models import load_model, load_tokenizer, weights_sha256
from expunge.o3.adapters import Gate, add_adapter, plain_weights, put_adapter, set_active, weights_of
from expunge.o3.detector import Detector
from expunge.o3.encoder import OWN, load_encoder, own_encoder
from expunge.o3.manifest import FILE, Manifest, request_name
from expunge.o3.model import O3Model

__all__ = ["is_o3", "load", "manifest_of", "problems", "write"]

ORIGINAL, ENCODER = "original", "encoder"
_ADAPTER, _DETECTOR, _READING = "adapter.safetensors", "detector.safetensors", "detector_adapter.safetensors"
_WAY_OUT = "Give the folder as `expunge run` wrote it."


def is_o3(path: str | Path) -> bool:
    """Whether a path is an O3 folder."""
    return bool(str(path)) and (Path(path).expanduser() / FILE).is_file()


def manifest_of(path: str, model: Any) -> Manifest | None:
    """What an O3 folder, or an O3 model in memory, says of itself; None for any other model.

    Raises:
        UsageError: The folder's manifest is broken.
    """
    if model is not None:
        return model.manifest if isinstance(model, O3Model) else None
    return Manifest.read(path) if is_o3(path) else None


def problems(path: str, *, where: str) -> list[Problem]:
    """What keeps an O3 folder from being loaded; reads no weights."""
    try:
        manifest = Manifest.read(path, where=where)
    except UsageError as error:
        return list(error.problems)
    if find_spec("peft") is None:
        return [Problem(where, f'"{path}" holds LoRA adapters, which need peft', PEFT)]
    folder = Path(path).expanduser()
    wanted = [(folder, "config.json"), (folder / ORIGINAL, "*.safetensors")]
    wanted += [(folder / ENCODER, "*.safetensors")] if manifest.encoder != OWN else []
    for number in range(1, len(manifest.requests) + 1):
        wanted += [(folder / request_name(number), file) for file in (_ADAPTER, _DETECTOR, _READING)]
    missing = [str(place.relative_to(folder) / name) for place, name in wanted if not any(place.glob(name))]
    if missing:
        shown = ", ".join(missing[:4]) + (" ..." if len(missing) > 4 else "")
        return [Problem(where, f'the O3 folder "{path}" lacks {shown}', _WAY_OUT)]
    return []


def write(model: O3Model, place: Path) -> None:
    """Write the original, the encoder where it is another, and every request's adapters and detector."""
    from safetensors.numpy import save_file as save_arrays
    from safetensors.torch import save_file

    place.mkdir(parents=True, exist_ok=True)
    model.model.save_pretrained(place / ORIGINAL, state_dict=plain_weights(model.model))
    model.tokenizer.save_pretrained(place / ORIGINAL)
    if not model.encoder.own:
        model.encoder.model.save_pretrained(place / ENCODER, state_dict=plain_weights(model.encoder.model))
        model.encoder.tokenizer.save_pretrained(place / ENCODER)
    for number, detector in enumerate(model.detectors, start=1):
        name = request_name(number)
        (place / name).mkdir()
        for file, inner in ((_ADAPTER, model.model), (_READING, model.encoder.model)):
            tensors = {key: p.detach().cpu().contiguous() for key, p in weights_of(inner, name).items()}
            save_file(tensors, place / name / file)
        save_arrays(detector.arrays(), place / name / _DETECTOR)
    model.config.save_pretrained(place)
    (place / FILE).write_text(model.manifest.to_json(), encoding="utf-8")


def load(path: str, auto_class: str, *, where: str, **options: Any) -> O3Model:
    """The model in an O3 folder, in eval mode.

    Raises:
        UsageError: It is broken, changed, or made for another task.
    """
    if found := problems(path, where=where):
        raise UsageError(found)
    manifest = Manifest.read(path, where=where)
    if manifest.auto_class != auto_class:
        what = f'the O3 folder "{path}" holds a model of {manifest.auto_class}, not {auto_class}'
        raise UsageError(Problem(where, what, "Give data of the task it was made for."))
    folder = Path(path).expanduser().absolute()
    original = load_model(str(folder / ORIGINAL), auto_class, where=where, **options)
    tokenizer = load_tokenizer(str(folder / ORIGINAL), where=where)
    if weights_sha256(original) != manifest.original_sha256:
        raise UsageError(Problem(where, f'the original in "{path}" has changed since the requests', _WAY_OUT))
    if manifest.encoder == OWN:
        encoder = own_encoder(original, tokenizer, manifest.length)
    else:
        encoder = load_encoder(str(folder / ENCODER), tokenizer, manifest.encoder)
    if weights_sha256(encoder.model) != manifest.encoder_sha256:
        raise UsageError(Problem(where, f'the encoder in "{path}" has changed since the requests', _WAY_OUT))
    try:
        return _with_requests(folder, O3Model(original, tokenizer, encoder, [], Gate(), manifest))
    except (SafetensorError, KeyError, RunError) as error:
        raise UsageError(Problem(where, f'a request in "{path}" cannot be read ({error})', _WAY_OUT)) from None


def _with_requests(folder: Path, model: O3Model) -> O3Model:
    from safetensors.numpy import load_file as load_arrays
    from safetensors.torch import load_file

    for number, request in enumerate(model.manifest.requests, start=1):
        name = request_name(number)
        add_adapter(model.model, name, request["rank"], 0, model.gate)
        put_adapter(model.model, name, load_file(folder / name / _ADAPTER))
        add_adapter(model.encoder.model, name, request["encoder_rank"], 0)
        put_adapter(model.encoder.model, name, load_file(folder / name / _READING))
        model.detectors.append(Detector.of(load_arrays(folder / name / _DETECTOR)))
    model.encoder.use(None)
    set_active(model.model, [request_name(i + 1) for i in range(len(model.detectors))])
    return model.eval()
