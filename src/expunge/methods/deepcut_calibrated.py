"""Calibrated DeepCUT: put each forget record where the retained data alone would have put it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import numpy as np

from expunge.errors import Problem, UsageError
from expunge.methods.base import Method, MethodContext, State
from expunge.options import NonNegative, NonNegativeInt, Positive, PositiveInt, Probability, option

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["CalibratedDeepCUT"]

_BETA = 0.5
"""Nats below which a difference counts quadratically."""


@dataclass(frozen=True, kw_only=True)
class CalibratedDeepCUT(Method):
    """Move each forget record to where a model that never saw it would have it, not away from its class.

    A retrained model still labels most erased records right; pushing them away makes the model wrong on them, which gives
    them away as clearly as memory does. So each forget unit gets a *leave-out target*: the margin (log-odds of the true
    class) expected of a model trained without it. Formula::

        L = hold * |l - l_original|_smooth(retain) + gamma * mean_i |m_i - t_i|_smooth
              + contrast * mean_i CE(w_i, softmax(s_i / tau))

    with m the model's margin, t the target, s_ip cosines of the anchor with the step's retained partners, and w_ip the
    target's probability of the partner's class, shared among its partners. The first term keeps the original's logits on
    retained records (smooth L1 of logits about their mean, over units and classes). The second is the output, the third
    the latent space: DeepCUT's contrastive term with partners weighted by what the record should be, not all pushed
    away.

    Targets (`expunge.leave_out`): the unit's percentile among *retained* units of its class under a rewound model
    (weights interpolated back from the original toward its base), which both were trained on, blended with its percentile
    among *calibration* units under a linear classifier on the base encoder, which has seen neither; at that place the
    margins that the original gives calibration units, never seen, are read off. No retrained model and no evaluation
    record is used. Without the base model (`retrain.base`) the original itself takes the place of the rewound one, and
    the clean part is left out.

    Source: after DeepCUT (He et al. 2025, arXiv 2503.14900), whose contrastive term this turns from "away" to "where it
    belongs"; the rewound model is WiSE-FT's interpolation (Wortsman et al., arXiv 2109.01903) read the other way.

    Ours: all of the calibration. What was tried, and what helped, is in docs/calibrated.md.

    Failure signs: a request that is unlike the rest of the training data (one author's, one topic's) makes percentiles
    say less; fewer than about 100 calibration records make the targets coarse.

    Example:
        >>> CalibratedDeepCUT(contrast=0.0).rewind
        0.7
    """

    gamma: NonNegative = option(2.0, "weight of matching the target margins")
    hold: NonNegative = option(4.0, "weight of keeping the original's logits on retained records")
    contrast: NonNegative = option(0.3, "weight of the contrastive term toward partners weighted by the targets")
    temperature: Positive = option(0.3, "tau of the contrastive term")
    retain_ratio: PositiveInt = option(1, "retained partners drawn for each forget record")
    dropout: bool = option(False, "dropout during unlearning")
    rewind: Probability = option(
        0.7, "share of the way from the base to the original at which the rewound model stands"
    )
    clean_weight: Probability = option(0.3, "weight of the base encoder's classifier in a target")
    sample: NonNegativeInt = option(
        0, "retained, and calibration, records that targets are made from; 0: three a forget record, 192 to 1024"
    )
    average: Literal["auto", "units", "classes"] = option(
        "auto", "mean over units, or over classes of each one's mean; auto: classes for taggers"
    )

    units: ClassVar[frozenset[str]] = frozenset({"classes"})
    needs: ClassVar[frozenset[str]] = frozenset(
        {"forget.hidden", "forget.logits", "retain.hidden", "retain.logits", "retain.reference"}
    )

    def prepare(self, context: MethodContext) -> State:
        import torch

        from expunge import leave_out
        from expunge.record_targets import clean_margins

        if not len(context.calibration):
            way_out = "Give held-out records (data.held_out): half of them are calibration records."
            raise UsageError(Problem("method", "deepcut-calibrated needs records that were never trained on", way_out))
        size = self.sample or min(1024, max(192, 3 * len(context.forget)))
        retain, unseen = context.drawn("retain", size), context.drawn("calibration", size)
        classes = [np.array(part.flat_labels, dtype=int) for part in (context.forget, retain, unseen)]
        known = context.logits(context.model, unseen).double().numpy()
        unseen_margins = leave_out.margins_of(known, classes[2])
        rewound = context.rewound(self.rewind)
        seen_logits = [
            context.logits(rewound or context.model, part).double().numpy() for part in (context.forget, retain)
        ]
        seen = [leave_out.margins_of(logits, labels) for logits, labels in zip(seen_logits, classes, strict=False)]
        counts = [np.bincount(labels, minlength=context.classes) for labels in classes]
        common = (counts[1] >= leave_out.LEAST) & (counts[2] >= leave_out.LEAST)
        place = leave_out.Groups(seen[1], classes[1], common).percentiles(seen[0], classes[0])
        clean = None
        if rewound is not None and self.clean_weight:
            found = clean_margins(context, retain, unseen)
            if found is not None:
                clean = leave_out.Groups(found[1], classes[2], common).percentiles(found[0], classes[0])
        place = leave_out.blended(place, clean, self.clean_weight)
        target = leave_out.Groups(unseen_margins, classes[2], common).quantiles(place, classes[0])
        erased = context.erased[classes[0]]
        if erased.any():  # a class that no retained record has: as likely as any wrong class is to the original
            target[erased] = np.median(_wrong(known, classes[2]))
        log_p = leave_out.target_log_probabilities(target, seen_logits[0], classes[0])
        return {
            "margins": torch.tensor(target, dtype=torch.float32),
            "log_probabilities": torch.tensor(log_p, dtype=torch.float32),
        }

    def loss(self, step: Step) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional

        from expunge import losses
        from expunge.scoring import margins

        forget, retain = step.forget, step.retain
        classes = forget.averaged_over(self.average)
        own = margins(forget.logits.float(), forget.labels)
        target = forget.of_units(step.state["margins"])
        counts = torch.ones_like(own, dtype=torch.bool)
        away = functional.smooth_l1_loss(own, target.to(own.dtype), reduction="none", beta=_BETA)
        kept = retain.averaged_over(self.average)
        moved = _centred(retain.logits) - _centred(retain.reference.to(retain.logits.dtype))
        held = functional.smooth_l1_loss(moved, torch.zeros_like(moved), reduction="none", beta=_BETA).mean(dim=-1)
        parts = {
            "retain": self.hold * losses.mean_over(held, torch.ones_like(held, dtype=torch.bool), kept),
            "forget": self.gamma * losses.mean_over(away, counts, classes),
        }
        if self.contrast:
            partners, labels = retain.partners
            wanted = forget.of_units(step.state["log_probabilities"])[:, labels]
            terms, counts = losses.soft_contrastive(
                losses.cosine(forget.hidden, partners), wanted, labels, self.temperature
            )
            parts["contrast"] = self.contrast * losses.mean_over(terms, counts, classes)
        return parts

    def counts(self, step: Step) -> dict[str, float]:
        from expunge.scoring import margins

        own = margins(step.forget.logits.detach().float(), step.forget.labels).clamp(-10, 10)
        target = step.forget.of_units(step.state["margins"]).detach().clamp(-10, 10)
        return {"margin_to_target": float((own - target).abs().mean()) if len(own) else 0.0}


def _centred(logits: Tensor) -> Tensor:
    """(U, C) logits about their mean: what is the same for every class changes nothing."""
    return logits - logits.mean(dim=-1, keepdim=True)


def _wrong(logits: np.ndarray, classes: np.ndarray) -> np.ndarray:
    """Margins of every class that is not the unit's own."""
    from expunge import leave_out

    count = logits.shape[1]
    return np.concatenate([leave_out.margins_of(logits, (classes + shift) % count) for shift in range(1, count)])
