"""A benchmark's data sets and requests: read, cut to size by a seeded draw, and listed by id."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge import registry
from expunge.bench.config import DataSet, Matrix
from expunge.data import sources
from expunge.data.held_out import overlapping
from expunge.data.records import Records, normal_form
from expunge.errors import Problem, UsageError
from expunge.tasks.labels import class_numbers

__all__ = ["Request", "Split", "make_task", "read_split", "requests"]


@dataclass(frozen=True)
class Split:
    """One data set, cut to size.

    Attributes:
        train: Records the original is trained on.
        dev: Records for the stop rule and every choice.
        test: Records for the figures.
        label_names: Class names in the model's order.
        task_name: Name of the task.
    """

    train: Records
    dev: Records
    test: Records
    label_names: tuple[str, ...]
    task_name: str


@dataclass(frozen=True)
class Request:
    """Records to forget.

    Attributes:
        name: ``random-5%`` or the name of the class.
        forget: Positions within the training records.
        retain: Positions of the others.
        test: Positions of the test records that utility is measured on: all, or those without the erased class.
        unseen: Positions of the test records that forget records are compared with: all, or those of the erased class.
        by_class: Whether a class is erased.
        parts: Where the request is a pool: positions of each of its disjoint requests.
        within: The pool that its records are part of, where it is compared with that pool's retrained models.
    """

    name: str
    forget: tuple[int, ...]
    retain: tuple[int, ...]
    test: tuple[int, ...]
    unseen: tuple[int, ...]
    by_class: bool = False
    parts: tuple[tuple[int, ...], ...] = ()
    within: Request | None = None

    def each(self) -> list[Request]:
        """The requests of a pool, each with all other training records retained; or this one."""
        if not self.parts:
            return [self]
        everything = {*self.forget, *self.retain}
        return [
            replace(self, forget=part, retain=tuple(sorted(everything - set(part))), parts=()) for part in self.parts
        ]

    def places(self) -> list[np.ndarray]:
        """Places of each request's records among `forget`."""
        return [self.places_of(part.forget) for part in self.each()]

    def places_of(self, positions: Sequence[int]) -> np.ndarray:
        """Places of training records among `forget`."""
        place = {position: i for i, position in enumerate(self.forget)}
        return np.array([place[position] for position in positions])


def read_split(name: str, data: DataSet, folder: Path, matrix: Matrix) -> Split:
    """Read a data set and cut it to size.

    Training records that repeat one before them are left out (a request must not leave its own copy in retain), and so
    are dev records that are in training, and test records that are in training or dev. Ids are ``NAME-train-LINE``.

    Raises:
        UsageError: A file is missing or malformed.
    """
    train = _read(name, data, data.train, folder, "train")
    last, other = (
        _read(name, data, files, folder, part) if files else None
        for part, files in (("test", data.test), ("dev", data.dev))
    )
    tags = {label for part in (train, last, other) if part for label in _flat(part[2])}
    names = data.labels or tuple(sorted(tags, key=lambda tag: (tag != "O", tag)))
    whole = _records(train, names)
    if last is None:
        whole, held_out, unseen = _cut(whole, 3, 3)
    elif other is None:
        whole, held_out, _ = _cut(whole, 1, 0)
        unseen = _records(last, names)
    else:
        held_out, unseen = _records(other, names), _records(last, names)
    fresh = _drawn(whole.take(_first_of_each(whole)), matrix.train_records, 1)
    parts = []
    for records, most, seed in ((held_out, matrix.dev_records, 2), (unseen, matrix.test_records, 3)):
        new = set(range(len(records))) - set(overlapping(records, fresh.texts))
        once = [i for i in _first_of_each(records) if i in new]
        parts.append(_drawn(records.take(once), most, seed))
    dev, test = parts
    clean = sorted(set(range(len(test))) - set(overlapping(test, dev.texts)))
    return Split(fresh, dev, test.take(clean), tuple(names), data.task)


def _cut(whole: Records, second: int, third: int) -> tuple[Records, Records, Records]:
    """Records in three parts by hash: so many tenths are the second and the third."""
    parts: tuple[list[int], list[int], list[int]] = ([], [], [])
    for i, record_id in enumerate(whole.ids):
        tenth = hashlib.sha256(record_id.encode()).digest()[0] % 10
        parts[1 if tenth < second else 2 if tenth < second + third else 0].append(i)
    first, second_part, third_part = (whole.take(part) for part in parts)
    return first, second_part, third_part


_Raw = tuple[list[str], list[tuple[str, ...]], list[Any]]  # ids, texts, labels by name


def _read(name: str, data: DataSet, files: Sequence[str], folder: Path, part: str) -> _Raw:
    wanted = 2 if data.format == "lines" else 1
    if len(files) != wanted:
        raise UsageError(Problem(f"data.{name}.{part}", f"{len(files)} files are named", f"Name {wanted}."))
    paths = [folder / file for file in files]
    where = f"data.{name}.{part}"
    if missing := [str(path) for path in paths if not path.is_file()]:
        raise UsageError(Problem(where, f"{', '.join(missing)} is missing", "Give the folder with --data."))
    if data.format == "lines":
        texts = paths[0].read_text(encoding="utf-8").splitlines()
        labels: list[Any] = [data.labels[int(line)] for line in paths[1].read_text(encoding="utf-8").split()]
        rows = [(text.strip(),) for text in texts]
    elif data.format == "table":
        columns = sources.read(paths[0], where=where)
        if problems := sources.pick(columns, [data.text, data.label], where=where, source=paths[0]):
            raise UsageError(problems)
        rows, labels = [(text,) for text in columns[data.text]], list(columns[data.label])
    else:
        columns = sources.read(paths[0], where=where, file_format="conll")
        rows, labels = [tuple(words) for words in columns["tokens"]], list(columns["ner_tags"])
    if len(rows) != len(labels):
        raise UsageError(Problem(where, f"{len(rows)} texts and {len(labels)} labels", "Mend the files."))
    return [f"{name}-{part}-{line:05d}" for line in range(1, len(rows) + 1)], rows, labels


