"""TOFU's records: who is trained on, who is forgotten, and what is asked besides."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from expunge.bench.tofu_config import Tofu
from expunge.data import sources
from expunge.data.records import Records
from expunge.errors import Collector, Problem, UsageError

__all__ = ["GROUPS", "TofuData", "read_tofu"]

GROUPS = ("forget", "retain", "real authors", "world facts")
"""What a model is asked; the last three make its utility."""


@dataclass(frozen=True)
class TofuData:
    """TOFU, cut to size.

    Attributes:
        train: Records the original is trained on.
        forget: Positions of those to forget.
        retain: Positions of the others.
        asked: Group of `GROUPS` -> its records, with false answers and, of fictional authors, the true one in other words.
        calibration: Held-out records for the stop rule.
        evaluation: Held-out records for membership attacks.
    """

    train: Records
    forget: tuple[int, ...]
    retain: tuple[int, ...]
    asked: dict[str, Records]
    calibration: Records
    evaluation: Records


def read_tofu(tofu: Tofu, folder: Path) -> TofuData:
    """Read TOFU's files.

    A record is known by its question and answer; its id is a number in the order of the training files. Held-out records are
    left out of training, and the sample of retained records is drawn among those with false answers.

    Raises:
        UsageError: A file is missing or malformed, or a part would be empty.
    """
    found = Collector()
    trained = [row for name in tofu.train for row in found.run(_rows, folder, name, "tofu.train") or ()]
    perturbed = [row for name in tofu.perturbed for row in found.run(_rows, folder, name, "tofu.perturbed") or ()]
    single = {
        field: found.run(_rows, folder, getattr(tofu, field), f"tofu.{field}") or []
        for field in ("forget", "real_authors", "world_facts", "held_out")
    }
    found.finish()
    wanted = tofu.calibration_records + tofu.evaluation_records
    outside = single["held_out"][:wanted]
    left_out = {row[:2] for row in outside}
    trained = list(dict.fromkeys(row[:2] for row in trained if row[:2] not in left_out))
    asked_for = {row[:2] for row in single["forget"]}
    forget = tuple(i for i, row in enumerate(trained) if row in asked_for)
    retain = tuple(i for i, row in enumerate(trained) if row not in asked_for)
    kept = set(trained) - asked_for
    retained = [row for row in perturbed if row[:2] in kept]
    problems = [
        Problem(f"tofu.{name}", what, way_out)
        for name, bad, what, way_out in (
            ("held_out", len(outside) < wanted, f"{len(outside)} records, {wanted} are wanted", "Ask for fewer."),
            ("forget", len(forget) < len(asked_for), f"{len(asked_for) - len(forget)} of its records are not in training",
             "Train on files that hold them."),
            ("train", not retain, "nothing would be left to retain", "Train on more than is to be forgotten."),
            ("perturbed", not retained, "none of its records is retained", "Give false answers of retained records."),
        )
        if bad
    ]  # fmt: skip
    if problems:
        raise UsageError(problems)
    ids = {row: f"tofu-{i:04d}" for i, row in enumerate(trained)}
    return TofuData(
        train=_records(trained, list(ids.values())),
        forget=forget,
        retain=retain,
        asked={
            "forget": _records(single["forget"], [ids[row[:2]] for row in single["forget"]]),
            "retain": _sample(_records(retained, [ids[row[:2]] for row in retained]), tofu.retain_sample),
            "real authors": _sample(_numbered(single["real_authors"], "author"), tofu.general_sample),
            "world facts": _sample(_numbered(single["world_facts"], "fact"), tofu.general_sample),
        },
        calibration=_numbered(outside[: tofu.calibration_records], "calibration"),
        evaluation=_numbered(outside[tofu.calibration_records :], "evaluation"),
    )


_Row = tuple[str, ...]
"""Question, answer; then the answer in other words, and false ones, where there are such."""


def _rows(folder: Path, name: str, where: str) -> list[_Row]:
    columns = sources.read(folder / name, where=where)
    if problems := sources.pick(columns, ["question", "answer"], where=where, source=name):
        raise UsageError(problems)
    count = len(columns["question"])
    said = columns.get("paraphrased_answer", [""] * count)
    false = columns.get("perturbed_answer", [()] * count)
    return [
        (question, answer, *((own or "", *others) if others else ()))
        for question, answer, own, others in zip(columns["question"], columns["answer"], said, false, strict=True)
    ]


def _records(rows: Sequence[_Row], ids: Sequence[str]) -> Records:
    alternatives = tuple(row[2:] for row in rows)
    return Records(
        tuple(ids), tuple(row[:2] for row in rows), (0,) * len(rows), alternatives=alternatives if any(alternatives) else ()
    )  # fmt: skip


def _numbered(rows: Sequence[_Row], word: str) -> Records:
    return _records(rows, [f"{word}-{i:04d}" for i in range(len(rows))])


def _sample(records: Records, most: int) -> Records:
    drawn = np.random.default_rng(4).choice(len(records), min(most, len(records)), replace=False)
    return records.take(sorted(drawn.tolist()))
