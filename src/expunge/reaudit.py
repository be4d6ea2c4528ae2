"""Measure an unlearned model again, from the record its run left."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from expunge.agreeing import agreeing
from expunge.apart import apart_from_models
from expunge.checks import Inputs, check
from expunge.config import RunConfig
from expunge.config_paths import path_problem
from expunge.errors import Problem, UsageError
from expunge.evidence import data_hmac, request_hmac
from expunge.execution import Run
from expunge.history.hashes import ERASURE
from expunge.models import inspect_folder
from expunge.progress import Progress
from expunge.record import RunRecord

__all__ = ["reaudit"]


def reaudit(
    folder: str | Path,
    *,
    model: str | None = None,
    retrained: Sequence[str] = (),
    forget: str | None = None,
    more: Sequence[str] = (),
    base: str | None = None,
    require: str | None = None,
    sets: Sequence[str] = (),
    out: str | Path | None = None,
    extra: Sequence[Problem] = (),
    progress: Progress | None = None,
) -> RunRecord:
    """Score original, unlearned and retrained models again and audit them; nothing is trained.

    Args:
        folder: What `expunge run` wrote.
        model: Another model to audit in the place of the one in `folder`.
        retrained: Folders of models retrained without the records, in the place of those of the run.
        forget: The ids again, where the record holds the request only as a pseudonym.
        more: Audits beside those of the run.
        base: The model the original was fine-tuned from, where the run was not told.
        require: Evidence class whose verdict is wanted.
        sets: Changes of settings, ``section.key=value``.
        out: Folder that the record will be written to: refused where it lies within a model that is read.
        extra: Problems found elsewhere, raised with the others.
        progress: Where progress is shown.

    Raises:
        UsageError: The record, the data or a model cannot be had, or the data have changed since.
    """
    with agreeing():
        record = RunRecord.read(folder)
        place = Path(folder) if Path(folder).is_dir() else Path(folder).parent
        audited = model or str(place)
        flags: dict[str, object] = {"retrain.enabled": False}
        if retrained:
            flags["retrain.models"] = list(retrained)
        if more:
            flags["audit.more"] = [*record.config["audit"].get("more", ()), *more]
        if base is not None:
            flags["retrain.base"] = base
        if require is not None:
            flags["audit.require"] = require
        asked = record.config["request"]
        if forget is not None:
            rules = ("where", "mention", "label", "fraction")
            flags.update({"request.file": forget, "request.ids": [], **{f"request.{rule}": None for rule in rules}})
        elif not record.config["privacy"]["show_ids"]:
            hidden = [rule for rule in ("ids", "where", "mention") if asked.get(rule)]
            if hidden and not any(word.startswith(f"request.{hidden[0]}=") for word in sets):
                way_out = f"Name the ids again (--forget ids.txt), or the rule: --set request.{hidden[0]}=..."
                raise UsageError(
                    [*extra, Problem("request", "the record holds the request only as a pseudonym", way_out)]
                )
        # Whether a model's own code may run is for the one who audits to say (--set), not for the folder's record.
        own = {**record.config, "model": {**record.config["model"], "trust_remote_code": False}}
        if "held_out_sample" not in own["data"]:  # made before there was a limit: all were looked at
            held = max(record.data["calibration"], record.data["evaluation"])
            own["data"] = {**own["data"], "held_out_sample": held}
        config = RunConfig.from_dict(own, sets, flags)
        lost = path_problem(audited, "--model", hub=True)
        if out is not None and not extra and lost is None:
            read = (audited, str(place)) if (place / ERASURE).is_dir() else (audited,)
            extra = apart_from_models(out, config, where="--out", more=read)
        extra = [*extra, *inspect_folder(audited, where="--model")]
        if not (config.model.path and config.data.train and config.data.held_out):
            way_out = "Name what was in memory: --set model.path=... --set data.train=... --set data.held_out=..."
            extra.append(Problem("audit", "the run was given objects in memory, which its record cannot name", way_out))
        prepared = check(config, Inputs(), extra)
        changed = [name for name, known in data_hmac(prepared).items() if known != record.data["hmac"][name]]
        if changed:
            what = f"the {' and '.join(changed)} records are not those of the run, or the salt is another (other hash)"
            raise UsageError(Problem("data", what, "Give the data of the run, unchanged, and the same salt."))
        if request_hmac(prepared) != record.request["hmac"]:
            way_out = "Give the request of the run (--forget ids.txt) and the same salt."
            raise UsageError(Problem("request", "it is not that of the run, or the salt is another", way_out))
    return Run(prepared, progress or Progress()).audit_only(audited, record)
