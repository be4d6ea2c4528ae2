"""Leave-out margins: put each token of a forget record at the log-odds that a model that never saw it would give it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from expunge.errors import Problem, UsageError
from expunge.methods.base import Method, MethodContext, State
from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, retained

if TYPE_CHECKING:
    import numpy as np
    from torch import Tensor

    from expunge.step import Step

__all__ = ["LeaveOutMargins"]


@dataclass(frozen=True, kw_only=True)
class LeaveOutMargins(Method):
    """Move each token of a forget record to the log-odds expected of a model that never saw the record, and no further.

    Ascent makes tokens unlikely without end; a model that never learnt a record still finds most of its tokens likely, as any
    reader of the language does. So each token has a target of its own.

    Formula: ``L = retain_weight * R(retain) + gamma * mean over tokens of |m - t|_smooth``, with m the log-odds of a token, t
    its target, and a smooth L1 that is quadratic within `beta` nats.

    Targets: the base model (`retrain.base`) never saw forget nor calibration records. A token's place among those of the
    calibration records is taken under the base; at that place among the log-odds that the *original* gives calibration
    tokens, never seen by it, stands the target. So forget tokens get the log-odds of tokens never seen, each by its own
    difficulty, with what fine-tuning taught of the manner of all records. No retrained model and no evaluation record is
    used.

    Source: none that we know of; the targets are those of `deepcut-calibrated`, by tokens.

    Ours: all of it. A teacher's whole distributions in place of log-odds were tried first, from the original rewound toward its
    base: on TOFU records never seen are less likely under the original than under the base, so that it went all the way
    back, and lost the manner with the memory (docs/language-models.md).

    Failure signs: forget records that differ in kind from the calibration records get the wrong targets; a base that is not the
    one the original was fine-tuned from makes places say less.

    Example:
        >>> LeaveOutMargins(gamma=2.0).retain
        'nll'
    """

    gamma: NonNegative = option(1.0, "weight of the forget tokens' distances to their targets")
    beta: Positive = option(0.5, "nats below which a distance counts quadratically")
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
            problems.append(Problem("method", "leave-out-margins needs records that were never trained on", way_out))
        if base is None:
            way_out = "Name the model the original was fine-tuned from: --base PATH (retrain.base)."
            problems.append(Problem("method", "leave-out-margins needs the base model", way_out))
        if problems:
            raise UsageError(problems)
        own, among, known = (
            _log_odds(context.states(model, records)[0].double().numpy())
            for model, records in ((base, context.forget), (base, never_seen), (context.model, never_seen))
        )
        one = np.zeros(1, dtype=bool), np.zeros(len(among), dtype=int), np.zeros(len(own), dtype=int)
        place = Groups(among, one[1], one[0]).percentiles(own, one[2])
        return {"margins": torch.tensor(Groups(known, one[1], one[0]).quantiles(place, one[2]), dtype=torch.float32)}

    def loss(self, step: Step) -> dict[str, Tensor]:
        from torch.nn import functional

        from expunge.scoring import margins

        forget = step.forget
        own = forget.per_unit(margins, forget.labels)
        target = forget.of_units(step.state["margins"]).to(own.dtype)
        away = functional.smooth_l1_loss(own, target, reduction="sum", beta=self.beta) / max(1, len(own))
        return {**retained(step, self.retain, self.retain_weight), "forget": self.gamma * away}


def _log_odds(logp: np.ndarray) -> np.ndarray:
    """(U,) log-odds within +-15 nats, where float32 log-probabilities still tell them, from (U,) log-probabilities."""
    import numpy as np

    with np.errstate(divide="ignore"):
        return np.clip(logp - np.log(-np.expm1(np.minimum(logp, 0.0))), -15.0, 15.0)
