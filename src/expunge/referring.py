"""Which reference a run has: the original's outputs, where its method reads them."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import nn

from expunge.methods.base import Method
from expunge.reference import FrozenCopy, Reference
from expunge.sampling import StepPlan
from expunge.tasks.base import Encoded
from expunge.token_head import TokenHead
from expunge.token_reference import TokenReference

__all__ = ["referred"]


def referred(
    method: Method, model: Any, head: Any, task: Any, records: dict[str, Encoded], plans: Sequence[StepPlan], *,
    layer: nn.Module | None, cache: Path | None, batch_size: int,
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
        cache: Folder in which outputs for tokens are kept; None: as long as the run lasts.
        batch_size: Records a forward pass.
    """
    needs = [need.partition(".") for need in sorted(method.reads) if ".reference" in need]
    if not needs:
        return None
    if not isinstance(head, TokenHead):
        return FrozenCopy(model, task, records)
    drawn = {"forget": {i for p in plans for i in p.forget}, "retain": {i for p in plans for i in p.retain}}
    drawn["alternate"] = drawn["forget"]
    with tempfile.TemporaryDirectory(prefix="expunge-", ignore_cleanup_errors=True) as folder:
        return TokenReference(
            model, head, task, records, {group: sorted(drawn[group]) for group, _, _ in needs}, cache or Path(folder),
            whole=any(what == "reference" for _, _, what in needs),
            layer=layer if any(what == "reference_layer" for _, _, what in needs) else None,
            number=getattr(method, "layer", 0), batch_size=batch_size,
        )  # fmt: skip
