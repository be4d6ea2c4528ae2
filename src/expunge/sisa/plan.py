"""Which record is in which shard and slice, in which order a stage sees its records, and what that costs. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from expunge.options import Options, Positive, PositiveInt, Seed, option

__all__ = ["Minibatch", "Plan"]

_SORTED_TOGETHER = 50  # batches; as transformers' own grouping by length


class Minibatch(NamedTuple):
    """One optimisation step: positions of its records, and the seed of its dropout."""

    positions: list[int]
    seed: int


@dataclass(frozen=True, kw_only=True)
class Plan(Options):
    """How training is cut up, so that a record's influence stays in few stages.

    Shard and slice of a record hang on the plan's seed and its id alone: on no other record, no order and no salt. Stage
    r of a shard trains on its slices 1 to r. With R slices every stage makes 2E / (R + 1) passes over its records, so that
    the stages of a shard with equal slices pass E times over its records, as a plain run of E epochs does (Bourtoule et
    al., section on slicing).
    """

    seed: Seed = option(0, "seed of placement, order, dropout and head initialisation")
    shards: PositiveInt = option(5, "models, each trained on its own part of the records")
    slices: PositiveInt = option(4, "stages in which each of them is trained, with a checkpoint after each")
    epochs: Positive = option(3.0, "passes over the training data in all")

    @classmethod
    def section(cls) -> str:
        return "sisa"

    def place(self, record_id: str) -> tuple[int, int]:
        """Shard (from 0) and slice (from 1) of a record."""
        digest = self._digest("place", record_id)
        return int.from_bytes(digest[:8]) % self.shards, int.from_bytes(digest[8:16]) % self.slices + 1

    def counts(self, ids: Iterable[str]) -> list[list[int]]:
        """Records in each slice of each shard."""
        found = [[0] * self.slices for _ in range(self.shards)]
        for record_id in ids:
            shard, number = self.place(record_id)
            found[shard][number - 1] += 1
        return found

    def members(self, shard: int, stage: int, ids: Sequence[str]) -> list[int]:
        """Positions of the records a stage trains on."""
        placed = map(self.place, ids)
        return [i for i, (of, number) in enumerate(placed) if of == shard and number <= stage]

    @property
    def stage_epochs(self) -> Fraction:
        """Passes of a stage over its records."""
        return 2 * Fraction(str(self.epochs)) / (self.slices + 1)

    def visits(self, counts: Sequence[int], stage: int) -> int:
        """Example-passes of a stage, rounded half up; none where its own slice is empty.

        Args:
            counts: Records in each slice of the shard.
            stage: Its number, from 1.
        """
        return int(self._exact(counts, stage) + Fraction(1, 2))

    def _exact(self, counts: Sequence[int], stage: int) -> Fraction:
        return self.stage_epochs * sum(counts[:stage]) if counts[stage - 1] else Fraction(0)

    def planned(self, counts: Sequence[int], first: int = 1) -> Fraction:
        """Example-passes, before rounding, of a shard's stages from `first` on."""
        return sum((self._exact(counts, stage) for stage in range(first, self.slices + 1)), Fraction(0))

    def share_of_one(self, counts: Sequence[Sequence[int]]) -> Fraction:
        """What erasing one record costs on average, as a share of training the whole ensemble: by enumeration.

        Every record is erased once in turn; the stages from its slice on are trained again.

        Args:
            counts: Records in each slice of each shard.
        """
        total = sum((self.planned(shard) for shard in counts), Fraction(0))
        cost = sum((n * self.planned(shard, k) for shard in counts for k, n in enumerate(shard, start=1)), Fraction(0))
        return cost / sum(map(sum, counts)) / total

    def share_of(self, records: int) -> Fraction:
        """What one request for so many random records costs on average, as a share of training the whole ensemble.

        For equal slices: stage r of a shard is trained again unless none of the records falls into its slices 1 to r.
        """
        sizes = range(1, self.slices + 1)
        spared = [(1 - Fraction(r, self.shards * self.slices)) ** records for r in sizes]
        return sum((r * (1 - missed) for r, missed in zip(sizes, spared, strict=True)), Fraction(0)) / sum(sizes)

    def batches(
        self,
        shard: int,
        stage: int,
        ids: Sequence[str],
        counts: Sequence[int],
        batch_size: int,
        lengths: Sequence[int] | None = None,
    ) -> Iterator[Minibatch]:
        """The steps of a stage; none of them hangs on the order in which its records are given.

        Args:
            shard: Number of the shard, from 0.
            stage: Number of the stage, from 1.
            ids: Ids of the records of its slices.
            counts: Records in each slice of the shard.
            batch_size: Records a step.
            lengths: Tokens of each record, where records of like length are to stand together.
        """
        left, epoch = self.visits(counts, stage), 0
        while left > 0:
            keys = {i: self._digest("order", shard, stage, epoch, record_id) for i, record_id in enumerate(ids)}
            order = sorted(keys, key=keys.__getitem__)[:left]
            if lengths is not None:
                order = _by_length(order, lengths, batch_size * _SORTED_TOGETHER)
            for start in range(0, len(order), batch_size):
                chosen = order[start : start + batch_size]
                yield Minibatch(chosen, self.draw("dropout", shard, stage, epoch, [ids[i] for i in chosen]))
            left -= len(order)
            epoch += 1

    def draw(self, *what: object) -> int:
        """A seed of 63 bits that hangs on the plan's seed and `what` alone."""
        return int.from_bytes(self._digest(*what)[:8]) >> 1

    def _digest(self, *what: object) -> bytes:
        return hashlib.sha256(json.dumps(["sisa", self.seed, *what]).encode()).digest()


def _by_length(order: Sequence[int], lengths: Sequence[int], block: int) -> list[int]:
    """Longest first within each block; records of one length keep their order."""
    blocks = [order[start : start + block] for start in range(0, len(order), block)]
    return [i for one in blocks for i in sorted(one, key=lambda i: -lengths[i])]
