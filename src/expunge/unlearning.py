"""Make one model forget: train it with a method's loss, or carry out a procedure. Knows nothing of files and audits."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import count
from pathlib import Path
from typing import Any

from expunge import processes
from expunge.adapter import merged, with_adapter
from expunge.checkpoints import Checkpoints
from expunge.config import Recipe, StopConfig, TrainingConfig
from expunge.config_paths import expanded
from expunge.fit import arguments, fit, plain, train
from expunge.foresight import Foresight
from expunge.head import head_of
from expunge.looking import Look, follows, known_units, rows_a_step, samples, schedule
from expunge.methods.base import MethodContext, Procedure, ProcedureContext
from expunge.models import move_back, weights_of_base
from expunge.offset.ensemble import OffsetModel
from expunge.paused import CHECKPOINT, PausedRun
from expunge.preparation import Preparation, context_of
from expunge.progress import Progress, trainer_stage
from expunge.referring import Kept
from expunge.rewound_start import RewoundStart
from expunge.scoring import ScoreTable
from expunge.stopping import Check, StopRule, best, state_of
from expunge.tasks.base import Encoded
from expunge.trainer import UnlearnTrainer
from expunge.trainer_state import kept_method_state

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
        original_scores: Scores of all forget and of all calibration records under the original, where there are any.
        reanswered: Answers -> the forget records with them, where these have prompts and answers.
        written: (model, seed, temperature) -> answers to the forget records' prompts, likewise.
        paused: Where training keeps what another process could go on from, and finds what one has kept.
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
    original_scores: tuple[ScoreTable, ScoreTable] | None = None
    reanswered: Callable[[Sequence[str]], Encoded] | None = None
    written: Callable[[Any, int, float], list[str]] | None = None
    paused: PausedRun | None = None
    _passes: float = 0.0
    _check_passes: float = 0.0
    _fits: Iterator[int] = field(default_factory=count)

    def run(self, model: Any) -> Outcome:
        """Unlearn; the model given is changed in place or given back changed.

        Raises:
            RunError: Training failed.
        """
        log = self._carry_out(model) if isinstance(self.method, Procedure) else self._equipped(model)
        return Outcome(log.pop("model").eval(), log, self._passes, self._check_passes)

    def _carry_out(self, model: Any) -> dict[str, Any]:
        sizes = len(self.forget), len(self.calibration)
        classes = len(self.label_names) if self.forget.units is None else 1
        whole = None if self.recipe is None else self.recipe.epochs * len(self.retain)
        expected = self.method.expected(len(self.forget), len(self.retain), len(self.calibration), classes, whole)
        if expected is None:
            look = self._look(samples(self.stop, *sizes))
        else:
            looks = schedule(self.stop, *sizes, *expected)
            look = self._look((looks.forget, looks.calibration))
        checks: list[Check] = []
        history: list[dict[str, float]] = []
        spent: list[Callable[[], float]] = []
        chosen: list[int] = []

        def check(candidate: Any, number: int) -> Check:
            checks.append(look.check(candidate, number))
            return checks[-1]

        def tune(candidate: Any, records: Encoded, epochs: float, learning_rate: float) -> None:
            self._passes += epochs * len(records)
            recipe = Recipe(epochs=epochs, learning_rate=learning_rate, batch_size=self.training.batch_size)
            train(candidate, self.task, records, recipe, seed=self.seed, progress=self.progress, name="fine-tuning")

        def spend(passes: float) -> None:
            self._passes += passes

        def prepared() -> MethodContext:
            made, cost = context_of(
                model, self.task, self.forget, self.retain, self._given(), seed=self.seed, steps_per_pass=1
            )
            spent.append(cost)
            return made

        fitted = self._fitted()
        context = ProcedureContext(
            model=model, task=self.task, forget=self.forget, retain=self.retain, forget_ids=self.forget_ids,
            retain_ids=self.retain_ids, classes=classes, seed=self.seed, tune=tune, check=check, spend=spend, prepared=prepared,
            note=history.append, retraining=whole, keep=chosen.append, paused=self.paused,
            fit=None if fitted is None else lambda records, seed: self._paid(*fitted(records, seed)),
        )  # fmt: skip
        result = self.method.run(context)
        self._passes += sum(cost() for cost in spent)
        self._check_passes += look.passes
        nearest = best(checks).step if len(checks) > 1 else None
        kept = chosen[-1] if chosen else nearest
        reason = "a procedure, not a training loss"
        if kept is not None:
            reason += f"; candidate {kept} of {len(checks) - 1} is nearest to what is wanted"
            reason += "" if kept == nearest else f", as far as its check and that of candidate {nearest} can tell"
        return {
            "model": result, "steps": len(history), "kept_step": kept, "reason": reason, "history": history,
            "checks": [asdict(check) for check in checks],
            **({} if kept is None else {"state": state_of(next(check for check in checks if check.step == kept))}),
        }  # fmt: skip

    def _given(self) -> Preparation:
        known = None if self.original_scores is None else self.original_scores[1].record_margins
        return Preparation(
            self.forget_ids, self.calibration, self._fitted(), self.base, self.trust_remote_code, known, self.reanswered,
            self.written,
        )  # fmt: skip

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
                name="training from the base", trust_remote_code=self.trust_remote_code, paused=self.paused,
                stage=f"fitted-{next(self._fits)}",
            )  # fmt: skip
            return model, recipe.epochs * len(records)

        return fitted

    def _equipped(self, model: Any) -> dict[str, Any]:
        """Train the model, or what the method puts in its place."""
        model = self.method.equipped(model, self.task, trust_remote_code=self.trust_remote_code)
        if not isinstance(model, OffsetModel):
            return self._train(model)
        self.paused = (
            None  # what its frozen models said is kept by batch, and would be rounded otherwise: it begins anew
        )
        before, spent = model.weights(), model.spent
        with model.remembering():
            log = self._train(model)
        self._passes += model.spent - spent
        return {**log, "offset": model.account(before)}

    def _train(self, model: Any) -> dict[str, Any]:
        settings = self.training
        a_pass = -(-len(self.forget) // settings.batch_size)
        with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
            args = arguments(
                folder,
                self.seed,
                settings,
                max_steps=max(settings.min_steps, round(settings.epochs * a_pass), 1),
                per_device_train_batch_size=-(-settings.batch_size // (settings.accumulation * processes.count())),
                gradient_accumulation_steps=settings.accumulation,
                max_grad_norm=settings.max_grad_norm,
            )
            a_step = rows_a_step(self.method, settings.batch_size, len(self.forget), len(self.retain))
            looks = schedule(
                self.stop, len(self.forget), len(self.calibration), args.max_steps * a_step, args.max_steps
            )
            look = self._look((looks.forget, looks.calibration))
            few = follows(self.stop, settings, len(self.forget))
            look.foresight = Foresight(len(self.forget)) if few else None

            def check(model: Any, step: int) -> Check:
                with trainer.gathered():
                    return look.check(model, step)

            stop = StopRule(
                check, looks.every, rule=self.stop.rule, most=looks.most, glance=look.near, folder=Path(folder),
                worth=lambda left: few and looks.passes <= left * a_step,
                soonest=1 if few else None,
            )  # fmt: skip
            head = (
                None if self.task.of_tokens or not settings.lora_rank else head_of(model, self.task, self.forget).module
            )
            model = with_adapter(model, settings.lora_rank, self.seed, head)
            found = None if self.paused is None else self.paused.newest(CHECKPOINT)
            given = self._given()
            if found is not None:
                given = replace(given, ready=kept_method_state(found[1], next(model.parameters()).device))
            trainer = UnlearnTrainer(
                model, args, method=self.method, task=self.task, forget=self.forget, retain=self.retain,
                callbacks=[stop], batch_size=settings.batch_size, given=given, cache=self._cache(anew=found is None),
            )  # fmt: skip
            cached = model.config.use_cache if hasattr(model.config, "use_cache") else None
            trainer.watch = look.watch

            def go_back() -> None:
                trainer.move_back(self._base_weights(model), settings.rewind_first)

            def start_back() -> None:
                go_back()
                if look.foresight is not None:
                    look.foresight.unplaced()

            with trainer_stage(trainer, self.progress, "unlearning"):
                if settings.rewind_first and found is None:
                    trainer.add_callback(RewoundStart(start_back))
                if self.paused is not None:
                    trainer.add_callback(Checkpoints(self.paused, trainer, look, stop))
                if found is not None:
                    look.restore(found[1].part("look"), model)
                    stop.restore(found[1].part("stop"))
                    if settings.rewind_first:  # for the weights under an adapter; those that are trained are restored
                        go_back()
                trainer.train(resume_from_checkpoint=None if found is None else str(found[0]))
            model = merged(plain(model))
            if cached is not None:
                model.config.use_cache = cached  # the trainer turns it off
        last = next(check for check in stop.checks if check.step == stop.kept)
        rewound = {}
        if settings.rewind:
            move_back(model, self._base_weights(model), settings.rewind)
            last = look.check(model, last.step)
            rewound = {"rewound": asdict(last)}
        self._passes += trainer.example_passes
        self._check_passes += look.passes
        return {
            "model": model,
            "steps": trainer.state.global_step,
            "kept_step": stop.kept,
            "reason": stop.reason,
            "state": state_of(last),
            "history": [{name: round(value, 6) for name, value in row.items()} for row in trainer.history],
            "checks": [asdict(check) for check in stop.checks],
            **rewound,
        }

    def _base_weights(self, model: Any) -> dict[str, Any]:
        assert self.base is not None, "checked before"
        return weights_of_base(self.base, model, self.task.auto_class, trust_remote_code=self.trust_remote_code)

    def _cache(self, *, anew: bool) -> Kept:
        """Where what the original says of tokens lies.

        Args:
            anew: The run goes on from no checkpoint: what a killed process has put into the run's own folder is made again, so
                that costs are counted as if there had been none.
        """
        named = self.training.cache
        retained = None if named is None else expanded(named, "training.cache")
        if self.paused is None:
            return Kept(retained)
        own = self.paused.folder / "reference"
        if anew:
            shutil.rmtree(own, ignore_errors=True)
        return Kept(retained, own)

    def _look(self, sizes: tuple[int, int]) -> Look:
        return Look(
            self.task,
            self.forget,
            self.calibration,
            known_units(self.task, self.retain),
            sizes,
            self.stop.confidence,
            self.seed,
            self.batch_size,
            self.original_scores,
        )
