"""When unlearning ends, and which step is kept."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from transformers import TrainerCallback, TrainerControl, TrainerState, TrainingArguments

from expunge.errors import RunError
from expunge.snapshot import Snapshot, linked

__all__ = ["Check", "Rule", "StopRule", "best", "distance", "reason_to_stop", "state_of"]

Rule = Literal["two-sided", "accuracy", "none"]

TOLERANCE = 0.02
"""An AUC no further from one half than this is as good as one half: no attacker gains by it."""
_BEYOND = 4
"""Early checks that may go beyond the number planned."""


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
        auc: Chance that a forget record's margin is above that of a calibration record of its class.
        low: Lower end of its interval.
        high: Upper end.
        ks: Distance of both margin distributions.
        ks_limit: What chance exceeds with the interval's error.
    """

    step: int
    forget: float
    calibration: float
    forget_confidence: float
    calibration_confidence: float
    unknown: float = 0.0
    classes: int = 2
    auc: float = 0.5
    low: float = 0.0
    high: float = 1.0
    ks: float = 0.0
    ks_limit: float = 1.0

    @property
    def expected(self) -> float:
        """Accuracy expected of records never seen: calibration's, and chance where a class is erased whole."""
        return (1 - self.unknown) * self.calibration + self.unknown / self.classes


def state_of(check: Check) -> Literal["within", "remembered", "over-forgotten"]:
    """Where the forget records stand: not told apart from records never seen, above them, or below.

    Told apart are they when the interval of the AUC leaves out one half, or the distributions are further apart than chance
    allows: then the side is that of the AUC.
    """
    if check.low <= 0.5 <= check.high and check.ks <= check.ks_limit:
        return "within"
    return "remembered" if check.auc > 0.5 else "over-forgotten"


def reason_to_stop(checks: Sequence[Check], rule: Rule = "two-sided") -> str | None:
    """Why to stop now, or None.

    By the two-sided rule: forget records can no longer be told from calibration records, within the interval and near one
    half; or they are below them, since going on would only give them away. A class that is erased whole has nothing to
    be like: it ends at chance (Lee et al., arXiv 2401.10458). By the accuracy rule: forget accuracy is no longer above
    calibration accuracy.
    """
    last = checks[-1]
    if rule == "accuracy" or last.unknown:
        if last.forget > last.expected:
            return None
        if last.unknown:
            return f"forget accuracy {last.forget:.3f} is no longer above {last.expected:.3f}, as of a class never seen"
        return f"forget accuracy {last.forget:.3f} is no longer above calibration accuracy {last.calibration:.3f}"
    shown = f"AUC {last.auc:.3f} [{last.low:.3f}, {last.high:.3f}], KS {last.ks:.3f}"
    if state_of(last) == "within" and last.auc <= 0.5 + TOLERANCE and len(checks) > 1 and not _weak(checks, last):
        return f"forget records can no longer be told from records never seen ({shown})"
    if last.auc < 0.5 - TOLERANCE and len(checks) > 1 and not _weak(checks, last):
        return f"over-forgotten: forget records stand below records never seen ({shown})"
    return None


def _weak(checks: Sequence[Check], last: Check) -> bool:
    """Whether the comparison could not tell the original's forget records apart, and they are still likelier than unseen ones.

    An interval of few records holds one half from the start: then confidence has to come down as well.
    """
    first = checks[0]
    return state_of(first) == "within" and last.forget_confidence > first.calibration_confidence


def distance(check: Check, first: Check) -> float:
    """How far a check is from what is wanted: forget records like those never seen, and no utility lost.

    The AUC's distance from one half moves in small steps even for few records. What calibration confidence (mean
    probability of the true label) has lost since the first check, before any step, counts as well: a model that loses
    both alike is not near. Where the AUC cannot tell the original's own forget records apart, confidence takes its place:
    calibration records' is wanted. For units of a class that is erased whole the wanted confidence is 0: a model that
    never had the class never says it.
    """
    lost = max(0.0, first.calibration_confidence - check.calibration_confidence)
    if first.unknown or state_of(first) == "within":
        wanted = (1 - first.unknown) * first.calibration_confidence
        return abs(check.forget_confidence - wanted) + lost
    return abs(check.auc - 0.5) + lost


def best(checks: Sequence[Check]) -> Check:
    """The check with the least `distance`, the earliest of equals.

    The first check itself is the original, which is no answer to a request: it is the best only as long as there is no
    other.
    """
    return min(checks[1:] or checks, key=lambda check: (distance(check, checks[0]), check.step))


