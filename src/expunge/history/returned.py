"""Did what an earlier request erased come back? Pure: from scores before and after a request to figures and a finding."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats as scipy_stats

from expunge.history.entry import MEMBERSHIP
from expunge.history.link import Link
from expunge.record import Finding
from expunge.stats import Interval, auc_interval, mean_interval

__all__ = ["Margins", "finding", "level_at_erasure", "returned"]

_CLIP = 20.0
"""Margins are clipped at plus and minus this (nats), as audits do."""


@dataclass(frozen=True)
class Margins:
    """Margins of an earlier request's records and of records never seen, under one model, in nats.

    Attributes:
        erased: (N,) of the earlier request's records.
        unseen: (M,) of the evaluation records.
    """

    erased: NDArray[np.float64]
    unseen: NDArray[np.float64]

    @property
    def pair(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """Both, as `auc_interval` takes them."""
        return self.erased, self.unseen

    @property
    def clipped(self) -> NDArray[np.float64]:
        """(N,) margins of the erased records, clipped."""
        return np.clip(self.erased, -_CLIP, _CLIP)


def level_at_erasure(link: Link) -> Interval | None:
    """The membership AUC that the request itself left, as its link tells; None where it was not measured."""
    for row in link.content["audit"].get("figures", ()):
        if row["name"] == MEMBERSHIP and row["model"] == "unlearned":
            return Interval(row["value"], row["low"], row["high"])
    return None


def returned(
    before: Margins,
    after: Margins,
    retrained: Sequence[Margins],
    then: Interval | None,
    *,
    confidence: float,
    among: int,
) -> dict[str, Any]:
    """What became of an earlier request's records.

    They came back where the membership AUC (their margins against those of records never seen)

    * rose: above that before this request (DeLong's paired interval), or above that which the request itself left (whose
      scores are gone: the two variances are added, which is cautious, as the records are the same); and
    * shows them remembered now: above 0.5, or above the retrained models' where there are any.

    Both at the confidence level of a family of `among` such questions (Bonferroni), so that a run with many earlier
    requests raises no more false alarms than one with a single one.

    Args:
        before: Under the model as it was given.
        after: Under the model that this request left.
        retrained: Under each retrained model.
        then: The AUC when the records were erased.
        confidence: Confidence level of the intervals shown.
        among: Earlier requests that are judged in this run.

    Returns:
        AUC and mean margin (clipped at +-20 nats) before and after, their change, the AUC at erasure and of retrained
        models (each value, low, high), and whether they came back.
    """
    strict = 1 - (1 - confidence) / among
    pairs = [margins.pair for margins in retrained]
    change = auc_interval([after.pair], [before.pair], strict)
    rose = change.low > 0 or (
        then is not None and _above(auc_interval([after.pair], (), confidence), then, confidence, strict)
    )
    remembered = (
        auc_interval([after.pair], pairs, strict).low > 0 if pairs else auc_interval([after.pair], (), strict).low > 0.5
    )
    moved = mean_interval(after.clipped - before.clipped, confidence)
    return {
        "at_erasure": None if then is None else _row(then),
        "before": {"auc": _auc(before, confidence), "margin": _margin(before, confidence)},
        "after": {"auc": _auc(after, confidence), "margin": _margin(after, confidence)},
        "retrained": None if not pairs else {"auc": _row(auc_interval(pairs, (), confidence))},
        "change": {"auc": _row(auc_interval([after.pair], [before.pair], confidence)), "margin": _row(moved)},
        "came_back": bool(rose and remembered),
    }


def finding(earlier: Mapping[str, Any]) -> Finding | None:
    """What to hold against the unlearned model, of one row of a record's earlier requests."""
    if not earlier.get("came_back"):
        return None
    now, before, then = (
        earlier[name]["auc"] if name != "at_erasure" else earlier[name] for name in ("after", "before", "at_erasure")
    )
    was = f"{_shown(before)} before this request"
    if then is not None:
        was += f", {_shown(then)} when they were erased"
    sentence = (
        f"Records of request {earlier['number']} are remembered again: membership AUC {_shown(now)} now, {was} "
        f"({earlier['held']} of {earlier['records']} records measured). --again erases them once more."
    )
    return Finding(audit="history", kind="came back", sentence=sentence)


def _above(now: Interval, then: Interval, confidence: float, strict: float) -> bool:
    """Whether one figure lies above another of which only the interval is known."""
    quantile, strictly = (float(scipy_stats.norm.isf((1 - level) / 2)) for level in (confidence, strict))
    spread = np.hypot(now.value - now.low, then.high - then.value) / quantile
    return now.value - then.value > strictly * spread


def _auc(margins: Margins, confidence: float) -> dict[str, float]:
    return _row(auc_interval([margins.pair], (), confidence))


def _margin(margins: Margins, confidence: float) -> dict[str, float]:
    return _row(mean_interval(margins.clipped, confidence))


def _row(found: Interval) -> dict[str, float]:
    return {"value": round(found.value, 6), "low": round(found.low, 6), "high": round(found.high, 6)}


def _shown(row: Mapping[str, float]) -> str:
    return f"{row['value']:.3f} [{row['low']:.3f}, {row['high']:.3f}]"
