"""Play U-LiRA: train shadow models, let every method unlearn on each of them, and keep all margins as JSON."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from fnmatch import fnmatch
from pathlib import Path

import numpy as np

from expunge.bench.assets import Assets, Busy
from expunge.bench.cells import made_on
from expunge.bench.datasets import read_split
from expunge.bench.kinds import same_kind
from expunge.bench.lira_config import LiraConfig
from expunge.bench.lira_shadows import Job, Played, Shadows, cut_base, design
from expunge.bench.matrix import weights_hash
from expunge.errors import Collector, Problem, UsageError
from expunge.folders import whole_file

__all__ = ["run_lira"]

_PAIRS_AT_ONCE = 4
"""Pairs of shadows that every row is played on before the next ones: what is done is of use whenever it is stopped."""


def run_lira(
    config: LiraConfig, data: Path, base: str, out: Path, work: Path, *, only: str = "*", say: Callable[[str], None]
) -> int:
    """Make every model that is not made yet, and write the results; several workers on one folder share the work.

    Args:
        config: The game.
        data: Folder the data set lies in.
        base: Folder or hub id of the base model, cut to its first layers where the game says so.
        out: Where results go: ``game.json`` and one JSON a row, ``rows/NAME.json``.
        work: Where shadows and margins are kept.
        only: Pattern of rows to play: ``untouched``, a method's name, ``retrained``.
        say: Shows a line of progress.

    Returns:
        How many models this worker made.

    Raises:
        UsageError: Data or base model cannot be had, no row has such a name, or `out` holds another game.
    """
    from expunge.models import inspect_folder, load_tokenizer

    found = Collector()
    found.problems.extend(inspect_folder(base, where="--base"))
    bench = config.bench()
    split = found.run(read_split, config.name, config.data, data, bench.matrix)
    who = found.run(design, len(split.train), config.game) if split else None
    found.finish()
    assert split is not None
    assert who is not None
    work.mkdir(parents=True, exist_ok=True)
    tokenizer = load_tokenizer(base, where="--base")
    cut = cut_base(base, config.game.layers, work)
    assets = Assets(config.name, split, bench, cut, weights_hash(cut), tokenizer, work, say)
    shadows = Shadows(assets, config.game, who)
    rows = shadows.rows(config.methods)
    wanted = [name for name in rows if fnmatch(name, only)]
    if not wanted:
        raise UsageError(Problem("--only", f'no row is called "{only}"', f"Rows are: {', '.join(rows)}."))
    _keep_game(out, config, shadows, weights_hash(base))
    made = 0
    for start in range(0, config.game.shadows // 2, _PAIRS_AT_ONCE):
        pairs = range(start, start + _PAIRS_AT_ONCE)
        for name in wanted:
            todo = [job for job in rows[name] if job.pair in pairs]
            made += _work_through(todo, lambda name=name: _keep_row(out, name, config, rows[name]))
    return made


def _work_through(jobs: Sequence[Job], keep: Callable[[], None]) -> int:
    """Do all jobs that are not done; what is there so far is kept after each."""
    made, left = 0, list(jobs)
    while left:
        waiting = []
        for job in left:
            new = not job.file.is_file()
            try:
                job.done()
            except Busy:
                waiting.append(job)
                continue
            if new:
                made += 1
                keep()
        if len(waiting) == len(left):
            time.sleep(1.0)  # all that is left is being made by other workers
        left = waiting
    keep()
    return made


def _keep_game(out: Path, config: LiraConfig, shadows: Shadows, base_sha256: str) -> None:
    """Which records and sizes the results are of, by id: the data set itself is not ours to pass on."""
    split, who = shadows.assets.split, shadows.design
    sizes = {name: value for name, value in asdict(config.game).items() if name != "bootstrap"}
    game = {
        "data": config.name,
        "dataset": asdict(config.data),
        "sizes": sizes,
        "recipe": asdict(config.recipe) | {"epochs": config.game.epochs},
        "base": base_sha256,
        "labels": split.label_names,
        "sha256": {part: getattr(split, part).sha256() for part in ("train", "dev", "test")},
        "n": {part: len(getattr(split, part)) for part in ("train", "dev", "test")},
        "trained": len(who.trained(0)),
        "request": len(who.request(0)),
        "targets": [split.train.ids[i] for i in who.targets],
        "inside": ["".join("01"[int(own)] for own in row[who.targets]) for row in who.inside],
    }
    file = out / "game.json"
    game, _ = same_kind(file, game, "another game")
    whole_file(file, json.dumps(game, indent=1, sort_keys=True) + "\n")


def _keep_row(out: Path, name: str, config: LiraConfig, jobs: Sequence[Job]) -> None:
    """One row's margins as far as they are made: null for what is not, and for what failed."""
    played = [Played.load(job.file) if job.file.is_file() else None for job in jobs]
    trial = config.methods.get(name)

    def listed(field: str, digits: int) -> list[float | None]:
        values = [float("nan") if one is None else getattr(one, field) for one in played]
        return [None if np.isnan(value) else round(value, digits) for value in values]

    row = {
        "row": name,
        "settings": trial and trial.values(),
        "margins": [None if p is None or p.failed else np.round(p.margins, 4).tolist() for p in played],
        "test_accuracy": listed("test_accuracy", 4),
        "seconds": listed("seconds", 2),
        "passes": listed("passes", 1),
        "steps": [None if p is None else list(p.steps) for p in played],
        "failed": {str(number): p.failed for number, p in enumerate(played) if p is not None and p.failed},
        "environment": made_on(),
    }
    file = out / "rows" / f"{name}.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    whole_file(file, json.dumps(row, sort_keys=True, default=list) + "\n")
