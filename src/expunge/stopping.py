"""When unlearning ends, and which step is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

__all__ = ["AccuracyStop", "Check", "best", "distance", "reason_to_stop"]


@dataclass(frozen=True)
class Check:
    """One look at the model during unlearning.

    Attributes:
        step: Optimisation steps done.
        forget: Accuracy on the forget records (or the sample of them); of taggers O and the rest weigh the same.
        calibration: The same on calibration records, those of classes erased whole left out.
        forget_confidence: Mean probability of the true label on the forget records.
        calibration_confidence: The same on the calibration records.
        unknown: Share of the forget units whose class is erased whole: no retained record has it.
        classes: How many classes the model has.
    """

    step: int
    forget: float
    calibration: float
    forget_confidence: float
    calibration_confidence: float
    unknown: float = 0.0
    classes: int = 2

    @property
    def expected(self) -> float:
        """Accuracy expected of records never seen: calibration's, and chance where a class is erased whole."""
        return (1 - self.unknown) * self.calibration + self.unknown / self.classes


def reason_to_stop(checks: Sequence[Check]) -> str | None:
    """Why to stop now, or None: forget accuracy is no longer above that of records never seen.

    That is calibration accuracy, or chance for a class that is erased whole (Lee et al., arXiv 2401.10458).
    """
    last = checks[-1]
    if last.forget > last.expected:
        return None
    if last.unknown:
        return f"forget accuracy {last.forget:.3f} is no longer above {last.expected:.3f}, as of a class never seen"
    return f"forget accuracy {last.forget:.3f} is no longer above calibration accuracy {last.calibration:.3f}"


def distance(check: Check, first: Check) -> float:
    """How far a check is from what is wanted: forget records as likely as unseen ones were to the original, no utility lost.

    Confidence (mean probability of the true label) instead of accuracy: it moves in small steps even for one record.
    The target is calibration confidence at the first check, before any step: a model that loses both alike is not near
    it. For units of a class that is erased whole the target is 0: a model that never had the class never says it. What
    calibration confidence has lost since counts as well.
    """
    known = first.calibration_confidence
    target = (1 - first.unknown) * known
    return abs(check.forget_confidence - target) + max(0.0, known - check.calibration_confidence)


def best(checks: Sequence[Check]) -> Check:
    """The check with the least `distance`, the earliest of equals.

    The first check itself is the original, which is no answer to a request: it is the best only as long as there is no
    other.
    """
    return min(checks[1:] or checks, key=lambda check: (distance(check, checks[0]), check.step))


class AccuracyStop(TrainerCallback):
    """Checks every few steps, ends the run, and puts the best step's weights back.

    Args:
        evaluate: model -> all of a `Check` but its step; counts its own cost.
        every: Steps between checks.
        stop: Whether a reason to stop ends the run; the best step is kept either way.

    Attributes:
        checks: All checks, the one before the first step included.
        reason: Why the run ended, in words.
        kept: The step whose weights were kept.
    """

    def __init__(self, evaluate: Callable[[Any], tuple[Any, ...]], every: int, *, stop: bool = True) -> None:
        self._evaluate = evaluate
        self._every = every
        self._stop = stop
        self._weights: dict[str, torch.Tensor] = {}
        self.checks: list[Check] = []
        self.reason = ""
        self.kept = 0

    def _check(self, model: Any, step: int) -> str | None:
        self.checks.append(Check(step, *self._evaluate(model)))
        if best(self.checks).step == step:
            self.kept = step
            self._weights = {n: p.detach().clone() for n, p in model.named_parameters() if p.requires_grad}
        return reason_to_stop(self.checks)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        self._check(kwargs["model"], 0)

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        last = state.global_step >= state.max_steps
        if state.global_step % self._every and not last:
            return
        reason = self._check(kwargs["model"], state.global_step)
        if reason and self._stop:
            self.reason = f"stop rule at step {state.global_step}: {reason}"
            control.should_training_stop = True
        elif last:
            self.reason = f"all {state.global_step} steps done"

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        parameters = dict(kwargs["model"].named_parameters())
        with torch.no_grad():
            for name, kept in self._weights.items():
                parameters[name].copy_(kept)
        self._weights = {}
