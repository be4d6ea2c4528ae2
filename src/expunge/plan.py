"""Before any step: is erasure needed, what will it cost, and what will the run not be able to show?"""

from __future__ import annotations

import copy
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np

from expunge.attacks import least_unseen
from expunge.audits.base import AuditContext, Tables
from expunge.checks import Prepared
from expunge.config import StopConfig
from expunge.evidence import duplicates_of, shown_memory
from expunge.execution import Run
from expunge.halfway import end_of_pass
from expunge.head import head_of
from expunge.looking import rows_a_step, schedule
from expunge.memorisation import LEVEL, memorised
from expunge.methods.base import Method
from expunge.offset.ensemble import OffsetModel
from expunge.plan_cost import Cost, offset_share, peak_memory, step_passes
from expunge.progress import Progress
from expunge.sampling import StepSampler
from expunge.scoring import score
from expunge.stats import Interval, auc_interval
from expunge.summary import near_held_out
from expunge.tasks.base import Encoded
from expunge.verdict import LEAST_RECORDS, incomplete, original_passes

__all__ = ["Plan", "make_plan"]

_TRIAL_STEPS = 8


@dataclass(frozen=True, kw_only=True)
class Plan:
    """What is known before a run.

    Attributes:
        data: Counts: training records, to forget, to retain, for calibration, for evaluation.
        duplicates: How many were found, by kind, how many of them are left, and held-out records that nearly repeat one to
            forget.
        memorised: How many records the original had memorised: ``yes``, ``no``, ``undecided``, and how many ``yes`` were
            to be expected ``by_chance`` had it memorised none.
        membership: AUC of the original's margins, forget against evaluation records, with a 95 % interval.
        needed: Whether erasure is needed, in a sentence: whether the forget records, as a group or one by one, can be told.
        records: One row a record to forget: shown id, whether it was named, the original's margin and whether it labels the
            record right, percentile, memorised, duplicates.
        cost: The run's expected cost; an estimate.
        cannot_show: What the run will not be able to show, in sentences.
    """

    data: dict[str, int]
    duplicates: dict[str, Any]
    memorised: dict[str, float]
    membership: Interval
    needed: str
    records: list[dict[str, Any]]
    cost: Cost
    cannot_show: list[str]

    def as_dict(self) -> dict[str, Any]:
        """Plain values."""
        return asdict(self)


def make_plan(prepared: Prepared, progress: Progress | None = None) -> Plan:
    """Score the forget and held-out records under the original, try a few steps on a copy, and say what to expect.

    Nothing is written, and the model given is not changed.

    Raises:
        UsageError: The model's weights cannot be used.
    """
    progress = progress or Progress()
    run = Run(prepared, Progress())
    with progress.stage("reading records"):
        encoded = run._encode()
    with progress.stage("loading the model"):
        model, _ = run._own_model()
    names = ("forget", "calibration", "evaluation")
    start = time.perf_counter()
    with progress.stage("scoring", sum(len(encoded[name]) for name in names)) as advance:
        head = head_of(model, prepared.task, encoded["forget"])
        size = prepared.config.audit.batch_size
        tables: Tables = {
            name: score(model, head, encoded[name], prepared.task, batch_size=size, keep_hidden=False, advance=advance)
            for name in names
        }
    forward = (time.perf_counter() - start) / sum(len(encoded[name]) for name in names)
    with progress.stage("trying a few steps") as advance:
        cost = _cost(run, encoded, model, forward, advance)
    memories = memorised(tables["forget"], [tables["calibration"], tables["evaluation"]])
    answers = [memory.answer for memory in memories]
    membership = auc_interval([(tables["forget"].record_margins, tables["evaluation"].record_margins)])
    few = sum(memory.unseen < least_unseen(1 - LEVEL) for memory in memories)
    found = duplicates_of(prepared)
    request = prepared.request
    rows = [
        {
            "id": prepared.shown(prepared.train.ids[position]),
            "named": prepared.train.ids[position] not in request.added,
            "margin": round(float(tables["forget"].record_margins[place]), 4),
            "correct": bool(tables["forget"].hits[place, 0] == tables["forget"].hits[place, 1]),
            **shown_memory(memories[place]),
            "alike": found.get(prepared.train.ids[position], []),
        }
        for place, position in enumerate(request.forget)
    ]
    kinds = {
        kind: sum(e["kind"] == kind for row in rows for e in row["alike"])
        for kind in ("identical", "near", "neighbour")
    }
    return Plan(
        data={
            "train": len(prepared.train), "forget": len(request.forget), "retain": len(request.retain),
            "calibration": len(prepared.calibration), "evaluation": len(prepared.evaluation),
        },
        duplicates={**kinds, "left": prepared.left(), "held_out": prepared.near_held_out},
        memorised={
            **{answer: answers.count(answer) for answer in ("yes", "no", "undecided")},
            "by_chance": round(LEVEL * (len(answers) - few), 1),
        },
        membership=membership, needed=_needed(membership, answers.count("yes"), len(answers) - few), records=rows, cost=cost,
        cannot_show=_cannot_show(prepared, tables, few, run.words_cut),
    )  # fmt: skip


