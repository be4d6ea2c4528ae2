"""Names of methods, audits and tasks, found by entry points: built-ins and plug-ins by the same road."""

from __future__ import annotations

from functools import cache
from importlib.metadata import EntryPoint, entry_points
from typing import Any

from expunge.errors import Problem, UsageError
from expunge.options import did_you_mean

__all__ = ["find", "name_of", "names"]


@cache
def _group(kind: str) -> dict[str, EntryPoint]:
    return {point.name: point for point in entry_points(group=f"expunge.{kind}")}


def names(kind: str) -> list[str]:
    """Registered names of a kind (``methods``, ``audits`` or ``tasks``), sorted. Imports none of them."""
    return sorted(_group(kind))


def find(kind: str, name: str) -> Any:
    """The class registered under `name`.

    Raises:
        UsageError: No such name; the message names the nearest one.
    """
    points = _group(kind)
    if name not in points:
        way_out = f"{did_you_mean(name, points)}Known {kind}: {', '.join(sorted(points))}."
        where = "audit.audits or audit.more" if kind == "audits" else f"{kind.rstrip('s')}.name"
        raise UsageError(Problem(where, f'unknown name "{name}"', way_out))
    return points[name].load()


def name_of(kind: str, cls: type) -> str:
    """The name `cls` is registered under, or its own class name where it is not registered."""
    target = f"{cls.__module__}:{cls.__qualname__}"
    return next((name for name, point in _group(kind).items() if point.value == target), cls.__name__)