class StopRule(TrainerCallback):
    """Checks every few steps, ends the run, and puts the best step's weights back.

    Args:
        evaluate: (model, step) -> a `Check`; counts its own cost.
        every: Steps between checks.
        rule: What ends the run; the best step is kept either way.
        most: Checks in all, at most; the last step is checked in any case.
        glance: -> whether the last steps' own outputs say that the aim is near, so that a check is due early; free.
        worth: Number of steps that are left -> whether a check costs no more than these: then four early ones may go beyond
            `most`, as they are likely to save more.
        soonest: Steps from one check to an early one, at least; None: a quarter of `every`.
        folder: Where the best step's weights wait while the run goes on, in a file of their own; None: in memory.

    Attributes:
        checks: All checks, the one before the first step included.
        reason: Why the run ended, in words.
        kept: The step whose weights were kept.
    """

    def __init__(
        self, evaluate: Callable[[Any, int], Check], every: int, *, rule: Rule = "two-sided",
        most: int | None = None, glance: Callable[[], bool] = lambda: False, folder: Path | None = None,
        worth: Callable[[int], bool] = lambda left: False, soonest: int | None = None,
    ) -> None:  # fmt: skip
        self._evaluate, self._every, self._glance, self._worth = evaluate, every, glance, worth
        self._rule: Rule = rule
        self._most = most
        self._soonest = max(1, every // 4) if soonest is None else soonest
        self._file = None if folder is None else folder / "best.safetensors"
        self._weights: dict[str, torch.Tensor] = {}
        self.checks: list[Check] = []
        self.reason = ""
        self.kept = 0

    def state(self) -> Snapshot:
        """What it has seen and kept so far."""
        files = {} if self._file is None or not self._file.is_file() else {self._file.name: self._file}
        values = {"checks": [asdict(check) for check in self.checks], "kept": self.kept, "reason": self.reason}
        return Snapshot(self._weights, values, files)

    def restore(self, snapshot: Snapshot) -> None:
        """Take over what `state` gave: there is no first check any more."""
        values = snapshot.values
        self.checks = [Check(**row) for row in values["checks"]]
        self.kept, self.reason = values["kept"], values["reason"]
        self._weights = snapshot.tensors
        if self._file is not None and self._file.name in snapshot.files:
            linked(snapshot.files[self._file.name], self._file)

    def _check(self, model: Any, step: int) -> str | None:
        self.checks.append(self._evaluate(model, step))
        if best(self.checks).step == step:
            self.kept = step
        return reason_to_stop(self.checks, self._rule)

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if not self.checks:  # else it goes on
            self._check(
                kwargs["model"], 0
            )  # its weights are not kept: the last step is checked in any case, and comes first

    def on_step_end(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any) -> None:
        since = state.global_step - self.checks[-1].step
        last = state.global_step >= state.max_steps
        if not last and not (since >= self._every or self._early(state, since)):
            return
        reason = self._check(kwargs["model"], state.global_step)
        if reason and self._rule != "none":
            self.reason = f"stop rule at step {state.global_step}: {reason}"
            control.should_training_stop = True
        elif last:
            self.reason = f"all {state.global_step} steps done"
        if self.kept == state.global_step:
            self._put(kwargs["model"], going_on=not (last or control.should_training_stop))

    def _put(self, model: Any, going_on: bool) -> None:
        """Keep the weights of the best step so far; a run that ends here has them anyway."""
        self._weights = {}
        if self._file is not None:
            self._file.unlink(missing_ok=True)
        if not going_on:
            return
        own = {n: p.detach() for n, p in model.named_parameters() if p.requires_grad}
        if self._file is None:
            self._weights = {name: weight.clone() for name, weight in own.items()}
        else:
            try:
                save_file({name: weight.contiguous() for name, weight in own.items()}, self._file)
            except (OSError, SafetensorError) as error:
                way_out = "Make room there; for `unlearn` in Python, TMPDIR names another place."
                what = f'keeping the best step\'s weights in "{self._file.parent}" failed ({error})'
                raise RunError(f"{what}. {way_out}") from error

    def _kept(self) -> Iterator[tuple[str, torch.Tensor]]:
        if self._file is None or not self._file.is_file():
            yield from self._weights.items()
            return
        with safe_open(self._file, framework="pt") as stored:
            for name in stored.keys():  # noqa: SIM118 - it is no dict
                yield name, stored.get_tensor(name)

    def _early(self, state: TrainerState, since: int) -> bool:
        """Whether the aim is near, and a check now leaves enough of them for the rest of the run, or is worth its price."""
        left = state.max_steps - state.global_step
        after = len(self.checks) + 1 - -left // self._every
        affordable = self._most is None or after <= self._most + (_BEYOND if self._worth(left) else 0)
        return affordable and since >= self._soonest and self._glance()

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        parameters = dict(kwargs["model"].named_parameters())
        with torch.no_grad():
            for name, kept in self._kept():
                parameters[name].copy_(kept)
        self._put(kwargs["model"], going_on=False)
