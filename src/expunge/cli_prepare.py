"""What commands do first: quiet libraries, settings read, everything checked, before any weights load."""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from expunge import processes
from expunge.cli_options import given
from expunge.errors import Problem, UsageError

__all__ = ["prepare", "quiet_libraries"]

_INPUTS = frozenset({"data", "model", "request"})
"""Sections that other problems hang on: where one of their settings is wrong, nothing further can be said."""
_OF_METHOD = frozenset({"method", "training", "stop"})
_OF_RETRAINING = ("request.neighbours", "audit")
"""What is said of these hangs on the base model and the retrained ones as well."""


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """transformers loaded, its warnings and those of others kept to themselves."""
    import logging
    import os
    import warnings

    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import transformers

        transformers.logging.set_verbosity_error()
        transformers.logging.disable_progress_bar()
        for name in ("accelerate", "huggingface_hub", "datasets", "httpx"):
            logging.getLogger(name).setLevel(logging.CRITICAL)  # what goes wrong there is said in our own words
        yield


def prepare(config: Path | None, sets: Sequence[str] | None, options: dict[str, Any], out: str | None) -> Any:
    """A run that passed its checks.

    Raises:
        UsageError: Everything that is wrong: with the settings, and with the inputs where these do not hang on what is wrong.
    """
    from expunge.config import RunConfig
    from expunge.folders import must_be_new

    extra = must_be_new(out) if out is not None else []
    if config is None and not given(options) and not sets:
        way_out = "Give a config (`expunge init deepcut > run.toml`), or --model, --data, --forget and --held-out."
        extra = [*extra, Problem("run", "neither a config nor options are given", way_out)]
        raise UsageError(extra)
    try:
        settings = RunConfig.load(config, list(sets or ()), given(options))
    except UsageError as error:
        raise UsageError([*extra, *error.problems, *_beside(error)]) from None
    with quiet_libraries():
        from expunge.apart import output_apart
        from expunge.shareable import unshareable

        if out is not None and not extra:
            extra = output_apart(out, settings)
        return _checked(settings, [*extra, *unshareable(settings)])


def _checked(settings: Any, extra: Sequence[Problem] = ()) -> Any:
    from expunge.checks import check

    with _salt_told(settings.privacy.salt_file):
        return check(settings, extra=extra)


@contextmanager
def _salt_told(chosen: str | None) -> Iterator[None]:
    """Say it when the secret salt is made at first use."""
    from expunge.privacy import salt_path, salt_there

    new = False
    with suppress(UsageError):  # what cannot be a path is told with all else that is wrong
        new = not salt_there(chosen)
    try:
        yield
    finally:
        if new and salt_there(chosen) and processes.first():
            path = salt_path(chosen)
            print(f"A secret salt was made, by which ids are shown: {path}. Keep it like a key.", file=sys.stderr)


def _beside(refused: UsageError) -> list[Problem]:
    """What else is wrong where settings are, whose sections are left out; nothing is said of the method."""
    wrong = {problem.where.partition(".")[0] for problem in refused.problems}
    if wrong & _INPUTS or refused.rest is None:
        return []
    try:
        with quiet_libraries():
            _checked(refused.rest, refused.problems)  # a check that is refused makes no salt
    except UsageError as error:
        found = [p for p in error.problems if p.where.partition(".")[0] not in _OF_METHOD.union(wrong)]
        return [p for p in found if "retrain" not in wrong or not p.where.startswith(_OF_RETRAINING)]
    return []
