"""Resolve an erasure request against the training records: ids -> forget and retain."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from expunge.config import RequestConfig
from expunge.config_paths import meant_beside
from expunge.data import sources
from expunge.data.conll import CONLL_SUFFIXES
from expunge.data.duplicates import exact_duplicates
from expunge.data.ids import given_ids, meant
from expunge.data.mention import mentioning
from expunge.data.near_duplicates import Alike, alike
from expunge.data.records import Records
from expunge.errors import Problem, UsageError

__all__ = ["Resolved", "beside_erased", "matching", "mentioning", "read_request", "resolve", "with_more"]

_MOST = 2**28  # bytes of a file of ids: a device without end is none


@dataclass(frozen=True)
class Resolved:
    """An erasure request, resolved.

    Attributes:
        forget: Positions of the records to forget, ascending, duplicates added where asked for.
        retain: Positions of all others, ascending, but those of `erased`.
        missing: Requested ids that are not in the data.
        duplicates: Requested id -> ids of its identical copies.
        duplicates_added: Whether those copies are in `forget`.
        near: Records that say nearly the same as a requested one.
        near_added: Whether they are in `forget`.
        erased: Positions of records that an earlier request erased: neither forgotten nor retained.
        again: How many of those to forget an earlier request erased already.
    """

    forget: tuple[int, ...]
    retain: tuple[int, ...]
    missing: tuple[str, ...]
    duplicates: dict[str, tuple[str, ...]]
    duplicates_added: bool
    near: tuple[Alike, ...] = ()
    near_added: bool = False
    erased: tuple[int, ...] = ()
    again: int = 0

    @property
    def left(self) -> frozenset[str]:
        """Ids of the duplicates that stay in the retained data."""
        identical = () if self.duplicates_added else (i for ids in self.duplicates.values() for i in ids)
        return frozenset(identical) | frozenset(() if self.near_added else (match.other for match in self.near))

    @property
    def added(self) -> frozenset[str]:
        """Ids of records that are forgotten as duplicates, not named by the request."""
        found = {i for ids in self.duplicates.values() for i in ids} | {match.other for match in self.near}
        return frozenset(found) - self.left


def read_request(
    config: RequestConfig, data_id: str | None, content_key: Any, given: Any = None, file_format: str | None = None
) -> list[str] | None:
    """The requested ids, in order; None for a rule (a condition, a mention, a class) or a random share.

    Args:
        config: Says where the request is.
        data_id: Name of the id column, if there is one.
        content_key: Function from the columns of a request table to ids by content, for data without an id column.
        given: Ids in memory; takes the place of `config.file` and `config.ids`.
        file_format: How the data's text files are read, `DataConfig.format`; a request of rows is read the same way.

    Raises:
        UsageError: No request, more than one, an empty one, or a file that cannot be read.
    """
    by_rule = [rule is not None for rule in (config.fraction, config.where, config.mention, config.label)]
    ways = [config.file is not None, bool(config.ids), given is not None, *by_rule]
    if sum(ways) != 1:
        what = "no records to forget are named" if not any(ways) else "the records to forget are named in several ways"
        way_out = (
            "Give exactly one: request.file (--forget FILE), request.where, request.mention, request.label, request.ids or "
            "request.fraction."
        )
        raise UsageError(Problem("request", what, way_out))
    if any(by_rule):
        return None
    if given is not None:
        ids = [str(value) for value in ([given] if isinstance(given, str) else given)]
    elif config.ids:
        ids = list(config.ids)
    else:
        ids = _read_file(Path(str(config.file)).expanduser(), data_id, content_key, file_format)
    if not ids:
        raise UsageError(Problem("request", "the erasure request is empty", "Name at least one record."))
    return list(dict.fromkeys(ids))


def _read_file(path: Path, data_id: str | None, content_key: Any, file_format: str | None) -> list[str]:
    suffix = path.suffix.lower()
    if suffix not in (".jsonl", ".parquet") and (
        suffix in CONLL_SUFFIXES or (file_format == "conll" and _has_columns(_lines(path)))
    ):
        if data_id == "sentence":
            way_out = "Give the numbers of the data's sentences, one a line, in a .txt file."
            raise UsageError(Problem("request.file", f'"{path}" counts its own sentences, not the data\'s', way_out))
        columns = sources.read(path, where="request.file", file_format="conll")
    elif suffix in sources.SUFFIXES:
        columns = sources.read(path, where="request.file")
    else:
        return [line.strip() for line in _lines(path) if line.strip()]
    if data_id is None:
        return content_key(columns)
    if problems := sources.pick(columns, [data_id], where="request.file", source=path):
        raise UsageError(problems)
    return given_ids(columns[data_id], data_id, f'request.file "{path}"', unique=False)


def _has_columns(lines: Sequence[str]) -> bool:
    """Whether lines hold a word and its tag; ids, one a line, and comma-separated tables do not."""
    return any(len(line.split()) > 1 for line in lines)


def _lines(path: Path) -> list[str]:
    try:
        with path.open("rb") as file:
            content = file.read(_MOST + 1)
        if len(content) > _MOST:
            raise ValueError(f"more than {_MOST // 2**20} MiB")
        if (place := content.find(b"\0")) >= 0 and content[:2] not in (b"\xff\xfe", b"\xfe\xff"):
            raise ValueError(f"byte {place} is NUL")
        return content.decode("utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or (
            "not UTF-8 text" if isinstance(error, UnicodeDecodeError) else error
        )
        other = meant_beside(path) if isinstance(error, FileNotFoundError) else ""
        kinds = "a text file with one id a line, or a .csv, .jsonl or .parquet file; single ids: --set request.ids=..."
        way_out = f"{other}Give {kinds}"
        raise UsageError(Problem("request.file", f'"{path}" cannot be read ({reason})', way_out)) from None


def matching(columns: sources.Columns, condition: str) -> list[int]:
    """Positions of the rows for which a condition holds, in the language of `pandas.DataFrame.query`.

    Columns of text files are text: ``author == "u17"``, ``label in ["music", "art"]``, ``year >= "2020"``. A missing
    value meets no comparison, neither ``author == "u17"`` nor ``author != "u17"``.

    Raises:
        UsageError: The condition cannot be read, is none, names no column, or holds for no row.
    """
    from expunge.data.condition import holds

    try:
        found = holds(columns, condition)
    except Exception as error:  # pandas raises whatever the expression runs into
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        way_out = f"Write it as: column == 'value'. Columns: {', '.join(map(str, columns))}."
        raise UsageError(Problem("request.where", f"{condition!r} cannot be read ({reason})", way_out)) from None
    if not found.any():
        raise UsageError(
            Problem("request.where", f"{condition!r} holds for no row", "Check the value and its spelling.")
        )
    return np.flatnonzero(found).tolist()


def resolve(
    records: Records, ids: Sequence[str] | None, config: RequestConfig, selected: Sequence[int] | None = None
) -> Resolved:
    """Split `records` into forget and retain.

    Args:
        records: The training data.
        ids: Requested ids; None draws `config.fraction` of the records with `config.seed`.
        config: Whether missing ids are allowed and duplicates are added.
        selected: Positions of the requested records, in the place of `ids`.

    Raises:
        UsageError: Ids that are not found (unless allowed), or a request that leaves nothing to retain.
    """
    missing: list[str] = []
    if selected is not None:
        positions = set(selected)
    elif ids is None:
        count = max(1, round(len(records) * (config.fraction or 0.0)))
        drawn = np.random.default_rng(config.seed).choice(len(records), size=count, replace=False)
        positions = {int(i) for i in drawn}
    else:
        position_of = {record_id: i for i, record_id in enumerate(records.ids)}
        missing = [i for i in ids if i not in position_of]
        positions = {position_of[i] for i in ids if i in position_of}
    if missing and (not config.allow_missing or not positions):
        shown = ", ".join(missing[:10]) + (f" and {len(missing) - 10} more" if len(missing) > 10 else "")
        what = f"{len(missing)} of {len(ids or ())} requested ids are not in the training data: {shown}"
        way_out = (
            f"{_heading(missing, ids or (), config)}{meant(missing, records.ids)}Check the ids and data.id; "
            "--allow-missing goes on with those found, when there are any."
        )
        if records.made_ids:
            way_out = (
                "No id column is named (--id), so ids are made from content: name it, or give the request as rows with the "
                "same text and label columns (.csv, .jsonl, .parquet)."
            )
        raise UsageError(Problem("request", what, way_out))
    copies = exact_duplicates(records.texts, positions)
    named = {records.ids[i]: tuple(records.ids[j] for j in rows) for i, rows in copies.items()}
    identical = {j for rows in copies.values() for j in rows}
    near = _near(records, positions, identical, config.near_duplicates)
    resolved = Resolved((), (), tuple(missing), named, config.with_duplicates or config.with_near_duplicates)
    return _split(records, positions, replace(resolved, near=tuple(near), near_added=config.with_near_duplicates))


def _heading(missing: Sequence[str], ids: Sequence[str], config: RequestConfig) -> str:
    """What to say where the first line of a file of ids alone is none of them."""
    of_ids_alone = config.file is not None and Path(config.file).suffix.lower() not in sources.SUFFIXES
    if not of_ids_alone or len(ids) < 2 or list(missing) != [ids[0]]:
        return ""
    return "It is the first line of the file: if it names the column, leave it out, or call the file .csv. "


def with_more(records: Records, request: Resolved, near: Sequence[Alike]) -> Resolved:
    """The request with further records like requested ones: found, and forgotten too where near-duplicates are.

    Raises:
        UsageError: Nothing is left to retain.
    """
    positions = {i for i in request.forget if records.ids[i] not in request.added}
    return _split(records, positions, replace(request, near=(*request.near, *near)))


def beside_erased(records: Records, request: Resolved, erased: Collection[int], *, again: bool) -> Resolved:
    """The request without what earlier requests erased, be it to be forgotten or to be retained.

    Args:
        records: The training data.
        request: Resolved as if there were no earlier ones.
        erased: Positions of the records that earlier requests erased.
        again: Whether those among them that the request asks for are forgotten once more.

    Raises:
        UsageError: Nothing is left to forget, or to retain.
    """
    gone, asked = set(erased), {i for i in request.forget if records.ids[i] not in request.added}
    positions = asked if again else asked - gone
    if not positions:
        what = f"all {len(asked)} requested records were erased from this model before"
        way_out = "Name others (a share: another request.seed); --again (request.again) erases them once more."
        raise UsageError(Problem("request", what, way_out))
    names = {records.ids[i] for i in gone}
    copies = {
        records.ids[i]: tuple(records.ids[j] for j in rows if records.ids[j] not in names)
        for i, rows in exact_duplicates(records.texts, positions).items()
    }
    rest = replace(
        request, duplicates={i: ids for i, ids in copies.items() if ids},
        near=tuple(m for m in request.near if m.other not in names and (again or m.requested not in names)),
        erased=tuple(sorted(gone - positions)), again=len(gone & positions),
    )  # fmt: skip
    return _split(records, positions, rest)


def _near(records: Records, positions: Collection[int], identical: Collection[int], threshold: float) -> list[Alike]:
    wanted = sorted(positions)
    others = [i for i in range(len(records)) if i not in positions and i not in identical]
    found = alike(
        [records.texts[i] for i in wanted], (records.texts[i] for i in others), threshold, of_words=records.of_words
    )
    return [Alike(records.ids[wanted[i]], records.ids[others[j]], round(s, 4), "near") for i, j, s in found]


def _split(records: Records, positions: Collection[int], found: Resolved) -> Resolved:
    """`found` with the records at `positions`, and duplicates where they are to go too, to forget and the rest to retain."""
    added, erased = found.added, set(found.erased)
    wanted = (i for i, record_id in enumerate(records.ids) if i in positions or record_id in added)
    forget = tuple(i for i in wanted if i not in erased)
    gone = {*forget, *erased}
    if len(gone) == len(records):
        way_out = "Some records must stay: unlearning needs retained data. To forget everything, use the base model."
        left = " that are left" if erased else ""
        raise UsageError(Problem("request", f"all {len(forget)} records{left} are to be forgotten", way_out))
    return replace(found, forget=forget, retain=tuple(i for i in range(len(records)) if i not in gone))
