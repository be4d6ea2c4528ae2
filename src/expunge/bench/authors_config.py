"""What the benchmark of authors forgotten in a row runs over, read from one TOML file."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from annotated_types import MinLen

from expunge.bench.config import read_one_setting
from expunge.bench.tofu_config import Tofu, TofuConfig
from expunge.options import Options, PositiveInt, option

__all__ = ["Authors", "AuthorsConfig"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Authors(Options):
    """Which of TOFU's authors are forgotten, and when.

    Attributes:
        requests: Numbers of the authors of each request, counted from 1 in the order of the training files.
        questions: Questions an author has, one after the other.
    """

    requests: Annotated[tuple[tuple[PositiveInt, ...], ...], MinLen(1)] = option(
        (), "numbers of the authors of each request, in order"
    )
    questions: PositiveInt = option(20, "questions an author has")

    @classmethod
    def section(cls) -> str:
        return "authors"


@dataclasses.dataclass(frozen=True)
class AuthorsConfig:
    """The whole benchmark.

    Attributes:
        authors: Who is forgotten.
        tofu: Files, sizes, recipe and methods, as in the benchmark on TOFU: originals are shared with it.
    """

    authors: Authors
    tofu: TofuConfig

    @classmethod
    def load(cls, path: str | Path, sets: Sequence[str] = ()) -> AuthorsConfig:
        """Read a TOML file with the sections authors, tofu, recipe and methods.NAME (one trial each).

        Args:
            path: The file.
            sets: Changes of ``[tofu]``: ``seeds=[0]``; and ``methods=[...]``, which keeps only these.

        Raises:
            UsageError: Everything that is wrong with it.
        """
        parts = read_one_setting(path, [Tofu, Authors], "the benchmark", "benchmarks/authors.toml", sets)
        tofu, authors = parts.own
        return cls(authors, TofuConfig(tofu, parts.recipe, parts.methods))
