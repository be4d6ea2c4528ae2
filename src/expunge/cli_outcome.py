"""What a command shows of its run: progress, the record, and an exit code where a required verdict was not reached."""

from __future__ import annotations

import sys
from typing import Any

import typer

from expunge import processes

__all__ = ["gate", "show_progress", "show_record"]


def show_progress() -> Any:
    """Of several processes the first shows progress."""
    from expunge.progress import ConsoleProgress, Progress

    return ConsoleProgress() if processes.first() else Progress()


def show_record(record: Any, as_json: bool) -> None:
    """Print the record, as JSON or summed up."""
    if as_json:
        print(record.to_json(), end="")
        return
    from expunge.summary import print_summary

    print_summary(record)


def gate(record: Any) -> None:
    """Say which verdict was required and not reached.

    Raises:
        typer.Exit: With code 3, where it was not.
    """
    from expunge.verdict import reached

    required = record.config["audit"]["require"]
    if required and not reached(record.verdict, required):
        if not processes.first():
            raise typer.Exit(3)
        outcome = record.verdict["classes"].get(required, {}).get("outcome", "not measured: no retrained model")
        print(f'expunge: the verdict required (--require {required}) was not reached: "{outcome}".', file=sys.stderr)
        for finding in record.findings:
            if finding.kind == "incomplete":
                print(f"  Incomplete: {finding.sentence}", file=sys.stderr)
        raise typer.Exit(3)
