"""`expunge demo` and `expunge demo-generation`: a real model forgets real records, beside one retrained without them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from expunge.cli_outcome import show_record

__all__ = ["demo", "demo_generation"]


def demo(
    out: Annotated[str, typer.Option(help="Folder to write.")] = "demo-output",
    method: Annotated[str, typer.Option(help="Method.")] = "deepcut",
    records: Annotated[int, typer.Option(help="Training records.", min=200, max=9000)] = 3000,
    cache: Annotated[Path | None, typer.Option(help="Where the fine-tuned original is kept.")] = None,
) -> None:
    """Fine-tune a real model on real records, erase 5 % of them, retrain without them, audit, report."""
    from expunge.demo import run_demo
    from expunge.progress import ConsoleProgress

    record = run_demo(out, method=method, records=records, cache=cache, progress=ConsoleProgress())
    show_record(record, False)
    print(f"Report: {Path(out) / 'erased' / 'report.html'}")


def demo_generation(
    out: Annotated[str, typer.Option(help="Folder to write.")] = "demo-generation-output",
    method: Annotated[str, typer.Option(help="Method.")] = "npo",
    people: Annotated[int, typer.Option(help="People the model learns about.", min=8, max=140)] = 24,
    cache: Annotated[Path | None, typer.Option(help="Where base and fine-tuned original are kept.")] = None,
) -> None:
    """The same on a language model: SmolLM2 learns about invented people, three of them are erased."""
    from expunge.demo_generation import run_generation_demo
    from expunge.progress import ConsoleProgress

    record, general = run_generation_demo(out, method=method, people=people, cache=cache, progress=ConsoleProgress())
    show_record(record, False)
    shares = ", ".join(
        f"{name} {found.value:.1%} [{found.low:.1%}, {found.high:.1%}]"
        for name, found in (("original", general.original), ("unlearned", general.unlearned))
    )
    print(f"General knowledge, true answer likelier than four false ones, {general.n} questions: {shares}")
    print(f"Report: {Path(out) / 'erased' / 'report.html'}")
