"""The requests that were carried out on a model before: which records they erased, and what that means for the next."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from expunge.config import RunConfig
from expunge.data.records import Records
from expunge.data.request import Resolved, beside_erased
from expunge.errors import Problem, UsageError
from expunge.history.entry import adopted, id_kind
from expunge.history.hashes import ERASURE
from expunge.history.link import Link
from expunge.history.verify import verify
from expunge.privacy import mark, salt_check
from expunge.record import RunRecord

__all__ = ["History", "held_records", "history_of", "kept_out"]

_SALT = "privacy.salt_file"


@dataclass(frozen=True)
class History:
    """Earlier requests, known by the user's salt.

    Attributes:
        links: One a request, in order.
        salt: The salt they were recorded under.
    """

    links: tuple[Link, ...]
    salt: bytes

    @property
    def last(self) -> Link:
        """The request before the next."""
        return self.links[-1]

    def requests_of(self, ids: Iterable[str]) -> dict[str, list[int]]:
        """Those of `ids` that were erased, each with the numbers of the requests that did it."""
        known: dict[str, list[int]] = {}
        for link in self.links:
            for found in link.marks:
                known.setdefault(found, []).append(link.number)
        lengths = {len(found) for found in known}  # a record of earlier versions holds the first digits only
        erased = {}
        for record_id in ids:
            whole = mark(self.salt, record_id)
            if numbers := [number for length in lengths for number in known.get(whole[:length], ())]:
                erased[record_id] = sorted(numbers)
        return erased

    def followed_by(self, link: Link) -> History:
        """The history with one more request."""
        return History((*self.links, link), self.salt)


def history_of(
    config: RunConfig, model: Any, salt: bytes | None, ids: Sequence[str], past: Collection[str] = ()
) -> History | None:
    """The history of the model to erase from; None where nothing was erased from it yet.

    Args:
        config: Names the model and the id column.
        model: The model, where it is given in memory.
        salt: The user's salt, where there is one.
        ids: Ids of the training records.
        past: Ids of records of earlier requests that the user still holds.

    Raises:
        UsageError: The history does not verify, or the salt is missing or another: earlier requests' records could not be
            kept out of what is retained.
    """
    if model is not None:
        _must_have_none(model)
        return None
    folder = Path(config.model.path).expanduser()
    if (folder / ERASURE).exists():
        found = verify(folder)
        if not found.ok:
            way_out = f"`expunge verify {config.model.path}` tells all. Put the folder back as the run wrote it."
            more = f" and {len(found.wrong) - 1} more" if len(found.wrong) > 1 else ""
            what = f'the history of "{config.model.path}" does not verify ({found.wrong[0].rstrip(".")}{more})'
            raise UsageError(Problem("model.path", what, way_out))
        _must_fit(salt, found.links[-1].content["salt_check"])
        history = History(found.links, salt or b"")
    else:
        _must_lie_here(config.model.path, "model.path", "Give the folder itself")
        record = _record_alone(folder, config.model.path)
        if record is None:
            return None
        if salt is None:
            raise UsageError(_no_salt())
        history = History((adopted(record, salt),), salt)
        if not history.requests_of([*ids, *past]):
            what = "none of the records that its record.json says were erased is recognised with this salt"
            way_out = (
                "Name the salt of that run (--salt-file FILE), or, where its records have left the training data, give them "
                "with --past-records FILE. To begin a new history, give a copy of the folder without record.json."
            )
            raise UsageError(Problem(_SALT, what, way_out))
    kind = id_kind(config.data.id)
    if other := [link for link in history.links if link.content["request"]["ids"] != kind]:
        named = other[0].content["request"]["ids"]
        what = f"request {other[0].number} named records by {named}, this one names them by {kind}: none would be recognised"
        way_out = (
            "Leave data.id out, as then." if named == "content" else f"Name it: --id {named.removeprefix('column ')}."
        )
        raise UsageError(Problem("data.id", what, way_out))
    return history


def _must_have_none(model: Any) -> None:
    """A model in memory carries no history: refuse one that was loaded from a folder that has one."""
    source = getattr(getattr(model, "config", None), "_name_or_path", "") or ""
    if source and (Path(source) / ERASURE).is_dir():
        what = f'the model was loaded from "{source}", and in memory it has lost the history there'
        way_out = (
            "Give the folder itself, or use Erased.forget_next. Of a model that is another one by now, set "
            "model.config._name_or_path = '' first."
        )
        raise UsageError(Problem("model", what, way_out))
    _must_lie_here(source, "model", "Give the folder itself, not the model in memory")


def _must_lie_here(source: str, where: str, way_out: str) -> None:
    """A history is read in its folder: refuse a model on a hub that has one there. Where no hub is reached, none is known."""
    from expunge.models import hub_file, is_local

    if not source or is_local(source):
        return
    for file in (f"{ERASURE}/0001.json", "record.json"):
        if hub_file(source, file) is None:
            continue
        what = (
            f'records were erased from "{source}" before (it holds {file}), and its history is read in its folder alone'
        )
        raise UsageError(
            Problem(where, what, f"Download it whole (hf download {source} --local-dir FOLDER). {way_out}.")
        )


def _record_alone(folder: Path, shown: str) -> RunRecord | None:
    """The record of a folder without a history that was erased from before there were any; SISA folders know it themselves."""
    if not (folder / "record.json").is_file() or (folder / "sisa.json").is_file():
        return None
    record = RunRecord.read(folder)
    if record.history:
        what = f'"{shown}" was erased from (its record.json says so), but its folder "{ERASURE}" is missing'
        way_out = "Put the folder back as the run wrote it: without it earlier requests' records cannot be kept out."
        raise UsageError(Problem("model.path", what, way_out))
    return record


def _must_fit(salt: bytes | None, check: str) -> None:
    if salt is None:
        raise UsageError(_no_salt())
    if salt_check(salt) != check:
        what = "it is not the salt that the model's history was recorded with, so records erased before cannot be told"
        raise UsageError(Problem(_SALT, what, "Name that salt: --salt-file FILE (or EXPUNGE_SALT_FILE)."))


def _no_salt() -> Problem:
    what = "there is none yet, and the model's history was recorded with one: records erased before could not be told"
    return Problem(_SALT, what, "Name that salt: --salt-file FILE (or EXPUNGE_SALT_FILE).")


def kept_out(
    history: History, records: Records, request: Resolved, named: Sequence[str] | None, *, again: bool
) -> Resolved:
    """The request beside earlier ones: their records, where the data still hold them, are neither forgotten nor retained.

    Args:
        history: Of the model.
        records: The training data.
        request: Resolved as if there were no earlier ones.
        named: Ids the request names one by one; None where it is a rule.
        again: Whether records that were erased before are to be erased again, where the request asks for them.

    Raises:
        UsageError: A named record was erased before, or nothing is left to forget or to retain.
    """
    erased = history.requests_of(records.ids)
    asked = {record_id: erased[record_id] for record_id in named or () if record_id in erased}
    if asked and not again:
        numbers = ", ".join(map(str, sorted({n for found in asked.values() for n in found})))
        count = len(asked)
        were = "were" if count > 1 else "was"
        what = f"{count} of the requested records {were} erased from this model before (request {numbers})"
        way_out = (
            "Leave them out of the request; --again (request.again) erases them once more, such as when they came back."
        )
        raise UsageError(Problem("request", what, way_out))
    positions = [i for i, record_id in enumerate(records.ids) if record_id in erased]
    return beside_erased(records, request, positions, again=again)


def held_records(
    history: History, train: Records, given: Sequence[tuple[str, Records]]
) -> tuple[dict[int, Records], int]:
    """The records of earlier requests that the user still holds, by request.

    Args:
        history: Of the model.
        train: The training data; records of earlier requests that are still in them count as held.
        given: Where further records come from (nothing for those that are known to be of earlier requests), and these.

    Returns:
        Number of the request -> its records, each once; and how many of the given are of no earlier request.

    Raises:
        UsageError: Nothing of what is given is of an earlier request.
    """
    found: dict[int, dict[str, tuple[Records, int]]] = {}
    strange, problems = 0, []
    for where, records in (("", train), *given):
        erased = history.requests_of(records.ids)
        if where:
            strange += len(records) - len(erased)
            if not erased:
                what = f'no record in "{where}" is of an earlier request'
                way_out = (
                    "Give the records of earlier requests, with the id column (or the columns) of the training data."
                )
                problems.append(Problem("request.past", what, way_out))
        for position, record_id in enumerate(records.ids):
            for number in erased.get(record_id, ()):
                found.setdefault(number, {}).setdefault(record_id, (records, position))
    if problems:
        raise UsageError(problems)
    return {number: _together(rows.values()) for number, rows in sorted(found.items())}, strange


def _together(rows: Iterable[tuple[Records, int]]) -> Records:
    one = [records.take([position]) for records, position in rows]
    return Records(
        tuple(r.ids[0] for r in one), tuple(r.texts[0] for r in one),
        tuple(r.labels[0] for r in one),  # pyright: ignore[reportArgumentType]
        one[0].made_ids,
    )  # fmt: skip
