"""The benchmark on EDU-RELAT: each target unlearned alone and with its closure, one JSON a method, scope and target."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

import numpy as np

from expunge.bench.cells import made_on
from expunge.bench.deep_config import DeepConfig
from expunge.bench.deep_models import DeepModels
from expunge.bench.kinds import same_kind
from expunge.bench.matrix import weights_hash
from expunge.bench.rows import locked_in, make_rows
from expunge.deep.fact_file import FactFile
from expunge.deep.measures import depth
from expunge.deep.plan import forget_the_closure
from expunge.deep.reading import read_knowledge
from expunge.errors import DivergedError, Problem, UsageError
from expunge.folders import whole_file
from expunge.models import inspect_folder, load_tokenizer

__all__ = ["SCOPES", "asked_about", "run_deep"]

SCOPES = ("alone", "closure")
"""What is forgotten: the target alone, or a smallest set without which it cannot be deduced (`forget_the_closure`)."""


def run_deep(
    config: DeepConfig, data: Path, base: str, out: Path, work: Path, *, only: str = "*", say: Callable[[str], None]
) -> int:
    """Make every row that has no JSON yet; several workers on one folder share them.

    Rows are named ``original`` and ``METHOD-SCOPE-TARGET``, first all of one target. A fact counts as forgotten when
    the model no longer answers it (`expunge.deep.probing.answered`).

    Args:
        config: The benchmark.
        data: File of facts and rules, each fact with a question.
        base: Folder or hub id of the base model.
        out: Where results go: ``game.json`` and ``rows/``.
        work: Where the original is kept.
        only: Pattern of row names (``npo-*``).
        say: Shows a line of progress.

    Returns:
        How many rows this worker made.

    Raises:
        UsageError: Data or base model cannot be had, or no row has such a name.
    """
    if problems := inspect_folder(base, where="--base"):
        raise UsageError(problems)
    facts = read_knowledge(data)
    if not all(facts.questions):
        raise UsageError(Problem("--data", "some facts have no question", "Give every fact a question and an answer."))
    targets = facts.positions(config.deep.targets, "deep.targets")
    hashed = weights_hash(base)
    models = DeepModels(config, facts, base, hashed, load_tokenizer(base, where="--base"), work, say)
    rows: dict[str, tuple[str, str, int] | None] = {"original": None}
    for target in targets:
        rows |= {f"{m}-{scope}-{facts.name(target)}": (m, scope, target) for m in config.methods for scope in SCOPES}
    todo = {name: asked for name, asked in rows.items() if fnmatch(name, only)}
    if not todo:
        raise UsageError(Problem("--only", f'no row is called "{only}"', "Names are original, METHOD-SCOPE-TARGET."))
    _describe(config, models, out)
    locked = locked_in(work / f"deep-{models.key}-locks")
    return make_rows(todo, out, locked, lambda name: _row(models, name, todo[name]), say)


def _describe(config: DeepConfig, models: DeepModels, out: Path) -> None:
    """What the results are of; results of another benchmark are not added to them."""
    deep = asdict(config.deep)
    listed = {
        "deep": {name: value for name, value in deep.items() if name not in ("targets", "batch_size")},
        "recipe": asdict(config.recipe),
        "base": models.base_sha256,
        "n": {"facts": len(models.facts.ids), "of rules": len(models.facts.base.ruled)},
        "original": models.key,
    }
    out.mkdir(parents=True, exist_ok=True)
    file = out / "game.json"
    listed, _ = same_kind(file, listed, "results of another kind")
    whole_file(file, json.dumps(listed, indent=1, sort_keys=True) + "\n")


def _row(models: DeepModels, name: str, asked: tuple[str, str, int] | None) -> dict[str, Any]:
    facts = models.facts
    common = {
        "row": name,
        "environment": made_on(),
    }
    model = models.original()
    before = _positions(models.before())
    if asked is None:
        return {**common, "gone": before}
    method, scope, target = asked
    forget = [target] if scope == "alone" else list(forget_the_closure(facts.base, [target]).forget)
    sets, complete = facts.sets(target)
    stands_for = asked_about(facts, target, models.config.deep.others, models.config.deep.seed)
    points: list[dict[str, Any]] = []
    began = time.perf_counter()

    def look(candidate: Any, at: float) -> bool:
        gone = [i for i, known in zip(stands_for, models.known(candidate, list(stands_for)), strict=True) if not known]
        found = depth(facts.base, target, gone, sets, stands_for)
        points.append({"at": at, "seconds": round(time.perf_counter() - began, 1), "gone": gone, **asdict(found)})
        models.say(
            f"  {name}, {at:g}: recall {found.recall:.2f}, accuracy {found.accuracy:.3f}, all {found.accuracy_all:.3f}"
        )
        return found.recall == 1 or found.accuracy_all < models.config.deep.end_accuracy

    trial = models.config.methods[method]
    failed = {}
    try:
        models.unlearn(model, trial, forget, look)
    except DivergedError as error:
        failed = {"failed": str(error)}
    return {
        **common, "method": method, "scope": scope, "target": facts.name(target), "relation": facts.base.facts[target].relation,
        "forget": [facts.ids[i] for i in forget], "sets": len(sets), "all_sets_known": complete, "asked": len(stands_for),
        "before": asdict(depth(facts.base, target, before, sets)), "settings": trial.values(), "points": points, **failed,
    }  # fmt: skip


def asked_about(facts: FactFile, target: int, others: int, seed: int) -> dict[int, float]:
    """The facts asked at a look, by position, and how many each stands for.

    All that the target hangs on stand for themselves; of the rest so many are drawn, from the facts of the rules' relations
    and from the others in proportion, and stand for their kind.

    Args:
        facts: The facts.
        target: Position of the target.
        others: How many of the rest; 0: all.
        seed: Seed of the draw.
    """
    count, rng = len(facts.ids), np.random.default_rng([seed, target])
    _, hangs_on, _ = facts.base.closure.about([target])
    asked = {i: 1.0 for i in hangs_on if i < count}
    rest = [i for i in range(count) if i not in asked]
    for ruled in (True, False):
        kind = [i for i in rest if (i in facts.base.ruled) == ruled]
        drawn = len(kind) if others == 0 else min(len(kind), round(others * len(kind) / len(rest)))
        asked |= {int(i): len(kind) / drawn for i in rng.choice(kind, drawn, replace=False)} if drawn else {}
    return dict(sorted(asked.items()))


def _positions(known: np.ndarray) -> list[int]:
    return np.flatnonzero(~known).tolist()
