"""Make one model forget: train it with a method's loss, or carry out a procedure. Knows nothing of files and audits."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np

from expunge.config import Recipe, StopConfig, TrainingConfig
from expunge.fit import arguments, fit, plain, train
from expunge.methods.base import Procedure, ProcedureContext
from expunge.models import head_of
from expunge.preparation import Preparation
from expunge.progress import Progress, trainer_stage
from expunge.scoring import score
from expunge.stopping import AccuracyStop, Check, best
from expunge.tasks.base import Encoded
from expunge.trainer import UnlearnTrainer

__all__ = ["Outcome", "Unlearning"]


@dataclass(frozen=True)
class Outcome:
    """What unlearning left.

    Attributes:
        model: The unlearned model, in eval mode.
        log: Steps, step kept, reason of the end, the parts of the loss and the checks.
        passes: Example-passes of training and preparation (a forward pass counts a third).
        check_passes: Those of the stop rule's checks.
    """

    model: Any
    log: dict[str, Any]
    passes: float
    check_passes: float


@dataclass
class Unlearning:
    """One model to be made to forget.

    Attributes:
        method: A method or procedure.
        task: Encodes and collates records.
        forget: The forget records.
        retain: The retained records.
        calibration: Held-out records for the stop rule.
        forget_ids: Ids of the forget records.
        retain_ids: Ids of the retained records.
        training: Learning rate, batch size and so on.
        stop: When to end.
        seed: Seed of order, dropout and sampling.
        label_names: Class names in order.
        base: The model the original was fine-tuned from, where it is known.
        recipe: How.
        batch_size: Records a forward pass when checking.
        trust_remote_code: As in transformers.
        progress: Where progress is shown.
    """

    method: Any
    task: Any
    forget: Encoded
    retain: Encoded
    calibration: Encoded
    forget_ids: Sequence[str]
    retain_ids: Sequence[str]
    training: TrainingConfig
    stop: StopConfig
    seed: int
    label_names: Sequence[str]
    base: str | None = None
    recipe: Recipe | None = None
    batch_size: int = 64
    trust_remote_code: bool = False
    progress: Progress = field(default_factory=Progress)
    _passes: float = 0.0
    _check_passes: float = 0.0

    def run(self, model: Any) -> Outcome:
        """Unlearn; the model given is changed in place or given back changed.

        Raises:
            RunError: Training failed.
        """
        log = self._carry_out(model) if isinstance(self.method, Procedure) else self._train(model)
        return Outcome(log.pop("model").eval(), log, self._passes, self._check_passes)

    def _carry_out(self, model: Any) -> dict[str, Any]:
        look = self._look()
        checks: list[Check] = []

        def check(candidate: Any, number: int) -> Check:
            checks.append(Check(number, *look(candidate)))
            return checks[-1]

        def tune(candidate: Any, records: Encoded, epochs: float, learning_rate: float) -> None:
            self._passes += epochs * len(records)
            recipe = Recipe(epochs=epochs, learning_rate=learning_rate, batch_size=self.training.batch_size)
            train(candidate, self.task, records, recipe, seed=self.seed, progress=self.progress, name="fine-tuning")

        def spend(passes: float) -> None:
            self._passes += passes

        fitted = self._fitted()
        context = ProcedureContext(
            model=model, task=self.task, forget=self.forget, retain=self.retain, forget_ids=self.forget_ids,
            retain_ids=self.retain_ids, seed=self.seed, tune=tune, check=check, spend=spend,
            fit=None if fitted is None else lambda records, seed: self._paid(*fitted(records, seed)),
        )  # fmt: skip
        result = self.method.run(context)
        kept = best(checks).step if len(checks) > 1 else None
        reason = "a procedure, not a training loss"
        if kept is not None:
            reason += f"; candidate {kept} of {len(checks) - 1} is nearest to what is wanted"
        return {
            "model": result, "steps": 0, "kept_step": kept, "reason": reason, "history": [],
            "checks": [asdict(check) for check in checks],
        }  # fmt: skip

    def _paid(self, model: Any, passes: float) -> Any:
        self._passes += passes
        return model

    def _fitted(self) -> Callable[[Encoded, int], tuple[Any, float]] | None:
        base, recipe = self.base, self.recipe
        if base is None or recipe is None:
            return None

        def fitted(records: Encoded, seed: int) -> tuple[Any, float]:
            model = fit(
                base, self.task, records, recipe, seed=seed, label_names=self.label_names, progress=self.progress,
                name="training from the base", trust_remote_code=self.trust_remote_code,
            )  # fmt: skip
            return model, recipe.epochs * len(records)

        return fitted

    def _train(self, model: Any) -> dict[str, Any]:
        settings = self.training
        a_pass = -(-len(self.forget) // settings.batch_size)
        with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
            args = arguments(
                folder,
                self.seed,
                settings,
                max_steps=max(settings.min_steps, round(settings.epochs * a_pass), 1),
                per_device_train_batch_size=-(-settings.batch_size // settings.accumulation),
                gradient_accumulation_steps=settings.accumulation,
                max_grad_norm=settings.max_grad_norm,
            )
            every = self.stop.every or min(10, max(2, a_pass))
            stop = AccuracyStop(self._look(), every, stop=self.stop.rule == "accuracy")
            trainer = UnlearnTrainer(
                model, args, method=self.method, task=self.task, forget=self.forget, retain=self.retain,
                given=Preparation(self.forget_ids, self.calibration, self._fitted()), callbacks=[stop],
            )  # fmt: skip
            cached = model.config.use_cache if hasattr(model.config, "use_cache") else None
            with trainer_stage(trainer, self.progress, "unlearning"):
                trainer.train()
            plain(model)
            if cached is not None:
                model.config.use_cache = cached  # the trainer turns it off
        self._passes += trainer.example_passes
        return {
            "model": model,
            "steps": trainer.state.global_step,
            "kept_step": stop.kept,
            "reason": stop.reason,
            "history": [{name: round(value, 6) for name, value in row.items()} for row in trainer.history],
            "checks": [asdict(check) for check in stop.checks],
        }

    def _look(self) -> Callable[[Any], tuple[float, float, float, float, float, int]]:
        """model -> what a `Check` says of a sample of forget and of calibration records.

        Words of a tagger's most common class (O) weigh half together, all others the other half: else a model that finds
        no entity at all would look like one that forgot. Calibration units of a class erased whole are left out.
        """
        rng = np.random.default_rng([self.seed, 4])
        most = self.stop.sample
        forget = min(most, len(self.forget))
        samples: list[Encoded] = []
        # Calibration records in proportion, so that a small request stays cheap to check.
        for records, count in ((self.forget, forget), (self.calibration, min(most, max(64, 4 * forget)))):
            size = len(records)
            samples.append(records.take(sorted(rng.choice(size, min(count, size), replace=False).tolist())))
        labels = [np.array(sample.flat_labels, dtype=int) for sample in samples]
        known = np.bincount(self.retain.flat_labels, minlength=len(self.label_names))
        kept = [np.ones(len(labels[0])), (known[labels[1]] > 0).astype(float)]
        if self.retain.units is not None:
            kept = [_balanced(own, labels_ == known.argmax()) for own, labels_ in zip(kept, labels, strict=True)]
        unknown = _average(known[labels[0]] == 0, kept[0])

        def look(model: Any) -> tuple[float, float, float, float, float, int]:
            self._check_passes += sum(map(len, samples)) / 3
            head = head_of(model, self.task, samples[0])
            tables = [
                score(model, head, sample, self.task, batch_size=self.batch_size, keep_hidden=False)
                for sample in samples
            ]
            right = [_average(table.correct, own) for table, own in zip(tables, kept, strict=True)]
            sure = [_average(np.exp(-table.losses), own) for table, own in zip(tables, kept, strict=True)]
            return right[0], right[1], sure[0], sure[1], unknown, len(self.label_names)

        return look


def _balanced(kept: np.ndarray, common: np.ndarray) -> np.ndarray:
    """(U,) weights such that the kept units of the most common class and all other kept ones weigh the same."""
    shares = (kept * common).sum(), (kept * ~common).sum()
    if not all(shares):
        return kept
    return kept * np.where(common, 0.5 / shares[0], 0.5 / shares[1])


def _average(values: np.ndarray, weights: np.ndarray) -> float:
    """Weighted mean; 0 where nothing weighs, as when calibration holds an erased class alone."""
    return float((values * weights).sum() / weights.sum()) if weights.sum() else 0.0
