"""Processes of one run that fail together: the first of those that failed says why."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from expunge import processes
from expunge.errors import ExpungeError

__all__ = ["ElsewhereError", "agreeing"]


class ElsewhereError(ExpungeError):
    """Another process failed, and says why; this one ends with the same exit code."""

    told = True

    def __init__(self, exit_code: int) -> None:
        super().__init__("another process of this run failed; its message says why.")
        self.exit_code = exit_code


@contextmanager
def agreeing() -> Iterator[None]:
    """Where one process fails within, all fail behind it, and the first of those that did says why.

    Raises:
        ElsewhereError: Another one failed.
    """
    if processes.count() == 1:
        yield
        return
    from expunge.collectives import of_all

    failure: ExpungeError | None = None
    try:
        yield
    except ExpungeError as error:
        failure = error
    codes = of_all(failure.exit_code if failure else 0)
    failed = [i for i, code in enumerate(codes) if code]
    if failure:
        failure.told = processes.number() != failed[0]
        raise failure
    if failed:
        raise ElsewhereError(int(codes[failed[0]]))
