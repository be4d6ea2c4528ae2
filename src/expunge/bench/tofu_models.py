"""Models that the benchmark on TOFU compares: each trained once and kept in a work folder, or named in the config."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple

from filelock import FileLock
from transformers import set_seed

from expunge.bench.config import Trial
from expunge.bench.rows import cost
from expunge.bench.tofu_config import TofuConfig
from expunge.bench.tofu_data import TofuData
from expunge.fit import device, fit
from expunge.folders import whole_folder
from expunge.generating import own_answers
from expunge.head import head_of
from expunge.models import load_config, load_model
from expunge.scoring import ScoreTable, score
from expunge.tasks.base import Encoded
from expunge.tasks.generation import Generation
from expunge.unlearning import Unlearning

__all__ = ["TofuModels", "Unlearned"]


class Unlearned(NamedTuple):
    """A model that was made to forget.

    Attributes:
        model: The model.
        log: How training went.
        passes: Example-passes of training and preparation.
        checks: Those of the stop rule.
        seconds: How long it took.
    """

    model: Any
    log: Mapping[str, Any]
    passes: float
    checks: float
    seconds: float

    def cost(self, retraining: float) -> dict[str, Any]:
        """Plain values, beside the passes of retraining."""
        return cost(self.passes, self.checks, retraining, self.seconds)


@dataclass(frozen=True)
class TofuModels:
    """The base, originals and retrained models of one benchmark.

    Attributes:
        config: The benchmark.
        data: Its records.
        base: Folder or hub id of the base model.
        base_sha256: Hash of its weights; of a hub id, its name.
        tokenizer: Its tokenizer.
        work: Where trained models are kept.
        say: Shows a line of progress.
    """

    config: TofuConfig
    data: TofuData
    base: str
    base_sha256: str
    tokenizer: Any
    work: Path
    say: Callable[[str], None]

    @cached_property
    def task(self) -> Generation:
        """Encodes and collates records."""
        names = Generation.names(load_config(self.base, where="--base"), self.tokenizer, ())
        return Generation(self.tokenizer, self.config.tofu.max_length, names, self.config.tofu.template)

    @cached_property
    def train(self) -> Encoded:
        """The training records, tokenised."""
        return self.task.encode(self.data.train)

    @cached_property
    def key(self) -> str:
        """Changes with all that a model hangs on."""
        parts = [self.data.train.sha256(), self.data.forget, self.config.tofu.template, self.config.tofu.max_length]
        text = json.dumps([self.base_sha256, asdict(self.config.recipe), parts], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def load_base(self) -> Any:
        """The base model."""
        return self._load(self.base, "--base")

    def original(self, seed: int) -> Any:
        """The model trained on all records with this seed."""
        return self._load(self.original_folder(seed), "tofu.originals")

    def original_folder(self, seed: int) -> str:
        """Where it lies; or its hub id, where one is named."""
        return self._folder(seed, self.config.tofu.originals, "original", None)

    def retrained(self, seed: int) -> Any:
        """The model trained without the records to forget."""
        return self._load(
            self._folder(seed, self.config.tofu.retrained, "retrained", self.data.retain), "tofu.retrained"
        )

    def scored(self, model: Any, head: Any, records: Encoded) -> ScoreTable:
        """What a model says of records, in one pass."""
        return score(model, head, records, self.task, batch_size=self.config.tofu.batch_size, keep_hidden=False)

    def unlearned(self, model: Any, trial: Trial, forget: Sequence[int], retain: Sequence[int], seed: int) -> Unlearned:
        """A model of one's own, made to forget training records.

        Args:
            model: The model; it is changed.
            trial: Method and training.
            forget: Positions of the records to forget.
            retain: Positions of those that may be retained.
            seed: Seed of the run.

        Raises:
            DivergedError: The loss, or what the model says, became NaN or infinite.
        """
        task, data, tofu = self.task, self.data, self.config.tofu
        groups = self.train.take(forget), self.train.take(retain)
        calibration = task.encode(data.calibration)
        head = head_of(model, task, groups[0])
        before = self.scored(model, head, groups[0]), self.scored(model, head, calibration)
        set_seed(seed)
        start = time.perf_counter()
        outcome = Unlearning(
            method=trial.method, task=task, forget=groups[0], retain=groups[1], calibration=calibration,
            forget_ids=[data.train.ids[i] for i in forget], retain_ids=[data.train.ids[i] for i in retain],
            training=trial.training, stop=trial.stop, seed=seed, label_names=task.label_names, base=self.base,
            recipe=replace(self.config.recipe, max_length=tofu.max_length), batch_size=tofu.batch_size,
            original_scores=before, **own_answers(task, data.train.take(forget)),
        ).run(model)  # fmt: skip
        seconds = time.perf_counter() - start
        return Unlearned(outcome.model, outcome.log, outcome.passes, outcome.check_passes, seconds)

    def _load(self, path: str, where: str) -> Any:
        return load_model(path, self.task.auto_class, where=where).to(device())

    def _folder(self, seed: int, given: Sequence[str], kind: str, positions: Sequence[int] | None) -> str:
        if given:
            return given[self.config.tofu.seeds.index(seed)]
        return self.trained(f"{kind}-{seed}", positions, seed)

    def trained(self, name: str, positions: Sequence[int] | None, seed: int) -> str:
        """Folder of the base trained on these records, or on all; made once.

        Args:
            name: Name of its folder.
            positions: Positions of the records; None: all.
            seed: Seed of training.
        """
        folder = self.work / f"tofu-{self.key}" / name
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # another worker may be making it: wait
            if not folder.is_dir():
                records = self.train if positions is None else self.train.take(positions)
                start = time.perf_counter()
                model = fit(self.base, self.task, records, self.config.recipe, seed=seed, label_names=())
                self.say(f"{name}: trained on {len(records)} records in {time.perf_counter() - start:.0f} s")
                with whole_folder(folder) as beside:
                    model.save_pretrained(beside)
        return str(folder)
