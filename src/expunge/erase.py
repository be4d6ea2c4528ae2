"""The front door: unlearn, measure, and hand back an `Erased`."""

from __future__ import annotations

import copy
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from expunge import models as model_loading
from expunge.audits.base import Tables
from expunge.checks import Inputs, Prepared, check
from expunge.config import AuditConfig, DataConfig, PrivacyConfig, RequestConfig, RetrainConfig, RunConfig, StopConfig
from expunge.config import TrainingConfig, build_method
from expunge.evidence import Evidence, build_record
from expunge.fit import arguments, fit
from expunge.methods.base import Procedure, ProcedureContext
from expunge.progress import Progress, trainer_stage
from expunge.record import RunRecord
from expunge.scoring import score
from expunge.stopping import AccuracyStop
from expunge.tasks.base import Encoded
from expunge.trainer import UnlearnTrainer

__all__ = ["Erased", "execute", "unlearn"]

_GROUPS = ("forget", "retain", "calibration", "evaluation")


@dataclass
class Erased:
    """What unlearning leaves: a model that can be used, saved, and asked to forget more.

    Attributes:
        model: The unlearned model, in eval mode.
        tokenizer: Its tokenizer.
        record: What was done and measured.
        prepared: The run's data and settings.
    """

    model: Any
    tokenizer: Any
    record: RunRecord
    prepared: Prepared

    def score(self, texts: Sequence[str | tuple[str, ...]]) -> np.ndarray:
        """(N, C) class probabilities of texts (or pairs)."""
        rows = tuple((text,) if isinstance(text, str) else tuple(text) for text in texts)
        encoded = self.prepared.task.encode_texts(rows)
        head = model_loading.find_head(self.model, self.prepared.task.collate(encoded, [0]))
        found = []
        with torch.inference_mode():
            for start in range(0, len(encoded), 64):
                chosen = list(range(start, min(start + 64, len(encoded))))
                batch = self.prepared.task.collate(encoded, chosen).to(next(self.model.parameters()).device)
                found.append(head.run(self.model, batch)[1].float().softmax(dim=-1).cpu())
        return torch.cat(found).numpy()

    def save(self, folder: str) -> None:
        """Write model, tokenizer, record.json and report.html: the folder appears whole or not at all.

        Raises:
            UsageError: The folder exists, or its place cannot be written.
            RunError: Writing failed.
        """
        from expunge.folders import whole_folder
        from expunge.report import render

        with whole_folder(folder) as place:
            self.model.save_pretrained(place)
            self.tokenizer.save_pretrained(place)
            (place / "record.json").write_text(self.record.to_json(), encoding="utf-8")
            (place / "report.html").write_text(render(self.record), encoding="utf-8")

    def forget_next(self, ids: Sequence[str], progress: Progress | None = None) -> Erased:
        """Forget further records of the same training data; those forgotten before stay out of retain.

        Raises:
            UsageError: An id is unknown or was forgotten before, or nothing would be left to retain.
        """
        from expunge.data.request import resolve

        before = self.prepared
        left = before.train.take(before.request.retain)
        config = replace(before.config, request=replace(before.config.request, file=None, ids=tuple(ids), fraction=None))
        request = resolve(left, list(ids), config.request)
        following = replace(before, config=config, train=left, request=request, model=self.model)
        return execute(following, progress)


