"""Go through the matrix: one JSON a cell, written when done; started again, or several times at once, it goes on."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from fnmatch import fnmatch
from pathlib import Path

from expunge.bench.assets import Assets, Busy
from expunge.bench.cells import run_cell
from expunge.bench.config import BenchConfig
from expunge.bench.datasets import Request, read_split, requests
from expunge.bench.kinds import same_kind
from expunge.errors import Collector, Problem, UsageError
from expunge.folders import whole_file

__all__ = ["Cell", "cells", "run_matrix", "weights_hash"]

_GROWING = ("seeds", "bootstrap")
"""Settings that results may be made with in several goes."""


@dataclass(frozen=True)
class Cell:
    """A place in the matrix.

    Attributes:
        assets: What the cells of its data set share.
        request: The records to forget.
        method: Name of the method.
        seed: Seed of the original and of unlearning.
    """

    assets: Assets
    request: Request
    method: str
    seed: int

    @property
    def name(self) -> str:
        """``data/request/method/seed``."""
        return f"{self.assets.name}/{self.request.name}/{self.method}/{self.seed}"

    def file(self, out: Path) -> Path:
        """Where its JSON goes."""
        return out / "cells" / self.assets.name / self.request.name / f"{self.method}-{self.seed}.json"


def cells(config: BenchConfig, shared: Sequence[tuple[Assets, Sequence[Request]]]) -> Iterator[Cell]:
    """All cells, first one seed of everything, so that what is done is a valid subset whenever it is stopped."""
    for seed in config.matrix.seeds:
        for assets, wanted in shared:
            for request in wanted:
                for method in config.methods:
                    task, _ = config.only.get(method, (assets.split.task_name, ""))
                    if task != assets.split.task_name:
                        continue
                    yield Cell(assets, request, method, seed)


def run_matrix(
    config: BenchConfig, data: Path, base: str, out: Path, work: Path, *, only: str = "*", say: Callable[[str], None]
) -> int:
    """Run every cell that has no JSON yet; several workers on one folder share the work.

    Args:
        config: The benchmark.
        data: Folder the data sets lie in.
        base: Folder or hub id of the base model.
        out: Where results go: ``cells/``, ``data/`` with the ids of every split and request, and ``retrained/`` with the scores
            of retrained models.
        work: Where models and their scores are kept.
        only: Pattern of cell names (``emotion/*``).
        say: Shows a line of progress.

    Returns:
        How many cells this worker ran.

    Raises:
        UsageError: Data or base model cannot be had, or no cell has such a name.
    """
    from expunge.models import inspect_folder, load_tokenizer

    found = Collector()
    found.problems.extend(inspect_folder(base, where="--base"))
    splits = {name: found.run(read_split, name, dataset, data, config.matrix) for name, dataset in config.data.items()}
    wanted = {
        name: found.run(requests, split, config.data[name], config.matrix) for name, split in splits.items() if split
    }
    found.finish()
    tokenizer = load_tokenizer(base, where="--base")
    hashed = weights_hash(base)
    shared = []
    for name, split in splits.items():
        assert split is not None
        own = wanted[name] or []
        assets = Assets(name, split, config, base, hashed, tokenizer, work, say, out / "retrained")
        shared.append((assets, own))
        _list_ids(out, assets, own)
    todo = [cell for cell in cells(config, shared) if fnmatch(cell.name, only)]
    if not todo:
        raise UsageError(Problem("--only", f'no cell is called "{only}"', "Names are data/request/method/seed."))
    return _work_through(todo, out, say)


def _work_through(todo: Sequence[Cell], out: Path, say: Callable[[str], None]) -> int:
    done = 0
    while True:
        moved = False
        left = [cell for cell in todo if not cell.file(out).is_file()]
        if not left:
            return done
        for cell in left:
            file = cell.file(out)
            try:
                with cell.assets.locked(f"cell-{cell.request.name}-{cell.method}-{cell.seed}"):
                    if file.is_file():
                        continue
                    start = time.perf_counter()
                    result = run_cell(cell.assets, cell.request, cell.method, cell.seed)
                    _, recipe = cell.assets.recipe()
                    file.parent.mkdir(parents=True, exist_ok=True)
                    whole_file(file, json.dumps({**result, "recipe": recipe}, indent=1, sort_keys=True) + "\n")
            except Busy:
                continue
            done, moved = done + 1, True
            say(f"{cell.name}: {time.perf_counter() - start:.0f} s, {len(left)} were left")
        if not moved:
            time.sleep(1.0)  # all that is left is being made by other workers


def _list_ids(out: Path, assets: Assets, wanted: Sequence[Request]) -> None:
    """Which records were used, by id: the data sets themselves are not ours to pass on."""
    split = assets.split
    sizes = {name: value for name, value in asdict(assets.config.matrix).items() if name not in _GROWING}
    listed = {
        "labels": split.label_names,
        "dataset": asdict(assets.config.data[assets.name]),
        "sizes": sizes,
        "base": assets.base_sha256,
        "recipe": asdict(assets.config.recipe),
        "sha256": {part: getattr(split, part).sha256() for part in ("train", "dev", "test")},
        "ids": {part: getattr(split, part).ids for part in ("train", "dev", "test")},
        "left_out": {
            method: reason
            for method, (task, reason) in assets.config.only.items()
            if task != split.task_name and method in assets.config.methods
        },
        "forget": {request.name: [split.train.ids[i] for i in request.forget] for request in wanted},
    }
    file = out / "data" / f"{assets.name}.json"
    listed, before = same_kind(file, listed, "results of another kind", but=("left_out",))
    seeds = sorted({*before.get("seeds", []), *assets.config.matrix.seeds})
    whole_file(file, json.dumps({**listed, "seeds": seeds}, sort_keys=True) + "\n")


def weights_hash(base: str) -> str:
    """Hash of a base model's weights; a hub id is its own name."""
    files = sorted(Path(base).expanduser().glob("*.safetensors"))
    digest = hashlib.sha256()
    for file in files:
        digest.update(file.read_bytes())
    return digest.hexdigest() if files else base
