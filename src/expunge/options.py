"""Frozen dataclasses whose fields are checked when they are built: the base of every config section, method and audit."""

from __future__ import annotations

import dataclasses
import difflib
from collections.abc import Mapping
from functools import cache
from typing import Annotated, Any, Self, get_origin, get_type_hints

from annotated_types import Ge, Gt, Le, Lt

from expunge.errors import Problem, UsageError

__all__ = [
    "Fraction", "NonNegative", "NonNegativeInt", "Options", "Passes", "Positive", "PositiveInt", "Probability", "Seed", "Share",
    "did_you_mean", "option",
]  # fmt: skip

Positive = Annotated[float, Gt(0)]
NonNegative = Annotated[float, Ge(0)]
Fraction = Annotated[float, Gt(0), Lt(1)]
Share = Annotated[float, Gt(0), Le(1)]
Probability = Annotated[float, Ge(0), Le(1)]
PositiveInt = Annotated[int, Ge(1)]
NonNegativeInt = Annotated[int, Ge(0)]
Passes = Annotated[float, Gt(0), Le(100_000)]
Seed = Annotated[int, Ge(0), Lt(2**32)]


def option(default: Any, help: str) -> Any:  # noqa: A002 - the word a user sees
    """A dataclass field with its one default and the sentence `expunge show` and `expunge init` print beside it."""
    return dataclasses.field(default=default, metadata={"help": help})


def did_you_mean(word: str, known: Any) -> str:
    """`Did you mean "x"? ` for the nearest of `known`, or an empty string."""
    near = difflib.get_close_matches(word, list(known), n=1)
    return f'Did you mean "{near[0]}"? ' if near else ""


@cache
def _adapters(cls: type) -> dict[str, Any]:
    from pydantic import ConfigDict, TypeAdapter

    hints = get_type_hints(cls, include_extras=True)
    config = ConfigDict(strict=True, allow_inf_nan=False, arbitrary_types_allowed=True)
    adapters = {}
    for field in dataclasses.fields(cls):  # pyright: ignore[reportArgumentType]
        hint = hints[field.name]
        own_config = isinstance(hint, type) and dataclasses.is_dataclass(hint)
        adapters[field.name] = None if own_config else TypeAdapter(hint, config=config)
    return adapters


def _freeze(value: Any) -> Any:
    return tuple(_freeze(item) for item in value) if isinstance(value, list) else value


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """Base of dataclasses that users fill in.

    Every field is checked against its annotation when the object is built (strictly: no text where a number belongs,
    no NaN), and all problems are raised together.

    Raises:
        UsageError: One problem per bad field.
    """

    def __post_init__(self) -> None:
        problems = self.problems({field.name: getattr(self, field.name) for field in dataclasses.fields(self)})
        if problems:
            raise UsageError(problems)

    @classmethod
    def section(cls) -> str:
        """The word problems and TOML use for this object."""
        return cls.__name__

    @classmethod
    def problems(cls, values: Mapping[str, Any], section: str | None = None) -> list[Problem]:
        """All that is wrong with `values` (field name -> value), without building the object."""
        from pydantic import ValidationError

        found: list[Problem] = []
        where = section if section is not None else cls.section()
        adapters = _adapters(cls)
        for name, value in values.items():
            if name not in adapters:
                way_out = f"{did_you_mean(name, adapters)}Known keys: {', '.join(sorted(adapters)) or 'none'}."
                found.append(Problem(f"{where}.{name}", f'unknown key "{name}"', way_out))
                continue
            if adapters[name] is None:
                continue
            try:
                adapters[name].validate_python(_freeze(value))
            except ValidationError as error:
                reasons = "; ".join(dict.fromkeys(detail["msg"] for detail in error.errors()))
                found.append(Problem(f"{where}.{name}", f"{value!r} is not allowed", f"{reasons}."))
        return found

    @classmethod
    def build(cls, values: Mapping[str, Any], section: str | None = None) -> Self:
        """The object from plain values (lists become tuples, and one word where several are allowed a tuple of it).

        Raises:
            UsageError: Unknown keys and bad values, all at once.
        """
        hints = get_type_hints(cls, include_extras=True)
        given = {
            name: (value,) if isinstance(value, str) and get_origin(hints.get(name)) is tuple else _freeze(value)
            for name, value in values.items()
        }
        if problems := cls.problems(given, section):
            raise UsageError(problems)
        return cls(**given)

    def values(self) -> dict[str, Any]:
        """Field name -> value, as TOML and JSON can hold it."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}

    @classmethod
    def describe(cls) -> list[tuple[str, Any, str]]:
        """(name, default, help) of every field, in order."""
        return [(f.name, f.default, f.metadata.get("help", "")) for f in dataclasses.fields(cls)]
