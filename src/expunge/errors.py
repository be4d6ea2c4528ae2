"""The exception tree: what went wrong, and the exit code a shell sees."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

__all__ = [
    "Collector",
    "DivergedError",
    "ExpungeError",
    "NonFiniteLossError",
    "Problem",
    "RunError",
    "UndeclaredNeedError",
    "UsageError",
    "printable",
    "rows_have",
]

_UNPRINTABLE = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")
_LONGEST = 2000


@dataclass(frozen=True)
class Problem:
    """One thing a user must change.

    Attributes:
        where: The setting, column or file it is about, e.g. ``data.text``.
        what: What is wrong, with the value seen.
        way_out: What is allowed, and what to do.
    """

    where: str
    what: str
    way_out: str

    def __str__(self) -> str:
        return f"{self.where}: {self.what}. {self.way_out}"


def rows_have(count: int) -> str:
    """``1 row has``, ``2 rows have``."""
    return "1 row has" if count == 1 else f"{count} rows have"


def printable(text: str) -> str:
    """A text as a terminal may be given it: control characters escaped, and of a very long one the middle left out."""
    if len(text) > _LONGEST:
        text = f"{text[: _LONGEST // 2]} ... {text[-_LONGEST // 2 :]}"
    return _UNPRINTABLE.sub(lambda found: found[0].encode("unicode_escape").decode(), text)


class ExpungeError(Exception):
    """Base of all errors Expunge raises on purpose.

    Attributes:
        told: Whether another process of the run says it already.
    """

    exit_code = 1
    told = False


class UsageError(ExpungeError):
    """The request cannot be carried out as given; nothing was done. Carries every problem found, not only the first."""

    exit_code = 2
    rest: Any = None
    """Where settings are wrong: the configuration without these, so that what else is wrong can be looked for."""

    def __init__(self, problems: Problem | Iterable[Problem]) -> None:
        self.problems: Sequence[Problem] = (problems,) if isinstance(problems, Problem) else tuple(problems)
        super().__init__("\n".join(str(problem) for problem in self.problems))

    def __reduce__(self) -> tuple[type[UsageError], tuple[Sequence[Problem]]]:
        return type(self), (self.problems,)  # an exception is else made again from its message


class RunError(ExpungeError):
    """The run began and could not end well; nothing was written."""


class DivergedError(RunError):
    """Training made something NaN or infinite; the same run would end there again, so nothing of it is kept."""


class NonFiniteLossError(DivergedError):
    """A loss part became NaN or infinite."""

    def __init__(self, step: int, parts: dict[str, float]) -> None:
        self.step = step
        self.parts = parts
        shown = ", ".join(f"{name} = {value}" for name, value in parts.items())
        super().__init__(
            f"training: the loss is not finite at step {step} ({shown}). "
            "Nothing was written and the original model is unchanged. "
            "Lower training.learning_rate, lower the weight of the forgetting term, or look for NaN in the model's weights."
        )

    def __reduce__(self) -> tuple[type[NonFiniteLossError], tuple[int, dict[str, float]]]:
        return type(self), (self.step, self.parts)


class UndeclaredNeedError(ExpungeError):
    """A method read something of the step that its ``needs`` does not name."""


class Collector:
    """Runs checks one after another and keeps their problems, so that all are told at once."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []

    def run(self, function: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """What the function returns; None, with its problems kept, where it raises a `UsageError`."""
        try:
            return function(*args, **kwargs)
        except UsageError as error:
            self.problems.extend(error.problems)
            return None

    def finish(self) -> None:
        """Raise what was found.

        Raises:
            UsageError: Every problem kept, each once.
        """
        if self.problems:
            raise UsageError(list(dict.fromkeys(self.problems)))
