"""What a run record must hold, so that whatever reads one need not ask for each thing whether it is there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

__all__ = ["lacking"]

_MODELS = ("original", "unlearned", "retrained")
_INNER = (
    "config.audit.confidence", "config.method.name", "config.privacy.show_ids", "config.model.path", "config.data.train",
    "config.request.ids,where,mention", "environment.expunge", "timings.started_unix",
    "data.train,forget,evaluation,calibration,held_out_halved,held_out_dropped,max_length", "data.hmac.train,evaluation",
    "request.missing,hmac,duplicates,duplicates_added", "request.near_duplicates+near_duplicates_added+near_duplicates_left",
    "models.original.sha256", "models.unlearned.sha256", "models.retrained[].sha256",
    "training.reason,steps", "training.history[=].step", "training.checks?[=].step,forget,calibration",
    "training.checks?[].auc+low+high", "cost.unit,training,checks,total,retraining,ratio_to_retraining",
    "verdict.evidence,outcome,sentence", "verdict.classes.*.outcome,original_passes",
    "verdict.classes.*.criteria[].name,value,low,high,target,side,holds",
    "history?.number,kept_out,again,erased_held_out", "history?.earlier[].number,records,method,when,held",
    "history?.earlier[].not_measured|before", "history?.earlier[].before+after+came_back+at_erasure",
    "history?.earlier[].before?.auc,margin", "history?.earlier[].before?.auc.value,low,high",
    "history?.earlier[].after?.auc,margin", "history?.earlier[].after?.auc.value,low,high",
    "records[=].id,duplicates", "records[=].alike?[].id,kind,similarity,left",
    *(f"records[=].{model}?.margin,correct" for model in _MODELS),
    *(f"figures.latent_map?.{model}?.retain,forget,explained" for model in _MODELS),
    "figures.latent_map?.same_class?.retain,forget",
    "figures.margins?.edges", *(f"figures.margins?.{model}?.forget,evaluation" for model in _MODELS),
    "figures.latent_probe?.compared", *(f"figures.latent_probe?.{kind}?.auc,layers" for kind in ("label", "membership")),
)  # fmt: skip
"""What summary, report and comparison read of a record without asking whether it is there; `_lacks` explains the signs."""


def lacking(values: Mapping[str, Any]) -> str | None:
    """The first of what summary, report and comparison read that is not there: names, parted by dots; None: all is there.

    Args:
        values: The record as JSON has it.
    """
    wrong = next((path for path in _INNER if _lacks(values, path)), None)
    return None if wrong is None else re.sub("[^a-z0-9_*.,+|]", "", wrong)


def _lacks(value: Any, path: str) -> bool:
    """Whether something that a path names is not there.

    Names are parted by dots. ``*`` stands for each name of a table, ``name[]`` for each of a list, ``name[=]`` for each of a
    list whose tables all have what the first has; ``name?`` need not be there, or is empty. The last part may be several
    names: ``a,b`` all of them, ``a+b`` all or none, ``a|b`` one at least.
    """
    step, _, rest = path.partition(".")
    if step == "*":
        return not isinstance(value, dict) or any(_lacks(inner, rest) for inner in value.values())
    if not isinstance(value, dict):
        return True
    if not rest:
        there = [name in value for name in re.split(r"[,+|]", step)]
        return not (any(there) if "|" in step else all(there) or ("+" in step and not any(there)))
    inner = value.get(step.rstrip("?[=]"))
    if "?" in step and not inner:
        return False
    if not step.endswith("]"):
        return _lacks(inner, rest)
    if not isinstance(inner, list | tuple):
        return True
    alike = not step.endswith("[=]") or all(isinstance(row, dict) and inner[0].keys() <= row.keys() for row in inner)
    return not alike or any(_lacks(row, rest) for row in inner)
