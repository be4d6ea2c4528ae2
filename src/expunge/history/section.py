"""What a run's record says of the requests before it: which there were, what is held of them, and whether any came back."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from expunge.checks import Prepared
from expunge.history.link import Link
from expunge.history.returned import Margins, level_at_erasure, returned
from expunge.scoring import ScoreTable

__all__ = ["group_of", "history_section"]

_NOT_HELD = "records no longer held"


def group_of(number: int) -> str:
    """The group of scores that holds an earlier request's records."""
    return f"request {number}"


def history_section(prepared: Prepared, models: Mapping[str, Sequence[Mapping[str, ScoreTable]]]) -> dict[str, Any]:
    """Number of the request, what it found of earlier ones in the data, and one row for each earlier request.

    Args:
        prepared: The run's data and settings.
        models: Score tables of original, unlearned and retrained models, those of held records among them.
    """
    history = prepared.history
    if history is None:
        return {"number": 1, "previous": None, "kept_out": 0, "erased_held_out": 0, "again": 0, "earlier": []}
    confidence, among = prepared.config.audit.confidence, max(1, len(prepared.past))
    rows = []
    for link in history.links:
        row, group = _known(link), group_of(link.number)
        held = prepared.past.get(link.number)
        row["held"] = 0 if held is None else len(held)
        if held is None:
            row["not_measured"] = _NOT_HELD
        else:
            before, after, retrained = (
                [_margins(tables, group) for tables in models[name]] for name in ("original", "unlearned", "retrained")
            )
            found = returned(
                before[0], after[0], retrained, level_at_erasure(link), confidence=confidence, among=among
            )  # fmt: skip
            row.update(found)
        rows.append(row)
    return {
        "number": history.last.number + 1,
        "previous": history.last.sha256,
        "kept_out": len(prepared.request.erased),
        "erased_held_out": prepared.erased_held_out,
        "again": prepared.request.again,
        "earlier": rows,
    }


def _known(link: Link) -> dict[str, Any]:
    content = link.content
    return {
        "number": link.number, "records": content["request"]["records"], "method": content["method"]["name"],
        "when": content["when"], "outcome": content["audit"]["outcome"], "sha256": link.sha256,
    }  # fmt: skip


def _margins(tables: Mapping[str, ScoreTable], group: str) -> Margins:
    return Margins(*(np.asarray(tables[name].record_margins, float) for name in (group, "evaluation")))
