"""The stop rule for a `transformers.Trainer` of one's own, whatever its loss: `UnlearnCallback`."""

from __future__ import annotations

from typing import Any

import numpy as np
from transformers import TrainerControl, TrainerState, TrainingArguments

from expunge import processes
from expunge.config import StopConfig
from expunge.errors import Problem, RunError, UsageError
from expunge.looking import Look, known_units, samples
from expunge.stopping import Check, Rule, StopRule
from expunge.tasks.base import Encoded

__all__ = ["UnlearnCallback"]

_LOGGED = {
    "auc": "auc", "auc_low": "low", "auc_high": "high", "ks": "ks", "ks_limit": "ks_limit", "forget_accuracy": "forget",
    "calibration_accuracy": "calibration", "forget_confidence": "forget_confidence",
    "calibration_confidence": "calibration_confidence",
}  # fmt: skip


class UnlearnCallback(StopRule):
    """Ends a `Trainer` of your own when its model no longer tells forget records from records never seen.

    The loss, the data and the loop are yours; this looks at the model before the first step and every `every` steps,
    and ends training by the same two-sided rule as `expunge run` (`expunge.stopping.reason_to_stop`). What it sees goes
    through ``trainer.log``, and so to whatever `report_to` names: ``unlearn_auc`` (chance that a forget record's margin is
    above that of a calibration record of its class) with ``unlearn_auc_low`` and ``unlearn_auc_high``, ``unlearn_ks`` with
    ``unlearn_ks_limit``, and accuracy and confidence (mean probability of the true label) of both groups. At the end the
    weights of the best step are put back, unless `restore` is off.

    It is no audit: calibration records decide when to stop, so the figures at the end must come from records that neither
    training nor this callback has seen (`expunge run`, `expunge audit`). Where `train` is called again, all begins anew.

    Example:
        See ``examples/own_trainer.py``. In short::

            task = TextClassification(tokenizer, 128, label_names)
            callback = UnlearnCallback(trainer, task=task, forget=forget, calibration=calibration, retain=retain)
            trainer.add_callback(callback)
            trainer.train()
            print(callback.reason, callback.kept)

    Args:
        trainer: The trainer it will be added to; only its `log` and `control` are used.
        task: Collates records: `TextClassification`, `TokenClassification` or `Generation` of `expunge.tasks`, made with the
            model's tokenizer.
        forget: The records to forget, encoded by the task.
        calibration: Records never trained on, encoded likewise. Not those you will report figures on.
        retain: The retained records: a class that none of them has counts as erased whole, and of a tagger's tags the most
            common one (O) weighs no more than all others together. Left out: no class is erased whole, and tags are
            weighed by calibration records.
        every: Steps between two looks.
        rule: ``two-sided``, ``accuracy`` (of forget records no longer above calibration's), or ``none``: look and log only.
        sample: Forget and calibration records a look scores at most; the first look takes 2,000 forget records at most and four
            times as many calibration ones.
        confidence: Level at which records are told apart.
        restore: Whether the best step's weights are put back at the end. They are kept in memory meanwhile.
        batch_size: Records a forward pass.
        seed: Seed of samples and bootstrap.

    Attributes:
        checks: All looks so far (`expunge.stopping.Check`), the one before the first step included.
        reason: Why training ended, in words.
        kept: The step whose weights were kept.
        passes: Example-passes that looking took so far; a forward pass of one record counts a third.

    Raises:
        UsageError: A group is empty, a setting is out of range, or the trainer is one of several processes.
    """

    def __init__(
        self, trainer: Any, *, task: Any, forget: Encoded, calibration: Encoded, retain: Encoded | None = None,
        every: int = 10, rule: Rule = "two-sided", sample: int = 256, confidence: float = 0.9, restore: bool = True,
        batch_size: int = 64, seed: int = 0,
    ) -> None:  # fmt: skip
        _must_be_usable(trainer, forget, calibration, every)
        config = StopConfig.build({"rule": rule, "every": every, "sample": sample, "confidence": confidence})
        known = np.maximum(1, known_units(task, calibration)) if retain is None else known_units(task, retain)
        sizes = samples(config, len(forget), len(calibration))
        self._anew = lambda: Look(task, forget, calibration, known, sizes, confidence, seed, batch_size)
        self._look = self._anew()
        self._trainer, self._restore = trainer, restore
        super().__init__(self._checked, every, rule=rule)

    @property
    def passes(self) -> float:
        """Example-passes that looking took so far."""
        return self._look.passes

    def on_train_begin(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if state.global_step and not self.checks:
            raise RunError(
                f"UnlearnCallback cannot begin at step {state.global_step}: it compares with the model before the first "
                "step, which a checkpoint does not hold. Train from the original without resume_from_checkpoint."
            )
        if not state.global_step and self.checks:  # another training: the model is now what it starts from
            self.checks, self.reason, self.kept, self._look = [], "", 0, self._anew()
        super().on_train_begin(args, state, control, **kwargs)

    def on_train_end(
        self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any
    ) -> None:
        if self._restore:
            super().on_train_end(args, state, control, **kwargs)

    def _put(self, model: Any, going_on: bool) -> None:
        if self._restore:
            super()._put(model, going_on)

    def _checked(self, model: Any, step: int) -> Check:
        found = self._look.check(model, step)
        control = self._trainer.control
        due = control.should_log  # logging takes this back, and the trainer's own line of this step would be lost
        self._trainer.log({f"unlearn_{name}": float(getattr(found, field)) for name, field in _LOGGED.items()})
        control.should_log = due
        return found


def _must_be_usable(trainer: Any, forget: Encoded, calibration: Encoded, every: int) -> None:
    problems = [
        Problem(
            f"UnlearnCallback, {name}", "there is no record in it", "Give at least one; 20 and more tell something."
        )
        for name, records in (("forget", forget), ("calibration", calibration))
        if not len(records)
    ]
    if every < 1:
        problems.append(Problem("UnlearnCallback, every", f"{every} steps between two looks", "Give 1 or more."))
    if processes.count() > 1 or any(
        getattr(trainer, f"is_{name}_enabled", False) for name in ("fsdp", "deepspeed", "fsdp_xla")
    ):
        way_out = "Train in one process, or use expunge.UnlearnTrainer, which several can share."
        what = "the trainer is one of several processes, or cuts its weights up"
        problems.append(Problem("UnlearnCallback, trainer", what, way_out))
    if problems:
        raise UsageError(problems)
