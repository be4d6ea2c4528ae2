"""What a run writes, kept apart from the models that it reads."""

from __future__ import annotations

from pathlib import Path

from expunge.config import RunConfig
from expunge.errors import Problem
from expunge.folders import must_be_apart

__all__ = ["apart_from_models", "cache_apart", "output_apart"]


def apart_from_models(path: str | Path, config: RunConfig, *, where: str, more: tuple[str, ...] = ()) -> list[Problem]:
    """Why a model that a run reads would be changed by writing to a path.

    Args:
        path: A folder to write, or to write into.
        config: Names the model, its base, and the retrained models.
        where: What the path was given as.
        more: Other folders of models.
    """
    models = (config.model.path, config.retrain.base or "", *config.retrain.models, *more)
    return [problem for model in dict.fromkeys(models) for problem in must_be_apart(path, model, where=where)]


def cache_apart(config: RunConfig) -> list[Problem]:
    """Why a model that a run reads would be changed by its cache."""
    cache = config.training.cache
    return [] if cache is None else apart_from_models(cache, config, where="training.cache")


def output_apart(out: str | Path, config: RunConfig) -> list[Problem]:
    """Why a run cannot write a new folder: it would lie within a model that is read, or its cache within it."""
    problems, cache = apart_from_models(out, config, where="--out"), config.training.cache
    if cache is not None and Path(cache).expanduser().resolve().is_relative_to(Path(out).expanduser().resolve()):
        what = f'"{cache}" lies within the output "{out}", which is written whole when the run has ended'
        problems.append(Problem("training.cache", what, "Name another place."))
    return problems
