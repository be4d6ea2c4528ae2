"""What decides a run's result, as salted hashes: by them a process knows the run that another one left."""

from __future__ import annotations

import hashlib
import hmac
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.history.hashes import code_sha256
from expunge.privacy import salt_check
from expunge.record import environment

if TYPE_CHECKING:
    from expunge.checks import Prepared
    from expunge.data.records import Records

__all__ = ["fingerprint"]

_NEUTRAL = (("training", "checkpoint_every"), ("training", "cache"), ("privacy", "salt_file"))
"""Settings that change no figure: when and where things are kept."""


def fingerprint(prepared: Prepared) -> dict[str, str]:
    """Hashes by what a user calls the thing: every section of the settings, data, request, models, versions.

    All but the versions are keyed by the user's salt: who lacks it cannot try out records, ids or settings. Of model folders
    the names, sizes and times of the files are taken; the weights that are erased from are hashed once they are loaded.
    """
    settings = prepared.config.as_dict()
    for section, key in _NEUTRAL:
        settings[section].pop(key, None)
    records = {"train": prepared.train, "calibration": prepared.calibration, "evaluation": prepared.evaluation}
    records |= {f"earlier request {number}": past for number, past in prepared.past.items()}
    retrain = prepared.config.retrain
    parts: dict[str, Any] = {
        **settings,
        "data": [settings["data"], {name: _content(kept) for name, kept in records.items()}],
        "request": [settings["request"], list(prepared.request.forget), list(prepared.request.retain)],
        "model": [settings["model"], _files(prepared.config.model.path)],
        "retrain": [
            settings["retrain"], str(prepared.recipe), [_files(path) for path in (retrain.base, *retrain.models) if path]
        ],
    }  # fmt: skip
    found = {
        name: hmac.new(prepared.salt, json.dumps(part, default=str).encode(), hashlib.sha256).hexdigest()
        for name, part in parts.items()
    }
    versions = hashlib.sha256(json.dumps([environment(), code_sha256()]).encode()).hexdigest()
    return {**found, "salt": salt_check(prepared.salt), "versions of Expunge, torch or another package": versions}


def _content(records: Records) -> str:
    digest = hashlib.sha256()
    for row in zip(records.ids, records.texts, records.labels, strict=True):
        digest.update(json.dumps(row).encode())
    digest.update(json.dumps(records.alternatives).encode())
    return digest.hexdigest()


def _files(path: str) -> list[tuple[str, int, int]]:
    """Names, sizes and times of a model folder's files; nothing where it is a hub id."""
    folder = Path(path).expanduser()
    files = (file for file in sorted(folder.iterdir()) if file.is_file()) if path and folder.is_dir() else ()
    return [(file.name, file.stat().st_size, file.stat().st_mtime_ns) for file in files]
