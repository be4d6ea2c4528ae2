"""Models that the benchmark on TOFU compares: each trained once and kept in a work folder, or named in the config."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from filelock import FileLock

from expunge.bench.tofu_config import TofuConfig
from expunge.bench.tofu_data import TofuData
from expunge.fit import device, fit
from expunge.folders import whole_folder
from expunge.models import load_config, load_model
from expunge.tasks.base import Encoded
from expunge.tasks.generation import Generation

__all__ = ["TofuModels"]


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
        return self._load(self._folder(seed, self.config.tofu.originals, "original", None), "tofu.originals")

    def retrained(self, seed: int) -> Any:
        """The model trained without the records to forget."""
        return self._load(
            self._folder(seed, self.config.tofu.retrained, "retrained", self.data.retain), "tofu.retrained"
        )

    def _load(self, path: str, where: str) -> Any:
        return load_model(path, self.task.auto_class, where=where).to(device())

    def _folder(self, seed: int, given: Sequence[str], kind: str, positions: Sequence[int] | None) -> str:
        if given:
            return given[self.config.tofu.seeds.index(seed)]
        folder = self.work / f"tofu-{self.key}" / f"{kind}-{seed}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):  # another worker may be making it: wait
            if not folder.is_dir():
                records = self.train if positions is None else self.train.take(positions)
                start = time.perf_counter()
                model = fit(self.base, self.task, records, self.config.recipe, seed=seed, label_names=())
                self.say(f"{kind} {seed}: trained on {len(records)} records in {time.perf_counter() - start:.0f} s")
                with whole_folder(folder) as beside:
                    model.save_pretrained(beside)
        return str(folder)
