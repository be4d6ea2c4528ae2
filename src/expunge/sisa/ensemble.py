"""The ensemble as a torch module, usable where a model is: it answers with the mean of its members' probabilities."""

from __future__ import annotations

import math
import shutil
import weakref
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import RunError
from expunge.head import Head, find_head
from expunge.progress import Progress
from expunge.sisa.manifest import FILE, Ledger, Manifest
from expunge.sisa.training import Shards, stage_folder
from expunge.tasks.base import Batch

__all__ = ["BASE", "Checkpoints", "Ensemble", "EnsembleHead"]

BASE = "base"
"""Folder of the base model inside a SISA folder."""


class Checkpoints:
    """Where the stages' checkpoints are: in a SISA folder, or in temporary folders that vanish with this object.

    Attributes:
        base: Folder of the base model.
        stages: Folder of each stage, by shard and stage.
    """

    def __init__(self, base: Path, stages: Mapping[tuple[int, int], Path]) -> None:
        self.base = base
        self.stages = dict(stages)
        self._keeps: tuple[Checkpoints, ...] = ()

    def __deepcopy__(self, memo: object) -> Checkpoints:
        return self  # never changed, and what it owns must go once only

    def replaced(self, stages: Mapping[tuple[int, int], Path], temporary: Path | None) -> Checkpoints:
        """These with other stages, in a folder that is removed when the result is, where one is named."""
        found = Checkpoints(self.base, {**self.stages, **stages})
        found._keeps = (self,)
        if temporary is not None:
            weakref.finalize(found, shutil.rmtree, temporary, ignore_errors=True)
        return found


@dataclass(frozen=True)
class EnsembleHead:
    """The last linear layers of the members; used as `expunge.head.Head` is.

    Attributes:
        heads: Those of the members, in their order.
    """

    heads: tuple[Head, ...]

    def run(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """One forward pass of every member.

        Returns:
            (U, S * H) the members' `hidden` side by side, and (U, C) log of their mean probabilities.
        """
        outputs = [head.run(member, batch) for head, member in zip(self.heads, model.members.values(), strict=True)]
        hidden, logits = zip(*outputs, strict=True)
        return torch.cat(hidden, dim=-1), log_mean(logits)


@dataclass
class Output:
    """What a forward pass gives.

    Attributes:
        logits: Log of the mean probabilities.
    """

    logits: Tensor


class Ensemble(nn.Module):
    """The models of all shards that hold a record; one without any has nothing to say and takes no part in the mean.

    Attributes:
        members: Model of each of these shards.
        config: A member's configuration.
        manifest: How it was trained, and what was erased from it.
        checkpoints: Where its stages are.
    """

    def __init__(self, members: Mapping[int, Any], manifest: Manifest, checkpoints: Checkpoints) -> None:
        super().__init__()
        self.members = nn.ModuleDict({str(shard): member for shard, member in sorted(members.items())})
        self.config = next(iter(members.values())).config
        self.manifest = manifest
        self.checkpoints = checkpoints
        self.trust_remote_code = False
        self.ledger: Ledger | None = None
        self.progress = Progress()

    @property
    def shards(self) -> Shards:
        """What trains, reads and writes the members."""
        m = self.manifest
        return Shards(m.plan, m.recipe, m.members, self.checkpoints.base, self.trust_remote_code)

    def bind(self, salt: bytes, progress: Progress) -> None:
        """Tell it the user's salt, which names the erased, and where progress is shown."""
        self.ledger, self.progress = Ledger(salt), progress

    def forward(self, **inputs: Any) -> Output:
        """Logits that are the log of the members' mean probabilities."""
        return Output(log_mean([member(**inputs).logits for member in self.members.values()]))

    def find_head(self, probe: Batch) -> EnsembleHead:
        """The members' last linear layers."""
        return EnsembleHead(tuple(find_head(member, probe) for member in self.members.values()))

    def save_pretrained(self, place: str | Path) -> None:
        """Write a SISA folder: every checkpoint, the base, and what is needed to erase more.

        Raises:
            RunError: A checkpoint has vanished since.
        """
        target = Path(place)
        target.mkdir(parents=True, exist_ok=True)
        sources = {BASE: self.checkpoints.base}
        sources |= {str(stage_folder(*key)): folder for key, folder in self.checkpoints.stages.items()}
        for name, folder in sources.items():
            if not folder.is_dir():
                raise RunError(f'"{folder}" has vanished, and this ensemble is made of it. Nothing was written.')
            shutil.copytree(folder, target / name)
        self.write_about(target)

    def write_about(self, place: Path) -> None:
        """Write sisa.json and config.json."""
        self.config.save_pretrained(place)
        (place / FILE).write_text(self.manifest.to_json(), encoding="utf-8")


def log_mean(logits: Any) -> Tensor:
    """Log of the mean of the members' probabilities: (..., C) logits of each member -> (..., C)."""
    stacked = torch.stack([part.log_softmax(dim=-1) for part in logits])
    return stacked.logsumexp(dim=0) - math.log(len(stacked))
