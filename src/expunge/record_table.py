"""The table of erased records that a user can hand on: from a `RunRecord` to plain rows, and to CSV. Pure."""

from __future__ import annotations

import csv
import io
from typing import Any

from expunge.record import RunRecord

__all__ = ["as_csv", "record_table"]

_MODELS = ("original", "unlearned", "retrained")
_OWN = {"id", "named", "duplicates", "alike", "memorised", "percentile", *_MODELS}


def record_table(record: RunRecord) -> list[dict[str, Any]]:
    """One flat row a forget record, all with the same columns.

    * ``record``: its id as the record shows it; ``because``: ``requested``, or ``duplicate`` of a requested one;
    * ``identical``, ``near``: duplicates found among the other records (near ones by pieces and by embedding);
      ``duplicates left``: how many of them were retained; ``nearest``: the highest similarity among the near ones;
    * ``memorised``: whether the original had memorised it, by its margin's ``percentile`` among unseen records;
    * ``MODEL margin`` (nats), ``MODEL correct`` (share of models or words), ``MODEL predicted`` (class) of each model;
    * one column for each value an audit has for single records.
    """
    rows = []
    for row in record.records:
        alike = row.get("alike", [])
        near = [entry for entry in alike if entry["kind"] != "identical"]
        flat: dict[str, Any] = {
            "record": row["id"],
            "because": "requested" if row.get("named", True) else "duplicate",
            "identical": row["duplicates"],
            "near": len(near),
            "duplicates left": sum(entry["left"] for entry in alike),
            "nearest": max((entry["similarity"] for entry in near), default=None),
            "memorised": row.get("memorised"),
            "percentile": row.get("percentile"),
        }
        for model in _MODELS:
            flat.update({f"{model} {name}": value for name, value in row.get(model, {}).items()})
        rows.append(flat | {name: value for name, value in row.items() if name not in _OWN})
    columns = list(dict.fromkeys(name for row in rows for name in row))
    return [{name: row.get(name) for name in columns} for row in rows]


def as_csv(rows: list[dict[str, Any]]) -> str:
    """The rows as CSV text; a value that is not there is empty."""
    out = io.StringIO()
    writer = csv.DictWriter(out, fieldnames=list(rows[0]) if rows else [], lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return out.getvalue()