def _flat(labels: Sequence[Any]) -> list[str]:
    return [tag for label in labels for tag in ([label] if isinstance(label, str) else label)]


def _records(raw: _Raw, names: Sequence[str]) -> Records:
    ids, texts, labels = raw
    if all(isinstance(label, str) for label in labels):
        return Records(tuple(ids), tuple(texts), tuple(class_numbers(labels, names, where="data")))
    number = {name: i for i, name in enumerate(names)}
    return Records(tuple(ids), tuple(texts), tuple(tuple(number[tag] for tag in tags) for tags in labels))


def _first_of_each(records: Records) -> list[int]:
    first: dict[str, int] = {}
    for position, text in enumerate(records.texts):
        first.setdefault(normal_form(text), position)
    return sorted(first.values())


def _drawn(records: Records, most: int, seed: int) -> Records:
    chosen = np.random.default_rng(seed).choice(len(records), min(most, len(records)), replace=False)
    return records.take(sorted(chosen.tolist()))


def requests(split: Split, data: DataSet, matrix: Matrix) -> list[Request]:
    """The requests of a data set: random shares, and the class or entity type it names."""
    everything = tuple(range(len(split.test)))
    found = []
    pools = [_pool(split, fraction, matrix.pool) for fraction in matrix.pooled]
    for fraction in matrix.fractions:
        name = f"random-{fraction * 100:g}%"
        found.append(
            _part_of(pools[-1], split, fraction, name, own_retrained=data.own_retrained)
            if matrix.nested
            else random_request(split, fraction, seed=0, name=name)
        )
    found.extend(pools)
    if matrix.by_class and data.erase:
        labelled = registry.find("tasks", split.task_name).labelled
        forget, unseen = (
            tuple(labelled(part.labels, data.erase, split.label_names)) for part in (split.train, split.test)
        )
        if not 0 < len(forget) < len(split.train):
            what = f'"{data.erase}" is in {len(forget)} of {len(split.train)} records'
            raise UsageError(Problem("erase", what, "Name one that some records have, and some have not."))
        if not 0 < len(unseen) < len(split.test):
            what = f'"{data.erase}" is in {len(unseen)} of {len(split.test)} test records'
            raise UsageError(Problem("erase", what, "Take more test records, or another class."))
        retain = tuple(sorted(set(range(len(split.train))) - set(forget)))
        test = tuple(sorted(set(everything) - set(unseen)))
        found.append(Request(data.erase, forget, retain, test, unseen, by_class=True))
    return found


def random_request(split: Split, fraction: float, *, seed: int, name: str) -> Request:
    """A share of the training records at random."""
    count = max(1, round(fraction * len(split.train)))
    drawn = np.random.default_rng([seed, count]).choice(len(split.train), count, replace=False)
    forget = tuple(sorted(drawn.tolist()))
    everything = tuple(range(len(split.test)))
    return Request(name, forget, tuple(sorted(set(range(len(split.train))) - set(forget))), everything, everything)


def _part_of(pool: Request, split: Split, fraction: float, name: str, *, own_retrained: bool) -> Request:
    """A random share of the training records that lies within a pool; compared with the pool's retrained models, or its own."""
    count = max(1, round(fraction * len(split.train)))
    if count > len(pool.forget):
        what = f"{name} is {count} records, and the pool it is to be part of has {len(pool.forget)}"
        raise UsageError(Problem("bench.nested", what, "Pool more, or ask for fewer."))
    forget = tuple(sorted([position for part in pool.parts for position in part][:count]))
    retain = tuple(sorted(set(range(len(split.train))) - set(forget)))
    return replace(pool, name=name, forget=forget, retain=retain, parts=(), within=None if own_retrained else pool)


def _pool(split: Split, fraction: float, count: int) -> Request:
    """Disjoint random requests of one size, as one request."""
    size = max(1, round(fraction * len(split.train)))
    if size * count >= len(split.train):
        what = f"{count} requests of {size} records are more than the {len(split.train)} training records"
        raise UsageError(Problem("bench.pool", what, "Pool fewer, or smaller ones."))
    drawn = np.random.default_rng([1, size]).permutation(len(split.train))[: size * count].reshape(count, size)
    parts = tuple(tuple(sorted(part.tolist())) for part in drawn)
    forget = tuple(sorted(drawn.ravel().tolist()))
    retain = tuple(sorted(set(range(len(split.train))) - set(forget)))
    everything = tuple(range(len(split.test)))
    return Request(f"pooled-{count}x{fraction * 100:g}%", forget, retain, everything, everything, parts=parts)


def make_task(split: Split, tokenizer: Any, max_length: int) -> Any:
    """The task of a data set."""
    return registry.find("tasks", split.task_name)(tokenizer, max_length, split.label_names)
