"""Files and folders that a run names and that are not there: told at once, before torch is imported to look into others."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from expunge.errors import Problem, UsageError
from expunge.privacy import read_salt

if TYPE_CHECKING:
    from expunge.config import RunConfig

__all__ = ["missing"]


def missing(config: RunConfig) -> list[Problem]:
    """What of a run's paths is not there; what may be a hub id passes, and so does data that is there and cannot be used.

    The words are those of the checks behind it (`expunge.models.inspect_folder`, `expunge.data.sources.read`,
    `expunge.data.request`), which find the same.
    """
    models = {
        "model.path": (config.model.path,),
        "retrain.base": (config.retrain.base,),
        "retrain.models": config.retrain.models,
    }
    data = {
        "data.train": config.data.train, "data.held_out": config.data.held_out, "data.calibration": config.data.calibration
    }  # fmt: skip
    problems = [
        Problem(where, f'"{path}" is no folder', "Give a folder written by save_pretrained, or a hub id.")
        for where, paths in models.items()
        for path in paths
        if path and _local(path) and not Path(path).expanduser().exists()
    ]
    problems += [
        Problem(where, f'"{path}" does not exist', f"Give {_FILES}, a folder from save_to_disk, or a hub id.")
        for where, path in data.items()
        if path and (_local(path) or Path(path).suffix.lower() in _SUFFIXES) and not Path(path).expanduser().exists()
    ]
    file = config.request.file
    if file and not Path(file).expanduser().exists():
        way_out = (
            "Give a text file with one id a line, or a .csv, .jsonl or .parquet file; single ids: --set request.ids=..."
        )
        what = f'"{file}" cannot be read (No such file or directory)'
        problems.append(Problem("request.file", what, way_out))
    if config.privacy.salt_file:
        try:
            read_salt(config.privacy.salt_file)
        except UsageError as error:
            problems += error.problems
    return problems


_FILES = "a .csv, .tsv, .jsonl, .json, .parquet or .conll file"
_SUFFIXES = (".csv", ".tsv", ".jsonl", ".json", ".parquet", ".conll")


def _local(path: str) -> bool:
    """Whether it is a path rather than a hub id."""
    return path.startswith((".", "/", "~")) or path.count("/") > 1
