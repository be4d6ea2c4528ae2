"""Erase records from an ensemble: train the stages they touched again, without them."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

from expunge.data.request import Resolved
from expunge.errors import Problem, UsageError
from expunge.paused import STAGES, PausedRun
from expunge.privacy import read_salt
from expunge.sisa.ensemble import Ensemble
from expunge.sisa.folder import is_sisa, must_be_unchanged
from expunge.sisa.manifest import Ledger, Manifest
from expunge.sisa.training import made_with, stage_folder
from expunge.tasks.base import Encoded

__all__ = ["account", "erase", "erased_before", "manifest_of", "still_there"]


def erase(
    ensemble: Ensemble,
    *,
    task: Any,
    forget: Encoded,
    forget_ids: Sequence[str],
    retain: Encoded,
    retain_ids: Sequence[str],
    spend: Callable[[float], None],
    paused: PausedRun | None = None,
) -> Ensemble:
    """The ensemble as it would be had it never been given the records.

    Args:
        ensemble: Left as it is; the two share the stages that are not touched.
        task: Collates records.
        forget: Records to erase.
        forget_ids: Their ids.
        retain: All other records of the training data; those erased before are left out.
        retain_ids: Their ids.
        spend: Called with the example-passes made.
        paused: Where stages are kept once they are trained, and found, if anywhere.

    Raises:
        UsageError: A record was erased before, the data are not those of the ensemble, or the base has changed.
        DivergedError: The loss became NaN or infinite.
    """
    manifest, old = ensemble.manifest, ensemble.checkpoints
    ledger = ensemble.ledger or Ledger(read_salt())
    if before := ledger.erased(manifest, forget_ids):
        raise UsageError(erased_before(len(before)))
    gone = ledger.erased(manifest, retain_ids)
    kept = [i for i, record_id in enumerate(retain_ids) if record_id not in gone]
    retain, retain_ids = retain.take(kept), [retain_ids[i] for i in kept]
    _must_be_its_data(manifest, ledger, [*forget_ids, *retain_ids], forget.followed_by(retain))
    must_be_unchanged(manifest, old.base)

    _note_other_bits(ensemble)

    plan = manifest.plan
    first: dict[int, int] = {}
    for shard, number in map(plan.place, forget_ids):
        first[shard] = min(number, first.get(shard, number))
    counts = plan.counts(retain_ids)
    planned = {s: sum(plan.visits(counts[s], r) for r in range(k, plan.slices + 1)) for s, k in first.items()}
    lasting = None if paused is None else paused.place(STAGES)
    workspace = lasting or Path(tempfile.mkdtemp(prefix="expunge-sisa-"))
    with nullcontext() if lasting else _removed_on_failure(workspace):
        passes = [list(row) for row in manifest.passes]
        shards, device = ensemble.shards, next(ensemble.parameters()).device
        written: dict[tuple[int, int], Path] = {}
        for shard, stage in sorted(first.items()):
            if not sum(counts[shard]):
                passes[shard] = [0] * plan.slices
                continue
            start = old.stages[shard, stage - 1] if stage > 1 else None
            name = f"shard {shard}: training stages {stage} to {plan.slices} again"
            with ensemble.progress.stage(name, planned[shard]) as advance:
                spent = shards.train(
                    shard, stage, task=task, encoded=retain, ids=retain_ids, start=start, place=workspace,
                    device=device, advance=advance, paused=paused,
                )  # fmt: skip
            spend(sum(spent))
            passes[shard][stage - 1 :] = spent
            stages = range(stage, plan.slices + 1)
            written |= {(shard, r): workspace / stage_folder(shard, r) for r in stages}
        members = {shard: ensemble.members[str(shard)] for shard, row in enumerate(counts) if sum(row)}
        members |= {
            shard: shards.whole(shard, written[shard, plan.slices]).to(device) for shard in first if shard in members
        }
        checkpoints = old.replaced(written, None if lasting else workspace)
        emptied = [shard for shard in first if not sum(counts[shard])]
        for key in [key for key in checkpoints.stages if key[0] in emptied]:
            del checkpoints.stages[key]
    request = {
        "records": len(forget_ids),
        "shards": len(first),
        "stages": len(written),
        "passes": sum(planned.values()),
        "ensemble_passes": sum(map(sum, manifest.passes)),
    }
    result = Ensemble(
        members,
        replace(
            manifest,
            counts=tuple(map(tuple, counts)),
            contents=ledger.contents(plan, retain_ids, retain),
            erased=tuple(sorted({*manifest.erased, *map(ledger.mark, forget_ids)})),
            passes=tuple(map(tuple, passes)),
            requests=(*manifest.requests, request),
        ),
        checkpoints,
    )
    result.trust_remote_code, result.ledger = ensemble.trust_remote_code, ensemble.ledger
    return result.eval()


def account(ensemble: Ensemble) -> dict[str, Any]:
    """What the last request cost, beside what was to be expected, for a run's record.

    All figures count example-passes of training.
    """
    manifest = ensemble.manifest
    plan, request = manifest.plan, manifest.requests[-1]
    share = request["passes"] / request["ensemble_passes"]
    expected = float(plan.share_of(request["records"]))
    count = request["records"]
    return {
        "reason": (
            f"sisa: {request['stages']} of {plan.shards * plan.slices} stages trained again, {share:.1%} of the "
            f"ensemble's training passes (expected for {count} random record{'s' if count > 1 else ''}: {expected:.1%})"
        ),
        "sisa": {
            **request,
            "share": round(share, 6),
            "expected_share": round(expected, 6),
            "expected_share_of_one": round(float(plan.share_of(1)), 6),
            "plain_retraining_passes": plan.epochs * sum(map(sum, manifest.counts)),
            "shards": plan.shards,
            "slices": plan.slices,
            "touched_shards": request["shards"],
            "adapter": manifest.members.adapter,
            "requests": len(manifest.requests),
        },
    }


def manifest_of(path: str, model: Any) -> Manifest | None:
    """What a SISA folder, or an ensemble in memory, says of itself; None for any other model.

    Raises:
        UsageError: The folder's manifest is broken.
    """
    if model is not None:
        return model.manifest if isinstance(model, Ensemble) else None
    return Manifest.read(path) if is_sisa(path) else None


def still_there(
    manifest: Manifest, ids: Sequence[str], request: Resolved, named: Sequence[str] | None, salt: bytes | None
) -> Resolved:
    """The request without what was erased before, be it to be forgotten by a rule or to be retained.

    Args:
        manifest: Of the SISA folder.
        ids: Ids of the training records.
        request: Positions among them.
        named: Ids the request names one by one; None where it is a rule.
        salt: The user's salt, where there is one.

    Raises:
        UsageError: A named record was erased before, nothing is left to erase or to retain, or the salt is another.
    """
    if salt is None:
        what = "there is none yet, and the SISA folder was made with one"
        raise UsageError(Problem("privacy.salt_file", what, "Name that salt: --salt-file FILE."))
    gone = Ledger(salt).erased(manifest, ids)
    again = len(gone & set(named)) if named is not None else 0
    forget, retain = (
        tuple(i for i in positions if ids[i] not in gone) for positions in (request.forget, request.retain)
    )
    if again or not forget:
        raise UsageError(erased_before(again or len(request.forget)))
    if not retain:
        way_out = "Some records must stay. To forget everything, delete the folder."
        raise UsageError(Problem("request", "all records that are left are to be forgotten", way_out))
    return replace(request, forget=forget, retain=retain)


def erased_before(count: int) -> Problem:
    """What to say of records that were erased before."""
    what = f"{count} of the requested records {'were' if count > 1 else 'was'} erased from this SISA folder before"
    return Problem("request", what, "Leave them out of the request: nothing of them is left to erase.")


def _must_be_its_data(manifest: Manifest, ledger: Ledger, ids: Sequence[str], encoded: Encoded) -> None:
    found, known = ledger.contents(manifest.plan, ids, encoded), manifest.contents
    changed = [
        f"slice {number} of shard {shard}"
        for shard, row in enumerate(known)
        for number, content in enumerate(row, start=1)
        if content != found[shard][number - 1]
    ]
    if changed:
        held = sum(map(sum, manifest.counts))
        what = (
            f"the training data are not those of the SISA folder ({held} records there, {len(ids)} here; other ids, texts, "
            f"labels or tokens in {', '.join(changed[:3])}{' ...' if len(changed) > 3 else ''})"
        )
        way_out = "Give the data it was trained on, with the same columns named; records erased before may be gone."
        raise UsageError(Problem("data.train", what, way_out))


def _note_other_bits(ensemble: Ensemble) -> None:
    here, then = made_with(next(ensemble.parameters()).device), ensemble.manifest.made_with
    changed = [f"{name} {then[name]} then, {here.get(name)} now" for name in then if then[name] != here.get(name)]
    if changed:
        ensemble.progress.note(
            f"This is not the machine the ensemble was trained on ({'; '.join(changed)}): the stages trained now hold nothing "
            "of the records, but a training without them there would differ from them by rounding."
        )


@contextmanager
def _removed_on_failure(folder: Path) -> Iterator[None]:
    try:
        yield
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
