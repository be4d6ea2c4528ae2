"""Which reference a run has: the original's outputs, where its method reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from expunge.methods.base import Method
from expunge.reference import FrozenCopy, Reference
from expunge.sampling import StepPlan
from expunge.tasks.base import Encoded
from expunge.token_head import TokenHead
from expunge.token_reference import TokenReference

__all__ = ["Kept", "referred"]


@dataclass(frozen=True)
class Kept:
    """Where the original's outputs for tokens lie. They tell much of a record, and the last hidden states all of it.

    Attributes:
        retained: Folder that keeps those of retained records for further runs; left out: they lie with the others.
        run: Folder of the run, which goes with it; left out: one that goes as soon as all is read.
    """

    retained: Path | None = None
    run: Path | None = None


def referred(
    method: Method, model: Any, head: Any, task: Any, records: dict[str, Encoded], plans: Sequence[StepPlan], *,
    layer: nn.Module | None, cache: Kept | Path | None, batch_size: int,
) -> Reference | None:  # fmt: skip
    """The original's outputs: of classifiers on demand, of tokens all that the steps will read, taken now.

    Args:
        method: Says what it reads.
        model: The original.
        head: Its last linear layer.
        task: Collates records.
        records: Group -> its records.
        plans: The run's steps.
        layer: The layer whose states it compares, where it does.
        cache: Where outputs for tokens lie; a folder is that of retained records.
        batch_size: Records a forward pass.
    """
    needs = [need.partition(".") for need in sorted(method.reads) if ".reference" in need]
    if not needs:
        return None
    if not isinstance(head, TokenHead):
        return FrozenCopy(model, task, records)
    drawn = {"forget": {i for p in plans for i in p.forget}, "retain": {i for p in plans for i in p.retain}}
    drawn["alternate"] = drawn["forget"]
    kept = cache if isinstance(cache, Kept) else Kept(cache)
    with tempfile.TemporaryDirectory(prefix="expunge-", ignore_cleanup_errors=True) as folder:
        return TokenReference(
            model, head, task, records, {group: sorted(drawn[group]) for group, _, _ in needs}, kept.run or Path(folder),
            retained=kept.retained,
            whole=any(what == "reference" for _, _, what in needs),
            layer=layer if any(what == "reference_layer" for _, _, what in needs) else None,
            number=getattr(method, "layer", 0), batch_size=batch_size,
        )  # fmt: skip