def unlearn(
    model: Any,
    data: Any,
    method: Any = "deepcut",
    *,
    forget: Any,
    held_out: Any,
    calibration: Any = None,
    tokenizer: Any = None,
    text: str | Sequence[str] = "text",
    label: str = "label",
    id: str | None = None,  # noqa: A002 - the word of the config
    labels: Sequence[str] = (),
    with_duplicates: bool = False,
    allow_missing: bool = False,
    overlap: str = "refuse",
    base: str | None = None,
    recipe: str | None = None,
    retrain_seeds: Sequence[int] = (),
    retrained: Sequence[str] = (),
    training: TrainingConfig | None = None,
    stop: StopConfig | None = None,
    audit: AuditConfig | None = None,
    show_ids: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Erased:
    """Make a fine-tuned text classifier forget records, and measure how well it did.

    Args:
        model: A model folder, a hub id, or a loaded model with its `tokenizer`. It is never changed.
        data: The training data: a path, hub id, `datasets.Dataset`, `pandas.DataFrame` or list of dicts.
        method: A method (`DeepCUT(gamma=0.1)`) or a name from `expunge list`.
        forget: Ids to forget; a share in (0, 1) draws records at random.
        held_out: Data never trained on, split by hash into calibration and evaluation halves.
        calibration: Data for the stop rule alone; `held_out` is then used for audits only.
        tokenizer: The tokenizer of a loaded model.
        text: Text column, or two for a pair.
        label: Label column.
        id: Id column; left out, ids are content hashes.
        labels: Class names in the model's order, where the model has none.
        with_duplicates: Forget identical rows too.
        allow_missing: Go on when some ids are not in the data.
        overlap: ``"refuse"`` or ``"drop"`` held-out records that are also in training.
        base: The model the original was fine-tuned from; with `recipe` (a TOML file), retrained models are made.
        recipe: How the original was fine-tuned.
        retrain_seeds: One retrained model a seed.
        retrained: Folders of models retrained already.
        training: Learning rate, batch size and so on.
        stop: When unlearning ends.
        audit: What is measured.
        show_ids: Put raw ids into the record.
        seed: Seed of order, dropout and sampling.
        progress: Shows progress, e.g. `expunge.progress.ConsoleProgress()`.

    Raises:
        UsageError: Everything that is wrong with these arguments, at once, before weights load.
        RunError: Training failed; the model given is unchanged.

    Example:
        >>> erased = unlearn("my-model", "train.csv", DeepCUT(), forget=["u17"], held_out="test.csv", id="key")  # doctest: +SKIP
        >>> erased.save("erased")  # doctest: +SKIP
    """
    loaded = None if isinstance(model, str) or hasattr(model, "__fspath__") else model
    share = forget if isinstance(forget, float) else None
    config = RunConfig(
        method=build_method({"name": method}) if isinstance(method, str) else method,
        seed=seed,
        model=replace(RunConfig(method=None).model, path="" if loaded is not None else str(model)),
        data=DataConfig(
            train=data if isinstance(data, str) else "",
            held_out=held_out if isinstance(held_out, str) else "",
            calibration=calibration if isinstance(calibration, str) else None,
            text=(text,) if isinstance(text, str) else tuple(text),
            label=label,
            labels=tuple(labels),
            id=id,
            overlap=overlap,  # pyright: ignore[reportArgumentType]
        ),
        request=RequestConfig(fraction=share, with_duplicates=with_duplicates, allow_missing=allow_missing, seed=seed),
        training=training or TrainingConfig(),
        stop=stop or StopConfig(),
        retrain=RetrainConfig(
            enabled=base is not None and recipe is not None,
            base=base,
            recipe=recipe,
            seeds=tuple(retrain_seeds),
            models=tuple(retrained),
        ),
        audit=audit or AuditConfig(),
        privacy=PrivacyConfig(show_ids=show_ids),
    )
    inputs = Inputs(
        model=loaded,
        tokenizer=tokenizer,
        train=None if isinstance(data, str) else data,
        held_out=None if isinstance(held_out, str) else held_out,
        calibration=None if isinstance(calibration, str) else calibration,
        forget=None if share is not None else ([forget] if isinstance(forget, str) else list(forget)),
    )
    return execute(check(config, inputs), progress)


def execute(prepared: Prepared, progress: Progress | None = None) -> Erased:
    """Carry out a checked run: score the original, unlearn, score again, retrain where asked, audit.

    Raises:
        UsageError: The model's weights cannot be used.
        RunError: Training failed.
    """
    return _Run(prepared, progress or Progress()).carry_out()


@dataclass
class _Run:
    """One run's moving parts."""

    prepared: Prepared
    progress: Progress
    timings: dict[str, float] = field(default_factory=dict)
    check_passes: float = 0.0

    def carry_out(self) -> Erased:
        prepared, config = self.prepared, self.prepared.config
        encoded = self._encode()
        with self._timed("load"):
            model, dtype = self._own_model()
        before = model_loading.weights_sha256(model)
        self._head = model_loading.find_head(model, prepared.task.collate(encoded["forget"], [0]))
        original = self._score(model, encoded, "scoring the original")
        set_seed(config.seed)
        with self._timed("unlearn"):
            if isinstance(config.method, Procedure):
                log = {"steps": 0, "reason": "a procedure, not a training loss", "history": [], "checks": []}
                passes = self._retraining_passes(encoded) or 0.0
                model = config.method.run(ProcedureContext(self._fit(encoded, "retraining"), config.seed))
            else:
                log, passes = self._train(model, encoded)
        model.eval()
        if dtype != torch.float32:  # what is measured is what will be saved
            model.to(dtype).to(torch.float32)
        unlearned = self._score(model, encoded, "scoring the unlearned model")
        retrained, described = self._retrained(encoded)
        with self._timed("audit"), self.progress.stage("auditing"):
            record = build_record(
                Evidence(
                    prepared=prepared,
                    models={"original": [original], "unlearned": [unlearned], "retrained": retrained},
                    hashes={
                        "original": {"sha256": before},
                        "unlearned": {"sha256": model_loading.weights_sha256(model.to(dtype))},
                        "retrained": described,
                    },
                    training=log,
                    passes=passes,
                    check_passes=self.check_passes,
                    retraining_passes=self._retraining_passes(encoded),
                    timings=self.timings,
                )
            )
        return Erased(model.eval(), prepared.task.tokenizer, record, prepared)

    @contextmanager
    def _timed(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.timings[name] = round(self.timings.get(name, 0.0) + time.perf_counter() - start, 3)

    def _encode(self) -> dict[str, Encoded]:
        """Every group tokenised once; `retain` is what is trained on, `retain sample` what is scored."""
        prepared = self.prepared
        with self._timed("encode"), self.progress.stage("reading records"):
            train = prepared.task.encode(prepared.train)
            retain = prepared.request.retain
            most = prepared.config.audit.retain_sample
            rng = np.random.default_rng([prepared.config.seed, 3])
            sample = sorted(rng.choice(len(retain), min(most, len(retain)), replace=False).tolist())
            return {
                "forget": train.take(prepared.request.forget),
                "retain": train.take(retain),
                "retain sample": train.take([retain[i] for i in sample]),
                "calibration": prepared.task.encode(prepared.calibration),
                "evaluation": prepared.task.encode(prepared.evaluation),
            }

    def _own_model(self) -> tuple[Any, torch.dtype]:
        """A float32 model of our own to change, and the dtype it is to be saved in."""
        prepared = self.prepared
        if prepared.model is not None:
            model = copy.deepcopy(prepared.model)
            dtype = next(model.parameters()).dtype
            return model.to(torch.float32), dtype
        settings = prepared.config.model
        model = model_loading.load_model(
            settings.path, prepared.task.auto_class, where="model.path", trust_remote_code=settings.trust_remote_code
        )
        saved = model_loading.load_config(
            settings.path, where="model.path", trust_remote_code=settings.trust_remote_code
        ).dtype
        return model, saved if isinstance(saved, torch.dtype) else torch.float32

    def _score(self, model: Any, encoded: dict[str, Encoded], name: str) -> Tables:
        source = {group: "retain sample" if group == "retain" else group for group in _GROUPS}
        head = model_loading.find_head(model, self.prepared.task.collate(encoded["forget"], [0]).to(_device(model)))
        size = self.prepared.config.audit.batch_size
        with self._timed("score"), self.progress.stage(name, sum(len(encoded[s]) for s in source.values())) as advance:
            return {
                group: score(model, head, encoded[key], self.prepared.task.collate, batch_size=size, advance=advance)
                for group, key in source.items()
            }

    def _train(self, model: Any, encoded: dict[str, Encoded]) -> tuple[dict[str, Any], float]:
        config, task = self.prepared.config, self.prepared.task
        settings = config.training
        with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
            args = arguments(
                folder,
                config.seed,
                settings.precision,
                num_train_epochs=settings.epochs,
                per_device_train_batch_size=settings.batch_size,
                gradient_accumulation_steps=settings.accumulation,
                learning_rate=settings.learning_rate,
                weight_decay=settings.weight_decay,
                warmup_steps=min(settings.warmup, 0.999999),
                lr_scheduler_type=settings.scheduler,
                max_grad_norm=settings.max_grad_norm,
            )
            stop = AccuracyStop(self._accuracies(encoded), config.stop.every, stop=config.stop.rule == "accuracy")
            trainer = UnlearnTrainer(
                model, args, method=config.method, task=task, forget=encoded["forget"], retain=encoded["retain"],
                callbacks=[stop],
            )  # fmt: skip
            with trainer_stage(trainer, self.progress, "unlearning"):
                trainer.train()
        log = {
            "steps": trainer.state.global_step,
            "kept_step": stop.kept,
            "reason": stop.reason,
            "history": [{name: round(value, 6) for name, value in row.items()} for row in trainer.history],
            "checks": [{"step": c.step, "forget": c.forget, "calibration": c.calibration} for c in stop.checks],
        }
        return log, trainer.example_passes

    def _accuracies(self, encoded: dict[str, Encoded]) -> Callable[[Any], tuple[float, float]]:
        rng = np.random.default_rng([self.prepared.config.seed, 4])
        most = self.prepared.config.stop.sample
        samples = []
        for group in ("forget", "calibration"):
            size = len(encoded[group])
            samples.append(encoded[group].take(sorted(rng.choice(size, min(most, size), replace=False).tolist())))

        def evaluate(model: Any) -> tuple[float, float]:
            self.check_passes += sum(map(len, samples)) / 3
            forget, calibration = (
                score(model, self._head, s, self.prepared.task.collate, batch_size=self.prepared.config.audit.batch_size)
                for s in samples
            )
            return forget.accuracy, calibration.accuracy

        return evaluate

    def _fit(self, encoded: dict[str, Encoded], name: str) -> Callable[[int], Any] | None:
        retrain, recipe, task = self.prepared.config.retrain, self.prepared.recipe, self.prepared.task
        if retrain.base is None or recipe is None:
            return None
        if recipe.max_length is not None and recipe.max_length != task.max_length:
            own_task = replace(task, max_length=recipe.max_length)
            records = own_task.encode(self.prepared.train.take(self.prepared.request.retain))
        else:
            own_task, records = task, encoded["retain"]
        base = retrain.base
        return lambda seed: fit(
            base, own_task, records, recipe, seed=seed, label_names=task.label_names, progress=self.progress, name=name,
            trust_remote_code=self.prepared.config.model.trust_remote_code,
        )  # fmt: skip

    def _retraining_passes(self, encoded: dict[str, Encoded]) -> float | None:
        recipe = self.prepared.recipe
        return None if recipe is None else recipe.epochs * len(encoded["retain"])

    def _retrained(self, encoded: dict[str, Encoded]) -> tuple[list[Tables], list[dict[str, Any]]]:
        config, recipe = self.prepared.config, self.prepared.recipe
        tables, described = [], []
        for path in config.retrain.models:
            model = model_loading.load_model(path, self.prepared.task.auto_class, where="retrain.models")
            tables.append(self._score(model, encoded, f"scoring {path}"))
            described.append({"path": path, "sha256": model_loading.weights_sha256(model)})
        if config.retrain.enabled and recipe is not None:
            for seed in config.retrain.seeds or (recipe.seed,):
                make = self._fit(encoded, f"retraining without the records (seed {seed})")
                assert make is not None
                with self._timed("retrain"):
                    model = make(seed)
                tables.append(self._score(model, encoded, f"scoring the retrained model (seed {seed})"))
                described.append({"seed": seed, "sha256": model_loading.weights_sha256(model)})
        return tables, described


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device
