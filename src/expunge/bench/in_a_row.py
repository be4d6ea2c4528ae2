"""What benchmarks of requests in a row have in common: their rows, where a request starts, and detectors."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from expunge.errors import Problem, UsageError
from expunge.fit import device
from expunge.models import load_model
from expunge.o3.encoder import OWN
from expunge.o3.model import O3Model
from expunge.o3.request import account, prompts
from expunge.tasks.base import Encoded

__all__ = ["before", "detected", "rows_asked"]


def rows_asked(seeds: Iterable[int], methods: Iterable[str], requests: int, only: str) -> list[str]:
    """Names of rows: of each seed the original, then each method's requests, as far as they match a pattern.

    Raises:
        UsageError: None does.
    """
    named = list(methods)
    names = []
    for seed in seeds:
        names.append(f"original-{seed}")
        names += [f"{method}-{seed}-{k}" for method in named for k in range(1, requests + 1)]
    todo = [name for name in names if fnmatch(name, only)]
    if not todo:
        what = f'no row is called "{only}"'
        raise UsageError(Problem("--only", what, "Names are original-SEED, METHOD-SEED-REQUEST."))
    return todo


def before(number: int, original: Callable[[], Any], left: Callable[[int], Path], auto_class: str) -> Any:
    """The model that a request starts from: what the method left of the one before, or the original.

    Args:
        number: Number of the request, counted from 1.
        original: -> the original.
        left: Number of a request -> where its model is.
        auto_class: Name of a transformers auto class.

    Raises:
        FileNotFoundError: It is not there yet.
    """
    if number == 1:
        return original()
    folder = left(number - 1)
    if not folder.is_dir():
        raise FileNotFoundError(folder)
    return load_model(str(folder), auto_class, where="before").to(device())


def detected(model: Any, task: Any, groups: Mapping[str, Encoded]) -> dict[str, Any]:
    """How far an O3 model's newest detector loads its adapter, record by record, and what O3 took; nothing of other models.

    Args:
        model: The model.
        task: Its task.
        groups: Name -> records.
    """
    if not isinstance(model, O3Model):
        return {}
    weights = {
        name: np.round(model.detector_weights(prompts(records, task))[-1], 5).tolist()
        for name, records in groups.items()
    }
    said = account(model)["o3"]
    if said["encoder"] != OWN:
        del said["encoder"]  # a place on this machine
    return {"detector": weights, "o3": said}
