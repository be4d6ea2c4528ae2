"""SISA: exact erasure from an ensemble that was trained for it, at a fraction of retraining's cost."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from expunge.errors import RunError
from expunge.methods.base import Procedure, ProcedureContext

__all__ = ["Sisa"]


@dataclass(frozen=True, kw_only=True)
class Sisa(Procedure):
    """Train again, without the records, only the stages of the shards that they are in.

    Formula: the model is the mean of the probabilities of S members, each trained on its shard of the records in R stages,
    stage r on its slices 1 to r. Records in slice k of a shard cost that shard's stages k to R, the others nothing: for one
    record and equal slices on average sum_k sum_{r >= k} r / (S R sum_r r) of the training, 15 % with S = 5 and R = 4.
    Afterwards the weights equal, bit for bit, those of an ensemble trained without the records (on the same machine, on CPUs).

    Source: Bourtoule et al. 2021, arXiv 1912.03817, sections IV and V.

    Ours: records are put into shards and slices by a hash of seed and id, not at random, so that a record that goes moves no
    other; order and dropout hang on ids likewise; learning-rate schedule and optimizer begin anew with each stage, where the
    paper leaves this open; members may be LoRA adapters; the members' mean is of probabilities (the paper: labels or vectors).

    Failure signs: needs a folder made by `expunge train-sisa`, so it must be decided on before training. Members see fewer
    records, so accuracy falls, most where classes are rare. Many records in one request touch every shard, and the saving
    is gone: 16 random ones cost 89 % with the defaults.

    Example:
        >>> Sisa().values()
        {}
    """

    units: ClassVar[frozenset[str]] = frozenset({"classes"})

    def run(self, context: ProcedureContext) -> Any:
        from expunge.sisa.ensemble import Ensemble
        from expunge.sisa.request import erase

        if not isinstance(context.model, Ensemble):
            raise RunError("sisa: the model is no SISA ensemble; `expunge train-sisa` trains one.")
        return erase(
            context.model, task=context.task, forget=context.forget, forget_ids=context.forget_ids,
            retain=context.retain, retain_ids=context.retain_ids, spend=context.spend, paused=context.paused,
        )  # fmt: skip