def _needed(membership: Interval, memorised: int, judged: int) -> str:
    """Yes where the group's AUC lies above 0.5, or more single records are memorised than chance gives in 5 % of cases."""
    from scipy.stats import binom

    if membership.low > 0.5:
        return "Yes: as a group the records can be told from records never seen; single ones less surely."
    if judged and binom.sf(memorised - 1, judged, LEVEL) < LEVEL:
        return "Yes: more of the records are memorised than chance would give."
    return "Not shown: to the original the records look like records never seen."


def _cost(run: Run, encoded: dict[str, Encoded], model: Any, forward: float, advance: Callable[[float], None]) -> Cost:
    """What the run will cost at most, early looks apart: passes counted, time from a few steps on a copy thrown away."""
    config = run.prepared.config
    method, settings = config.method, config.training
    forget, retain = encoded["forget"], encoded["retain"]
    whole = run._retraining_passes(encoded)
    models = 2 + len(config.retrain.models)
    scored = sum(len(encoded[name]) for name in ("forget", "retain sample", "calibration", "evaluation"))
    fitted = len(config.retrain.seeds or (0,)) if config.retrain.enabled and whole is not None else 0
    rest = forward * scored * (models + fitted)
    again = (whole or 0.0) * fitted
    if not isinstance(method, Method):
        classes = len(run.prepared.task.label_names) if forget.units is None else 1
        expected = method.expected(len(forget), len(retain), len(encoded["calibration"]), classes, whole)
        passes, steps, checks = whole if type(method).__name__ == "Retrain" else None, None, 0.0
        if expected is not None:
            passes, steps = expected
            looks = schedule(config.stop, len(forget), len(encoded["calibration"]), passes, steps)
            checks = round(steps * looks.passes, 1)
        basis = (
            "three forward passes a training pass"
            if passes is not None
            else "not known before: the method has no steps"
        )
        seconds = None if passes is None else (passes + checks + again) * 3 * forward + rest
        return Cost(steps, passes, checks, whole, seconds, again * 3 * forward, peak_memory(), basis)
    sampler = StepSampler(
        forget.labels, retain.labels, batch_size=settings.batch_size, seed=config.seed,
        retain_ratio=getattr(method, "retain_ratio", 1),
    )  # fmt: skip
    a_pass = sampler.steps_per_pass
    steps = max(settings.min_steps, round(settings.epochs * a_pass), 1)
    share = end_of_pass(method, model)[1] if method.halfway else 1.0

    def passes_in(steps: int) -> float:
        return step_passes(method, sampler, len(forget), len(retain), steps, settings.accumulation, share)

    passes = passes_in(steps)
    a_step = rows_a_step(method, settings.batch_size, len(forget), len(retain))
    looks = schedule(config.stop, len(forget), len(encoded["calibration"]), steps * a_step, steps)
    checks = -(-steps // looks.every) * looks.passes
    per_pass, basis = 3 * forward, "scoring: three forward passes a training pass"
    if not method.needs_base:
        tried = min(_TRIAL_STEPS, steps)
        clock = _Clock(advance)
        trial = replace(
            run._unlearning(encoded), training=replace(settings, min_steps=tried, epochs=1e-9),
            stop=StopConfig(rule="none", every=steps + tried, sample=config.stop.sample), progress=clock,
        )  # fmt: skip
        outcome = trial.run(copy.deepcopy(model))
        known = passes_in(tried)
        a_row = 1.0
        if isinstance(outcome.model, OffsetModel):
            sizes = len(forget), len(retain), looks.calibration
            share, once = offset_share(outcome.model, method, sampler, sizes, steps)
            passes, checks = passes * share + once, checks * share
            a_row = share + outcome.model.first_passes  # the steps timed see records for the first time
        else:
            passes += max(0.0, outcome.passes - known)  # what the method made before its first step
        timed = clock.stamps[1:-1] if len(clock.stamps) > 3 else []  # the first step warms up, the last one also checks
        if timed:
            spent = passes_in(len(clock.stamps) - 1) - passes_in(2)
            per_pass, basis = (timed[-1] - timed[0]) / (spent * a_row), f"{len(timed) - 1} timed steps on a copy"
    else:
        basis += "; without the models the method first trains from the base"
    seconds = passes * per_pass + checks * 3 * forward + rest + again * per_pass
    return Cost(
        steps,
        round(passes, 1),
        round(checks, 1),
        whole,
        round(seconds, 1),
        round(again * per_pass, 1),
        peak_memory(),
        basis,
    )


class _Clock(Progress):
    """Notes when each step of the unlearning ended."""

    def __init__(self, advance: Callable[[float], None]) -> None:
        self.stamps: list[float] = []
        self._advance = advance

    @contextmanager
    def stage(self, name: str, total: float | None = None) -> Iterator[Callable[[float], None]]:
        del total
        yield self._step if name == "unlearning" else lambda amount: None

    def _step(self, amount: float) -> None:
        self.stamps.append(time.perf_counter())
        self._advance(amount)


def _cannot_show(prepared: Prepared, tables: Tables, few: int, words_cut: int) -> list[str]:
    config = prepared.config
    n, m = len(tables["forget"]), len(tables["evaluation"])
    found = []
    if n < LEAST_RECORDS:
        found.append(
            f"With {n} forget records (fewer than {LEAST_RECORDS}) no verdict can be reached: look at each record "
            "(`expunge records`)."
        )
    context = AuditContext({"original": [tables]}, len(prepared.task.label_names), config.audit.bootstrap)
    if n >= LEAST_RECORDS and original_passes(context):
        found.append(
            "The untouched original passes the population test already: that verdict can end in no power at best; only "
            "retrained models may tell more."
        )
    half = 1.96 * float(np.sqrt((n + m + 1) / (12 * n * m)))
    found.append(
        f"{n} forget and {m} evaluation records place the membership AUC within about +-{half:.3f}: a smaller trace stays "
        "hidden."
    )
    if m < 1000:
        least = "1 %" if m < 100 else "0.1 %"
        found.append(f"{m} evaluation records are too few for a true-positive rate at {least} false positives.")
    again = len(config.retrain.models) + (len(config.retrain.seeds or (0,)) if config.retrain.enabled else 0)
    if not again:
        found.append(
            "No retrained model is given: the evidence is population-only, and cannot say what a model that never saw a record "
            "would say of it. --retrain or --retrained can."
        )
    elif again == 1:
        found.append(
            "One retrained model gives no noise floor: what a seed alone changes stays unknown. Two or more do."
        )
    if few:
        found.append(
            f"For {few} records fewer than {least_unseen(1 - LEVEL)} unseen records of the class are there: whether they were "
            "memorised cannot be said."
        )
    if stays := incomplete(prepared.left()):
        found.append(f"A whole erasure: {stays[0].lower()}{stays[1:]} No verdict can be reached with them there.")
    if prepared.near_held_out:
        found.append(near_held_out(prepared.near_held_out))
    if words_cut:
        found.append(f"{words_cut} words lie behind the length sentences are cut to: nothing is known of them.")
    return found
