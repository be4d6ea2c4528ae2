"""What a link says of a request: drawn from the record of its run, without text and without raw ids."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from functools import cache
from typing import Any

from expunge.history.hashes import code_sha256
from expunge.history.link import SCHEMA, Link, canonical
from expunge.privacy import mark, salt_check
from expunge.record import Measurement, RunRecord

__all__ = ["MEMBERSHIP", "adopted", "entry", "id_kind"]

MEMBERSHIP = "membership AUC (loss or margin)"
_FIGURES = ("accuracy", "entity F1", MEMBERSHIP)
_GROUPS = ("forget", "evaluation", "forget vs evaluation")


def entry(
    record: RunRecord, ids: Sequence[str], salt: bytes, previous: Link | None, files: Mapping[str, str] | None
) -> dict[str, Any]:
    """The content of the link of a run.

    Args:
        record: Of the run.
        ids: Ids of the erased records.
        salt: The user's salt.
        previous: The link of the request before, if there is one.
        files: SHA-256 of the model folder's files, where the model was saved.
    """
    return _content(record, sorted({mark(salt, i) for i in ids}), salt, previous, files, adopted=False)


def adopted(record: RunRecord, salt: bytes) -> Link:
    """The first link of a folder that was erased from before there were histories, from its record alone.

    Such a record knows the erased records by the first 12 digits of their marks.
    """
    shown = [row["id"] for row in record.records]
    marks = [mark(salt, i) for i in shown] if record.config["privacy"]["show_ids"] else shown
    return Link(_content(record, sorted(set(marks)), salt, None, None, adopted=True))


def id_kind(column: str | None) -> str:
    """How records were named: by a column, or by their content."""
    return "content" if column is None else f"column {column}"


def _content(
    record: RunRecord, marks: list[str], salt: bytes, previous: Link | None, files: Mapping[str, str] | None, *,
    adopted: bool,
) -> dict[str, Any]:  # fmt: skip
    earlier = record.history.get("earlier", ())
    return {
        "schema": SCHEMA,
        "number": 1 if previous is None else previous.number + 1,
        "previous": None if previous is None else previous.sha256,
        "adopted": adopted,
        "when": datetime.fromtimestamp(record.timings["started_unix"], UTC).isoformat(timespec="seconds"),
        "request": {
            "records": len(record.records),
            "marks": marks,
            "hmac": record.request["hmac"],
            "ids": id_kind(record.config["data"].get("id")),
            "missing": record.request["missing"],
            "again": record.history.get("again", 0),
            "kept_out": record.history.get("kept_out", 0),
        },
        "salt_check": salt_check(salt),
        "model": {
            "before": record.models["original"]["sha256"],
            "after": record.models["unlearned"]["sha256"],
            "files": None if files is None else dict(files),
        },
        "data": record.data["hmac"],
        "method": record.config["method"],
        "config_sha256": hashlib.sha256(canonical(record.config)).hexdigest(),
        "code": None if adopted else {"expunge": record.environment["expunge"], "sha256": _code()},
        "environment": record.environment,
        "audit": {
            "evidence": record.verdict["evidence"],
            "outcome": record.verdict["outcome"],
            "findings": [{"audit": f.audit, "kind": f.kind, "sentence": f.sentence} for f in record.findings],
            "figures": [_figure(m) for m in record.measurements if _is_kept(m)],
            "not_measured": sorted(record.not_measured),
        },
        "earlier": [{k: v for k, v in row.items() if k in _OF_EARLIER} for row in earlier],
        "signed_by": None,
    }  # fmt: skip


_OF_EARLIER = ("number", "held", "before", "after", "came_back", "not_measured")
_code = cache(code_sha256)


def _is_kept(m: Measurement) -> bool:
    return m.name in _FIGURES and m.group in _GROUPS


def _figure(m: Measurement) -> dict[str, Any]:
    return {
        "name": m.name, "model": m.model, "group": m.group, "n": m.n, "value": round(m.value, 6), "low": round(m.low, 6),
        "high": round(m.high, 6),
    }  # fmt: skip
