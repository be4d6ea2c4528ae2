"""The model of the benchmark on EDU-RELAT that knows all facts, and copies of it that unlearn some."""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock
from transformers import TrainerCallback, set_seed

from expunge.bench.config import Trial
from expunge.bench.deep_config import DeepConfig
from expunge.config import Recipe
from expunge.deep.fact_file import FactFile
from expunge.deep.probing import answered
from expunge.errors import RunError
from expunge.fit import arguments, device, fit, plain, train
from expunge.folders import whole_folder
from expunge.methods.base import Procedure, ProcedureContext
from expunge.models import load_config, load_model
from expunge.progress import trainer_stage
from expunge.stopping import Check
from expunge.tasks.base import Encoded
from expunge.tasks.generation import Generation
from expunge.trainer import UnlearnTrainer

__all__ = ["DeepModels", "Look"]

_KNOWN = "known.json"
Look = Callable[[Any, float], bool]
"""(model, step or strength) -> whether the run may end; asks the model all facts."""


@dataclass(frozen=True)
class DeepModels:
    """The original of one benchmark, and how it unlearns.

    Attributes:
        config: The benchmark.
        facts: Facts, each with a question.
        base: Folder or hub id of the base model.
        base_sha256: Hash of its weights; of a hub id, its name.
        tokenizer: Its tokenizer.
        work: Where the original is kept.
        say: Shows a line of progress.
    """

    config: DeepConfig
    facts: FactFile
    base: str
    base_sha256: str
    tokenizer: Any
    work: Path
    say: Callable[[str], None]

    @cached_property
    def task(self) -> Generation:
        """Encodes facts."""
        names = Generation.names(load_config(self.base, where="--base"), self.tokenizer, ())
        return Generation(self.tokenizer, self.config.deep.max_length, names, self.config.deep.template)

    @cached_property
    def close(self) -> Generation:
        """Collates them without padding up to a multiple of eight, a third of such short texts."""
        return replace(self.task, max_length=1)

    @cached_property
    def questions(self) -> list[tuple[str, str]]:
        """Question and answer of each fact."""
        return [asked for asked in self.facts.questions if asked is not None]

    @cached_property
    def encoded(self) -> Encoded:
        """The facts, tokenised."""
        return self.task.encode_texts(self.questions)

    @cached_property
    def key(self) -> str:
        """Changes with all that the original hangs on."""
        deep = self.config.deep
        own = [deep.seed, deep.template, deep.max_length, deep.least, deep.more_epochs, deep.most_rounds]
        text = json.dumps([self.base_sha256, asdict(self.config.recipe), own, self.questions], sort_keys=True)
        return hashlib.sha256(text.encode()).hexdigest()[:10]

    def known(self, model: Any, asked: Sequence[int] | None = None) -> np.ndarray:
        """(N,) which facts a model answers, of these or of all."""
        questions = self.questions if asked is None else [self.questions[i] for i in asked]
        return answered(model, self.task, questions, batch_size=self.config.deep.batch_size)

    def original(self) -> Any:
        """The base fine-tuned on all facts until it answers the share wanted; made once.

        Raises:
            RunError: It does not within the rounds allowed.
        """
        folder = self.work / f"deep-{self.key}"
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if not folder.is_dir():
                self._make(folder)
        return load_model(str(folder), self.task.auto_class, where="--work").to(device())

    def before(self) -> np.ndarray:
        """(N,) which facts the original answers, found when it was made."""
        return np.array(json.loads((self.work / f"deep-{self.key}" / _KNOWN).read_text(encoding="utf-8")), dtype=bool)

    def _make(self, folder: Path) -> None:
        deep, recipe = self.config.deep, self.config.recipe
        model = fit(self.base, self.close, self.encoded, recipe, seed=deep.seed, label_names=())
        known, rounds = self.known(model), 0
        while float(known.mean()) < deep.least:
            self.say(f"original: {known.mean():.1%} of {len(self.questions)} facts are answered")
            if rounds == deep.most_rounds:
                raise RunError(
                    f"fine-tuning: the model answers {known.mean():.1%} of the facts, {deep.least:.0%} are wanted. "
                    "Raise recipe.epochs or deep.most_rounds."
                )
            rounds += 1
            more = replace(recipe, epochs=deep.more_epochs, learning_rate=recipe.learning_rate / 2)
            model = train(model, self.close, self.encoded, more, seed=deep.seed + rounds)
            known = self.known(model)
        self.say(f"original: {known.mean():.1%} of {len(self.questions)} facts are answered")
        with whole_folder(folder) as beside:
            model.save_pretrained(beside)
            (beside / _KNOWN).write_text(json.dumps(known.tolist()), encoding="utf-8")

    def unlearn(self, model: Any, trial: Trial, forget: Sequence[int], look: Look) -> None:
        """Unlearn facts in place, looking on the way.

        Raises:
            DivergedError: The loss, or what the model says, became NaN or infinite.
        """
        chosen = set(forget)
        parts = [i for i in range(len(self.questions)) if i not in chosen]
        own, others = self.encoded.take(sorted(chosen)), self.encoded.take(parts)
        set_seed(self.config.deep.seed)
        if isinstance(trial.method, Procedure):
            self._carry_out(model, trial, (own, others), (sorted(chosen), parts), look)
            return
        at = self.config.deep.at
        with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
            settings = trial.training
            args = arguments(
                folder, self.config.deep.seed, settings, max_steps=at[-1],
                per_device_train_batch_size=min(settings.batch_size, len(chosen)),
                max_grad_norm=settings.max_grad_norm,
            )  # fmt: skip
            trainer = UnlearnTrainer(
                model,
                args,
                method=trial.method,
                task=self.close,
                forget=own,
                retain=others,
                callbacks=[_Asks(at, look)],
            )
            with trainer_stage(trainer, None, "unlearning"):
                trainer.train()
            plain(model)

    def _carry_out(
        self, model: Any, trial: Trial, groups: tuple[Encoded, Encoded], places: tuple[list[int], list[int]], look: Look
    ) -> None:
        method, deep = trial.method, self.config.deep
        strengths = (0.0, *getattr(method, "alphas", ()))

        def tune(candidate: Any, records: Encoded, epochs: float, learning_rate: float) -> None:
            recipe = Recipe(epochs=epochs, learning_rate=learning_rate, batch_size=trial.training.batch_size)
            train(candidate, self.close, records, recipe, seed=deep.seed)

        ended: list[bool] = []

        def check(candidate: Any, number: int) -> Check:
            if number and not any(ended):  # all greater strengths are worse once a run may end
                ended.append(look(candidate, strengths[number] if number < len(strengths) else float(number)))
            return Check(number, 0.0, 0.0, 0.0, 0.0)

        def impossible(*_: Any) -> Any:
            raise RunError(f"{method.section()}: this benchmark has no procedure that trains from the base")

        ids = [[self.facts.ids[i] for i in part] for part in places]
        method.run(
            ProcedureContext(
                model=model, task=self.close, forget=groups[0], retain=groups[1], forget_ids=ids[0], retain_ids=ids[1],
                classes=1, seed=deep.seed, fit=None, tune=tune, check=check, spend=lambda _: None, prepared=impossible,
                note=lambda _: None,
                keep=lambda _: None,
            )
        )  # fmt: skip


class _Asks(TrainerCallback):
    """Looks at the model after some steps, and ends the run where it may end."""

    def __init__(self, at: Sequence[int], look: Look) -> None:
        self._at, self._look = set(at), look

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step in self._at and self._look(kwargs["model"], float(state.global_step)):
            control.should_training_stop = True
