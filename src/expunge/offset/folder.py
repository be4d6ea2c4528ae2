"""Offset folders on disk: look at one before weights load, load it with its large model unchanged, write it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from expunge.errors import Problem, UsageError
from expunge.models import inspect_folder, load_model, weights_sha256
from expunge.offset.black_box import BlackBox
from expunge.offset.ensemble import OffsetModel
from expunge.offset.manifest import FILE, Large, Manifest

__all__ = ["LARGE", "is_offset", "load_offset", "problems", "write_folder"]

LARGE, SMALL, TUNED = "large", "small", "tuned"
"""Folders of the models inside an offset folder; the first only where it is a copy."""
_WAY_OUT = "Give the folder as `expunge run` wrote it."


def is_offset(path: str | Path) -> bool:
    """Whether a path is an offset folder."""
    return bool(str(path)) and (Path(path).expanduser() / FILE).is_file()


def problems(path: str, *, where: str, large: Any = None) -> list[Problem]:
    """What keeps an offset folder from being loaded; reads no weights.

    Args:
        path: The folder.
        where: The setting, for messages.
        large: The large model, where the caller has it.
    """
    try:
        manifest = Manifest.read(path, where=where)
    except UsageError as error:
        return list(error.problems)
    folder = Path(path).expanduser()
    missing = [name for name in (SMALL, TUNED) if not any((folder / name).glob("*.safetensors"))]
    missing += [name for name in ("config.json",) if not (folder / name).is_file()]
    if missing:
        return [Problem(where, f'the offset folder "{path}" lacks {", ".join(missing)}', _WAY_OUT)]
    if large is not None:
        return []
    source = _large_path(folder, manifest.large)
    if not source:
        what = f'the large model of "{path}" is a black box, which only you have'
        way_out = f'Give it: expunge.Erased.load("{path}", large=BlackBox(call, config)).'
        return [Problem(where, what, way_out)]
    found = inspect_folder(source, where=where)
    way_out = f'Put it back, or write its new place into {FILE} ("path" of "large"): its weights are checked.'
    return [Problem(where, f'the large model of "{path}": {problem.what}', way_out) for problem in found]


def _large_path(folder: Path, large: Large) -> str:
    return str(folder / LARGE) if large.copied else large.path


def load_offset(
    path: str, auto_class: str, *, where: str, large: Any = None, trust_remote_code: bool = False
) -> OffsetModel:
    """The ensemble in an offset folder, in float32 and eval mode.

    Args:
        path: The folder.
        auto_class: Name of the transformers auto class that is wanted.
        where: The setting, for messages.
        large: The large model itself, where the folder does not name it (a black box) or it is in memory anyway.
        trust_remote_code: As in transformers.

    Raises:
        UsageError: It is broken, made for another task, or its large model has changed.
    """
    if found := problems(path, where=where, large=large):
        raise UsageError(found)
    manifest = Manifest.read(path, where=where)
    folder = Path(path).expanduser()
    if manifest.auto_class != auto_class:
        what = f'the offset folder "{path}" holds models of {manifest.auto_class}, not {auto_class}'
        raise UsageError(Problem(where, what, "Give data of the task it was made for."))
    if large is None:
        source = _large_path(folder, manifest.large)
        large = load_model(source, auto_class, where=where, trust_remote_code=trust_remote_code)
    if not isinstance(large, BlackBox):
        _must_be_unchanged(large, manifest.large, path, where)
    elif manifest.large.sha256:
        way_out = "Give the model itself, or leave `large` out: the folder knows where it is."
        raise UsageError(Problem("large", f'the large model of "{path}" is no black box', way_out))
    small, tuned = (
        load_model(str(folder / name), auto_class, where=where, trust_remote_code=trust_remote_code)
        for name in (SMALL, TUNED)
    )
    return OffsetModel(large, small, tuned, manifest)


def _must_be_unchanged(model: Any, large: Large, path: str, where: str) -> None:
    if weights_sha256(model, getattr(torch, large.dtype)) != large.sha256:
        what = f'the large model of "{path}" is not the one it was made with (other weights)'
        raise UsageError(Problem(where, what, "Put the unchanged model back: the offset corrects no other."))


def write_folder(model: OffsetModel, place: Path) -> None:
    """Write the small pair, config.json and offset.json; and the large model, where a copy is wanted or nobody can find it."""
    place.mkdir(parents=True, exist_ok=True)
    large = model.about.large
    dtype = next(model.tuned.parameters()).dtype
    if not model.black_box:
        copied = large.copied or not large.path
        large = replace(
            large, path="" if copied else large.path, sha256=weights_sha256(model.large), copied=copied,
            dtype=str(dtype).removeprefix("torch."),
        )  # fmt: skip
        if copied:
            model.large.save_pretrained(place / LARGE)
    model.small.save_pretrained(place / SMALL)
    model.tuned.save_pretrained(place / TUNED)
    model.config.dtype = dtype
    model.config.save_pretrained(place)
    (place / FILE).write_text(replace(model.about, large=large).to_json(), encoding="utf-8")
