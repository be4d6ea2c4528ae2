"""From the columns of a data source to records, by the model's task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from expunge.config import RunConfig
from expunge.data import sources
from expunge.data.alternatives import read_alternatives
from expunge.data.ids import given_ids
from expunge.data.records import Records, content_ids
from expunge.errors import Collector, Problem, UsageError
from expunge.tasks.kinds import Task

__all__ = ["Kind", "content_key", "picked", "read_columns", "read_records", "read_source"]

_LONGEST = 1_000_000  # characters of a record's text: more than any model reads, and less than a swallowed file


@dataclass(frozen=True)
class Kind:
    """The model's task and class names: what records are read by."""

    task: type[Task]
    names: tuple[str, ...]

    def made(self, config: RunConfig, tokenizer: Any, max_length: int) -> Task:
        """The task itself."""
        return self.task(tokenizer, max_length, self.names, **self.task.settings(config.model))  # pyright: ignore[reportCallIssue]


def read_columns(config: RunConfig, given: Any, path: str, where: str, split: str) -> sources.Columns:
    """The columns of data given in memory or by path, those that are needed among them.

    Raises:
        UsageError: No data, or a column is missing.
    """
    return picked(config, read_source(config, given, path, where, split), where, given if given is not None else path)


def read_source(config: RunConfig, given: Any, path: str, where: str, split: str) -> sources.Columns:
    """All columns of data given in memory or by path.

    Raises:
        UsageError: No data are named, or they cannot be read.
    """
    source = given if given is not None else path
    if isinstance(source, str) and not source:
        raise UsageError(Problem(where, "no data is named", f"Set {where} to a file, a saved dataset or a hub id."))
    return sources.read(source, where=where, split=split, file_format=config.data.format)


def picked(config: RunConfig, columns: sources.Columns, where: str, source: Any) -> sources.Columns:
    """Columns that have all that are needed.

    Raises:
        UsageError: One is missing.
    """
    wanted = _columns(config)
    if config.data.id is not None and where in ("data.train", "request.past"):
        wanted.append(config.data.id)
    if problems := sources.pick(columns, wanted, where=where, source=source):
        raise UsageError(problems)
    return columns


def _columns(config: RunConfig) -> list[str]:
    return [name for name in (*config.data.text, config.data.label) if name]


def read_records(columns: sources.Columns, config: RunConfig, kind: Kind, where: str, with_ids: bool) -> Records:
    """The records in columns.

    Raises:
        UsageError: Every problem of texts, labels and ids.
    """
    found = Collector()
    read = found.run(kind.task.read, columns, config.data.text, config.data.label, kind.names, where=where)
    ids: list[str] = []
    if with_ids and config.data.id is not None:
        ids = found.run(given_ids, columns[config.data.id], config.data.id, where) or []
    others: tuple[tuple[str, ...], ...] = ()
    if kind.task.of_tokens and config.data.label:
        data = config.data
        others = found.run(
            read_alternatives, columns, data.paraphrased, data.perturbed, where=where, needed=where == "data.train"
        ) or ()  # fmt: skip
    found.finish()
    texts, labels = read
    if problems := _too_long(texts, where):
        raise UsageError(problems)
    made = tuple(ids or content_ids(texts, labels))
    return Records(made, texts, labels, made_ids=not ids, alternatives=others)


def _too_long(texts: Sequence[tuple[str, ...]], where: str) -> list[Problem]:
    long = [row for row, parts in enumerate(texts) if sum(map(len, parts)) > _LONGEST]
    if not long:
        return []
    size = sum(map(len, texts[long[0]]))
    what = f"{len(long)} texts are too long, the first is row {long[0] + 1} with {size:,} characters"
    way_out = (
        f"A text has {_LONGEST:,} at most: cut it to what the model reads, or look for a quote that is not closed."
    )
    return [Problem(where, what, way_out)]


def content_key(config: RunConfig, kind: Kind | None) -> Any:
    """Function from the columns of a request of rows to ids by content."""

    def key(columns: sources.Columns) -> list[str]:
        wanted = _columns(config)
        if problems := sources.pick(columns, wanted, where="request.file", source=config.request.file):
            raise UsageError(problems)
        if kind is None:
            return ["unresolved"]  # the model's own problems come first
        return list(read_records(columns, config, kind, "request.file", False).ids)

    return key
