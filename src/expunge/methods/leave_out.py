"""Leave-out: put each forget record at the loss that a model that never saw it would have, and no further."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from expunge.errors import Problem, UsageError
from expunge.methods.base import MethodContext, State
from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, TwoParts

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from expunge.step import Step
    from expunge.tasks.base import Encoded

__all__ = ["LeaveOut"]


@dataclass(frozen=True, kw_only=True)
class LeaveOut(TwoParts):
    """Raise the loss of each forget record to what is expected of a model that never saw it, and no further.

    Ascent makes records unlikely without end, and a common stop ends it for all of them at once: by then some are still
    remembered and others forgotten too far. Here each record has a target of its own.

    Formula: ``L = retain_weight * R(retain) + gamma * mean over records of |l_r - t_r|_smooth``, with l_r the mean loss of
    the record's tokens in nats, t_r its target, and a smooth L1 that is quadratic within `beta` nats. While a record is below
    its target this is gradient ascent on it, of bounded strength; above, descent.

    Targets: the base model (`retrain.base`) never saw forget nor calibration records. A record's place is taken among the
    calibration records by its mean loss under the base; at that place among the losses that the *original* gives calibration
    records, never seen by it, stands the target. So forget records get the losses of records never seen, each by its own
    difficulty. No retrained model and no evaluation record is used.

    Source: none that we know of; the targets are those of `deepcut-calibrated`, by records.

    Ours: all of it. Two other kinds of targets were tried first, on another request of TOFU (docs/language-models.md): whole
    distributions of the original rewound toward its base, which lost the manner with the memory, and one target a token.

    Failure signs: forget records that differ in kind from the calibration records get the wrong targets; a base that is not the
    one the original was fine-tuned from makes places say less.

    Example:
        >>> LeaveOut(gamma=2.0).retain
        'nll'
    """

    gamma: NonNegative = option(1.0, "weight of the forget records' distances to their targets")
    beta: Positive = option(0.2, "nats a token below which a distance counts quadratically")
    retain: Retain = option("nll", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")
    sample: PositiveInt = option(64, "calibration records that targets are made from, at most")
    dropout: bool = option(False, "dropout during unlearning")

    units: ClassVar[frozenset[str]] = frozenset({"tokens"})
    rewinds: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})

    def prepare(self, context: MethodContext) -> State:
        import numpy as np
        import torch

        from expunge.leave_out import Groups

        assert context.states is not None, "language models give states of their tokens"
        never_seen = context.drawn("calibration", self.sample)
        base = context.rewound(0.0)
        problems = []
        if not len(never_seen):
            way_out = "Give held-out records (data.held_out): half of them are calibration records."
            problems.append(Problem("method", "leave-out needs records that were never trained on", way_out))
        if base is None:
            way_out = "Name the model the original was fine-tuned from: --base PATH (retrain.base)."
            problems.append(Problem("method", "leave-out needs the base model", way_out))
        if problems:
            raise UsageError(problems)
        own, among, known = (
            _losses(context.states(model, records)[0], records)
            for model, records in ((base, context.forget), (base, never_seen), (context.model, never_seen))
        )
        together, common = [np.zeros(len(part), dtype=int) for part in (among, own)], np.zeros(1, dtype=bool)
        place = Groups(among, together[0], common).percentiles(own, together[1])
        target = Groups(known, together[0], common).quantiles(place, together[1])
        by_unit = np.repeat(target, np.diff(np.array(context.forget.offsets)))
        return {"losses": torch.tensor(by_unit, dtype=torch.float32)}

    def forgetting(self, step: Step) -> Tensor:
        from torch.nn import functional

        from expunge.token_losses import by_record

        forget = step.forget
        sums, counts = by_record(-forget.logp(), forget.record_index)
        targets, _ = by_record(forget.of_units(step.state["losses"]).to(sums.dtype), forget.record_index)
        own, target = sums / counts, targets / counts
        away = functional.smooth_l1_loss(own, target, reduction="sum", beta=self.beta) / max(1, len(own))
        return self.gamma * away


def _losses(logp: Tensor, records: Encoded) -> np.ndarray:
    """(N,) mean loss of each record's tokens, in nats."""
    import numpy as np

    offsets = np.array(records.offsets)
    return -np.add.reduceat(logp.double().numpy(), offsets[:-1]) / np.diff(offsets)
