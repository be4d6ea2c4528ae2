"""Progress of long work, on stderr: bars in a terminal, a line a stage and a minute elsewhere. Silent unless asked for."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any

__all__ = ["ConsoleProgress", "Progress", "trainer_stage"]


_MINUTE = 60.0


class Progress:
    """Takes note of stages; this one shows nothing."""

    @contextlib.contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        """A stage of work; the value given advances it."""
        del name, total
        yield lambda amount: None

    def note(self, text: str) -> None:
        """A line worth reading."""
        del text


class ConsoleProgress(Progress):
    """Shows stages on stderr with rich."""

    def __init__(self) -> None:
        from rich.console import Console

        self._console = Console(stderr=True, highlight=False, markup=False, emoji=False)

    @contextlib.contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
        from rich.progress import Progress as Bars

        start = time.perf_counter()
        if not sys.stderr.isatty():
            yield self._by_the_minute(name, total, start)
        else:
            columns = (
                TextColumn("{task.description}", markup=False),
                BarColumn(),
                MofNCompleteColumn(),
                TimeElapsedColumn(),
            )
            with Bars(*columns, console=self._console, transient=True) as bars:
                bar = bars.add_task(name, total=total)
                yield lambda amount: bars.advance(bar, amount)
        self.note(f"{name}: done in {time.perf_counter() - start:.1f} s")

    def _by_the_minute(self, name: str, total: float | None, start: float) -> Callable[[float], None]:
        """Says where a stage stands, once a minute: for files and pipes, where no bar is drawn."""
        done, told = 0.0, start

        def advance(amount: float) -> None:
            nonlocal done, told
            done, now = done + amount, time.perf_counter()
            if now - told >= _MINUTE:
                told = now
                of = "" if total is None else f" of {total:,.0f}"
                self.note(f"{name}: {done:,.0f}{of} after {now - start:.0f} s")

        return advance

    def note(self, text: str) -> None:
        self._console.print(text)


@contextlib.contextmanager
def trainer_stage(trainer: Any, progress: Progress | None, name: str) -> Iterator[None]:
    """Show a `Trainer`'s steps as a stage, and nothing of its own console output."""
    from transformers import PrinterCallback, ProgressCallback, TrainerCallback

    for callback in (PrinterCallback, ProgressCallback):
        trainer.remove_callback(callback)
    total = trainer.args.max_steps
    if total <= 0:
        per_epoch = -(-len(trainer.train_dataset) // trainer.args.train_batch_size)
        total = round(per_epoch * trainer.args.num_train_epochs)
    with (progress or Progress()).stage(name, total) as advance:

        class Steps(TrainerCallback):
            def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
                advance(1)

        trainer.add_callback(Steps)
        yield
