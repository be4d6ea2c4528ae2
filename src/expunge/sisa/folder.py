"""SISA folders on disk: look at one before weights load, load it, copy the base model into a new one."""

from __future__ import annotations

import hashlib
from importlib.util import find_spec
from pathlib import Path

import torch
from safetensors import SafetensorError

from expunge.adapter import PEFT
from expunge.errors import Problem, RunError, UsageError
from expunge.models import load_model
from expunge.sisa.ensemble import BASE, Checkpoints, Ensemble
from expunge.sisa.manifest import FILE, Manifest, Members
from expunge.sisa.training import ADAPTER_FILE, Shards, stage_folder

__all__ = [
    "base_sha256",
    "checkpoints_of",
    "copy_base",
    "is_sisa",
    "load_ensemble",
    "must_be_unchanged",
    "problems",
]

_WAY_OUT = "Give the folder as `expunge train-sisa` or `expunge run` wrote it."


def is_sisa(path: str | Path) -> bool:
    """Whether a path is a SISA folder."""
    return bool(str(path)) and (Path(path).expanduser() / FILE).is_file()


def problems(path: str, *, where: str) -> list[Problem]:
    """What keeps a SISA folder from being loaded; reads no weights."""
    try:
        manifest = Manifest.read(path, where=where)
    except UsageError as error:
        return list(error.problems)
    if manifest.members.adapter == "lora" and find_spec("peft") is None:
        return [Problem(where, f'"{path}" holds LoRA adapters, which need peft', PEFT)]
    folder = Path(path).expanduser()
    weights = "*.safetensors" if manifest.members.adapter == "none" else ADAPTER_FILE
    wanted = [(folder / BASE, "*.safetensors"), (folder, "config.json")]
    wanted += [(place, weights) for place in checkpoints_of(folder, manifest).stages.values()]
    missing = [str(place.relative_to(folder) / name) for place, name in wanted if not any(place.glob(name))]
    if missing:
        shown = ", ".join(missing[:4]) + (" ..." if len(missing) > 4 else "")
        return [Problem(where, f'the SISA folder "{path}" lacks {shown}', _WAY_OUT)]
    return []


def checkpoints_of(folder: Path, manifest: Manifest) -> Checkpoints:
    """Where the checkpoints of a SISA folder are: none for a shard without records."""
    stages = range(1, manifest.plan.slices + 1)
    held = [shard for shard, counts in enumerate(manifest.counts) if sum(counts)]
    return Checkpoints(folder / BASE, {(s, r): folder / stage_folder(s, r) for s in held for r in stages})


def load_ensemble(path: str, auto_class: str, *, where: str, trust_remote_code: bool = False) -> Ensemble:
    """The ensemble in a SISA folder, in eval mode.

    Raises:
        UsageError: It is broken, or made for another task.
    """
    if found := problems(path, where=where):
        raise UsageError(found)
    manifest = Manifest.read(path, where=where)
    if manifest.members.auto_class != auto_class:
        what = f'the SISA folder "{path}" holds models of {manifest.members.auto_class}, not {auto_class}'
        raise UsageError(Problem(where, what, "Give data of the task it was trained for."))
    checkpoints = checkpoints_of(Path(path).expanduser().absolute(), manifest)
    if manifest.members.adapter != "none":
        must_be_unchanged(manifest, checkpoints.base, where=where)
    shards = Shards(manifest.plan, manifest.recipe, manifest.members, checkpoints.base, trust_remote_code)
    held = sorted({shard for shard, _ in checkpoints.stages})
    try:
        members = {shard: shards.whole(shard, checkpoints.stages[shard, manifest.plan.slices]) for shard in held}
    except SafetensorError as error:
        raise UsageError(Problem(where, f'an adapter in "{path}" cannot be read ({error})', _WAY_OUT)) from None
    ensemble = Ensemble(members, manifest, checkpoints)
    ensemble.trust_remote_code = trust_remote_code
    return ensemble.eval()


def copy_base(base: str, members: Members, place: Path, *, seed: int, trust_remote_code: bool = False) -> None:
    """Write the encoder of a base model, without any head; layers it lacks, such as a pooler, are made from the seed."""
    names = dict(enumerate(members.label_names))
    with torch.random.fork_rng([]):
        torch.manual_seed(seed)
        model = load_model(
            base, members.auto_class, where="base", new_head={"num_labels": len(names)},
            trust_remote_code=trust_remote_code,
        )  # fmt: skip
    encoder = model.base_model
    if encoder is model:
        raise RunError(f"{type(model).__name__} does not tell its encoder from its head, which SISA needs.")
    encoder.save_pretrained(place)


def base_sha256(base: Path) -> str:
    """Hash of the files of a base model."""
    digest = hashlib.sha256()
    for file in sorted(base.iterdir()):
        digest.update(f"{file.name}\n{file.stat().st_size}\n".encode())
        with file.open("rb") as content:
            while block := content.read(1 << 24):
                digest.update(block)
    return digest.hexdigest()


def must_be_unchanged(manifest: Manifest, base: Path, *, where: str = "model.path") -> None:
    """Refuse a base model that is not the one the members were trained from.

    Raises:
        UsageError: It has changed since.
    """
    if base_sha256(base) != manifest.base_sha256:
        what = f'the base model "{base}" has changed since the ensemble was trained from it'
        raise UsageError(Problem(where, what, "Put the unchanged folder back, or train the ensemble anew."))
