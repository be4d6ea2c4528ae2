"""Carry out a checked run: score, unlearn, score again, retrain, audit."""

from __future__ import annotations

import copy
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from transformers import set_seed

from expunge import models as model_loading
from expunge.audits.base import Tables
from expunge.checks import Prepared
from expunge.data.records import Records
from expunge.data.rewording import REWORDINGS, reworded
from expunge.deep.fact_file import FactFile
from expunge.deep.reading import read_knowledge
from expunge.errors import RunError
from expunge.evidence import Evidence, build_record
from expunge.fit import device, plain
from expunge.generating import own_answers
from expunge.head import head_of
from expunge.history.section import group_of
from expunge.kept_outcome import keep_outcome, kept_outcome
from expunge.layer_states import sample_units
from expunge.o3.model import O3Model
from expunge.o3.request import account as o3_account
from expunge.offset.ensemble import OffsetModel
from expunge.paused import PausedRun
from expunge.progress import Progress
from expunge.record import RunRecord
from expunge.retraining import Retraining
from expunge.scoring import score
from expunge.sisa.ensemble import Ensemble
from expunge.sisa.request import account
from expunge.stress import STRESSES, Material
from expunge.summary import LEAST_FIT, unfit
from expunge.tasks.base import Encoded
from expunge.token_stress import other_answers
from expunge.unlearning import Unlearning

__all__ = ["Run"]

_GROUPS = ("forget", "retain", "calibration", "evaluation")
_LAYER_GROUPS = ("forget", "retain", "evaluation")
_ASKED = 200  # retained and evaluation records that other answers are scored of, and answers written to, at most
_LAYER_UNITS = 1000  # units of a group whose states of every layer are kept: 10 MB for 13 layers of 384 float16


@dataclass
class Run:
    """One run over a checked job.

    Attributes:
        prepared: Its data and settings.
        progress: Where progress is shown.
        timings: Seconds a stage.
        check_passes: Example-passes of the stop rule so far.
        scoring_passes: Those of the shared scoring pass over all models.
        stressed: What audits need done to models, see `expunge.audits.base.AuditContext.stressed`.
        stress_passes: Its example-passes, by name.
        words_cut: Words of a tagger's sentences that lie behind the task's length, and so are no units.
        paused: Where another process could go on from, if this one ends; None: nowhere.
    """

    prepared: Prepared
    progress: Progress = field(default_factory=Progress)
    timings: dict[str, float] = field(default_factory=lambda: {"started_unix": round(time.time(), 1)})
    check_passes: float = 0.0
    scoring_passes: float = 0.0
    stressed: dict[str, dict[str, list[Mapping[str, Any]]]] = field(default_factory=dict)
    stress_passes: dict[str, float] = field(default_factory=dict)
    words_cut: int = 0
    paused: PausedRun | None = None
    _stress_material: Material | None = None
    _retain_sample: Sequence[int] = ()

    def carry_out(self) -> tuple[Any, RunRecord]:
        """Score the original, unlearn, score again, retrain where asked, audit.

        Returns:
            The unlearned model, in eval mode and in the original's dtype, and the record.
        """
        config = self.prepared.config
        encoded = self._encode()
        with self._timed("load"):
            model, dtype = self._own_model()
            self._try_comparisons()
        before = getattr(model, "unknown_weights", None) or model_loading.weights_sha256(model, dtype)
        self._must_follow(before)
        if self.paused is not None:
            self.paused.remember("weights of the model", before)
        original = self._score(model, encoded, "original")
        if original["retain"].accuracy < LEAST_FIT:
            self.progress.note(unfit(original["retain"].accuracy, self.prepared.task.of_tokens))
        set_seed(config.seed)
        if isinstance(model, Ensemble):
            model.bind(self.prepared.salt, self.progress)
        with self._timed("unlearn"):
            unlearning = self._unlearning(encoded)
            unlearning.original_scores = original["forget"], original["calibration"]
            outcome = kept_outcome(self.paused, model) or unlearning.run(model)
            keep_outcome(self.paused, model, outcome)
            model, self.check_passes = outcome.model, outcome.check_passes
        if isinstance(model, OffsetModel):
            model.found_at(config.model.path)
        whole = self._retraining_passes(encoded)
        if isinstance(model, Ensemble):
            outcome.log.update(account(model))
            whole = whole or model.manifest.plan.epochs * len(encoded["retain"])
        elif isinstance(model, O3Model):
            outcome.log.update(o3_account(model))
        if dtype != torch.float32:  # what is measured is what will be saved
            model_loading.cast(model_loading.cast(model, dtype), torch.float32)
        unlearned = self._score(model, encoded, "unlearned")
        retrained, described = self._retrained(encoded)
        model_loading.cast(model, dtype)
        hashes = {
            "original": {"sha256": before},
            "unlearned": {"sha256": model_loading.weights_sha256(model)},
            "retrained": described,
        }
        record = self._record([original], [unlearned], retrained, hashes, outcome.log, outcome.passes, whole)
        return model, record

    def audit_only(self, audited: str, before: RunRecord) -> RunRecord:
        """Score original, a given unlearned model and retrained ones, and audit; nothing is trained.

        Args:
            audited: Folder of the unlearned model.
            before: The record of the run that made it: its training log and cost are carried over.
        """
        encoded = self._encode()
        scored, hashes = [], {}
        for name, path in (("original", self.prepared.config.model.path), ("unlearned", audited)):
            model = self._load(path, "model.path" if name == "original" else "--model")
            scored.append([self._score(model, encoded, name)])
            hashes[name] = {"sha256": model_loading.weights_sha256(model, self._saved_dtype(path, name))}
        retrained, hashes["retrained"] = self._retrained(encoded)
        cost = before.cost
        self.check_passes = cost["checks"]
        original, unlearned = scored
        training, passes, whole = before.training, cost["training"], cost["retraining"]
        return self._record(original, unlearned, retrained, hashes, training, passes, whole)

    def _record(
        self, original: list[Tables], unlearned: list[Tables], retrained: list[Tables], hashes: dict[str, Any],
        log: dict[str, Any], passes: float, retraining_passes: float | None,
    ) -> RunRecord:  # fmt: skip
        with self._timed("audit"), self.progress.stage("auditing"):
            return build_record(
                Evidence(
                    prepared=self.prepared,
                    models={"original": original, "unlearned": unlearned, "retrained": retrained},
                    hashes=hashes,
                    training=log,
                    passes=passes,
                    check_passes=self.check_passes,
                    retraining_passes=retraining_passes,
                    timings=self.timings,
                    words_cut=self.words_cut,
                    stressed=self.stressed,
                    scoring_passes=self.scoring_passes,
                    stress_passes=self.stress_passes,
                )
            )

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
            calibration, evaluation = (
                prepared.task.encode(prepared.calibration),
                prepared.task.encode(prepared.evaluation),
            )
            self.words_cut = sum(sum(found.cut or ()) for found in (train, calibration, evaluation))
            retain = prepared.request.retain
            most = prepared.config.audit.retain_sample
            rng = np.random.default_rng([prepared.config.seed, 3])
            sample = sorted(rng.choice(len(retain), min(most, len(retain)), replace=False).tolist())
            self._retain_sample = [retain[i] for i in sample]
            return {
                "forget": train.take(prepared.request.forget),
                "retain": train.take(retain),
                "retain sample": train.take(self._retain_sample),
                "calibration": calibration,
                "evaluation": evaluation,
                **{group_of(number): prepared.task.encode(records) for number, records in prepared.past.items()},
            }

    def _own_model(self) -> tuple[Any, torch.dtype]:
        """A float32 model of our own to change, and the dtype it is to be saved in."""
        prepared = self.prepared
        if prepared.model is not None:
            model = plain(copy.deepcopy(prepared.model))
            dtype = next(model.parameters()).dtype
            return model.to(device(), torch.float32), dtype
        path = prepared.config.model.path
        return self._load(path, "model.path"), self._saved_dtype(path, "model.path")

    def _must_follow(self, weights: str) -> None:
        """Refuse to append a request to a history that these weights are not of."""
        history = self.prepared.history
        if history is not None and weights != history.last.content["model"]["after"]:
            raise RunError(
                f"the model's weights are not those that request {history.last.number} of its history left; it was changed "
                "since, so the history is not its own. Give the folder as that request left it. Nothing was written."
            )

    def _saved_dtype(self, path: str, where: str) -> torch.dtype:
        trust = self.prepared.config.model.trust_remote_code
        saved = model_loading.load_config(path, where=where, trust_remote_code=trust).dtype
        return saved if isinstance(saved, torch.dtype) else torch.float32

    def _load(self, path: str, where: str, **options: Any) -> Any:
        trust = self.prepared.config.model.trust_remote_code
        cls = self.prepared.task.auto_class
        return model_loading.load_model(path, cls, where=where, trust_remote_code=trust, **options).to(device())

    def _score(self, model: Any, encoded: dict[str, Encoded], kind: str, which: str = "") -> Tables:
        """The one pass over all groups that every audit reads, and whatever else the run's audits need of a model.

        Args:
            model: The model.
            encoded: The groups.
            kind: ``original``, ``unlearned`` or ``retrained``.
            which: Which one of several, for progress.
        """
        shown = f"the {kind} model{f' ({which})' if which else ''}"
        past = [group_of(number) for number in self.prepared.past]
        source = {group: "retain sample" if group == "retain" else group for group in (*_GROUPS, *past)}
        head = head_of(model, self.prepared.task, encoded["forget"])
        settings = self.prepared.config
        units = {}
        if "layers" in self.needs:
            units = {g: sample_units(encoded[source[g]], _LAYER_UNITS, settings.seed) for g in _LAYER_GROUPS}
        count = sum(len(encoded[s]) for s in source.values())
        self.scoring_passes += count / 3 * model_loading.passes_of(model)
        with self._timed("score"), self.progress.stage(f"scoring {shown}", count) as advance:
            tables = {
                group: score(
                    model, head, encoded[key], self.prepared.task, batch_size=settings.audit.batch_size,
                    layer_units=units.get(group), advance=advance,
                )
                for group, key in source.items()
            }  # fmt: skip
        for name in sorted(self.needs & STRESSES.keys()):
            with self._timed(f"stress, {name}"), self.progress.stage(f"{name}: {shown}"):
                found, passes = STRESSES[name](model, self._material(encoded))
            self.stressed.setdefault(name, {}).setdefault(kind, []).append(found)
            self.stress_passes[name] = self.stress_passes.get(name, 0.0) + passes
        return tables

    @property
    def needs(self) -> frozenset[str]:
        """What the run's audits need beyond scores."""
        return frozenset().union(*(audit.needs for audit in self.prepared.audits.values()))

    def _material(self, encoded: dict[str, Encoded]) -> Material:
        """The records that stresses work with: the same for every model."""
        if self._stress_material is None:
            prepared, task = self.prepared, self.prepared.task
            rewordings: dict[str, dict[str, Encoded]] = {}
            if "reworded" in self.needs:
                groups = {"forget": prepared.train.take(prepared.request.forget), "evaluation": prepared.evaluation}
                common = int(np.bincount(encoded["retain"].flat_labels).argmax())
                for how in REWORDINGS:
                    rewordings[how] = {
                        group: task.encode(reworded(records, how, common if records.of_words else None))
                        for group, records in groups.items()
                    }
            asked = self._asked() if {"alternatives", "written"} & self.needs and task.of_tokens else {}
            facts, targets = self._facts() if "facts" in self.needs else (None, ())
            recipe, training = prepared.recipe, prepared.config.training
            self._stress_material = Material(
                task=task, forget=encoded["forget"], calibration=encoded["calibration"], evaluation=encoded["evaluation"],
                rewordings=rewordings, learning_rate=(recipe or training).learning_rate,
                batch_size=prepared.config.audit.batch_size, seed=prepared.config.seed,
                alternatives={g: other_answers(task, records) for g, records in asked.items() if records.alternatives},
                texts={group: records.texts for group, records in asked.items()}, facts=facts, targets=targets,
            )  # fmt: skip
        return self._stress_material

    def _facts(self) -> tuple[FactFile | None, tuple[int, ...]]:
        """The facts named, and which of them are forget records, by question and answer; none of a classifier."""
        data = self.prepared.config.data
        if data.facts is None or not self.prepared.task.of_tokens:
            return None, ()
        read = read_knowledge(data.facts, data.rules)
        forget = set(self.prepared.train.take(self.prepared.request.forget).texts)
        return read, tuple(i for i, asked in enumerate(read.questions) if asked in forget)

    def _asked(self) -> dict[str, Records]:
        """The records that a language model is asked about in other ways: all to forget, a part of the others."""
        prepared = self.prepared
        rng = np.random.default_rng([prepared.config.seed, 10])
        found = {"forget": prepared.train.take(prepared.request.forget)}
        for group, records in (
            ("retain", prepared.train.take(self._retain_sample)),
            ("evaluation", prepared.evaluation),
        ):
            drawn = rng.choice(len(records), min(_ASKED, len(records)), replace=False)
            found[group] = records.take(sorted(drawn.tolist()))
        return found

    def _unlearning(self, encoded: dict[str, Encoded]) -> Unlearning:
        prepared = self.prepared
        config, ids, request = prepared.config, prepared.train.ids, prepared.request
        return Unlearning(
            method=config.method, task=prepared.task, forget=encoded["forget"], retain=encoded["retain"],
            calibration=encoded["calibration"], forget_ids=[ids[i] for i in request.forget],
            retain_ids=[ids[i] for i in request.retain], training=config.training, stop=config.stop, seed=config.seed,
            label_names=prepared.task.label_names, base=config.retrain.base, recipe=prepared.recipe,
            batch_size=config.audit.batch_size, trust_remote_code=config.model.trust_remote_code,
            progress=self.progress, paused=self.paused, **own_answers(prepared.task, prepared.train.take(request.forget)),
        )  # fmt: skip

    def _retraining_passes(self, encoded: dict[str, Encoded]) -> float | None:
        recipe = self.prepared.recipe
        return None if recipe is None else recipe.epochs * len(encoded["retain"])

    def _try_comparisons(self) -> None:
        """Load what will be compared with once, so that a broken model is found before the work is done."""
        retrain = self.prepared.config.retrain
        for path in retrain.models:
            self._load(path, "retrain.models")
        if retrain.base is not None and self.prepared.recipe is not None:
            self._load(retrain.base, "retrain.base", new_head=self._new_head())

    def _new_head(self) -> dict[str, Any] | None:
        task = self.prepared.task
        return None if task.of_tokens else {"num_labels": len(task.label_names)}

    def _score_base(self, encoded: dict[str, Encoded]) -> None:
        """Scores of forget and evaluation records under the base of a language model, where an audit needs them."""
        base = self.prepared.config.retrain.base
        if "reference" not in self.needs or base is None or not self.prepared.task.of_tokens:
            return
        model = self._load(base, "retrain.base")
        groups = {group: encoded[group] for group in ("forget", "evaluation")}
        with self._timed("reference"), self.progress.stage("scoring the base model"):
            tables, passes = self._material(encoded).scored(model, groups)
        self.stressed["reference"] = {"base": [tables]}
        self.stress_passes["reference"] = passes

    def _retrained(self, encoded: dict[str, Encoded]) -> tuple[list[Tables], list[dict[str, Any]]]:
        config, recipe, task = self.prepared.config, self.prepared.recipe, self.prepared.task
        tables, described = [], []
        self._score_base(encoded)
        for path in config.retrain.models:
            model = self._load(path, "retrain.models")
            tables.append(self._score(model, encoded, "retrained", path))
            described.append({"path": path, "sha256": model_loading.weights_sha256(model)})
        base = config.retrain.base
        if config.retrain.enabled and base is not None and recipe is not None:
            retraining = Retraining(
                base=base, task=task, retain=encoded["retain"], recipe=recipe,
                trust_remote_code=config.model.trust_remote_code, paused=self.paused, progress=self.progress,
                loaded=lambda: self._load(base, "retrain.base", new_head=self._new_head()),
            )  # fmt: skip
            made = retraining.models(config.retrain.seeds or (recipe.seed,), config.retrain.engine)
            while (found := self._next_retrained(made)) is not None:
                seed, model = found
                tables.append(self._score(model, encoded, "retrained", f"seed {seed}"))
                described.append({"seed": seed, "sha256": model_loading.weights_sha256(model)})
        return tables, described

    def _next_retrained(self, made: Iterator[tuple[int, Any]]) -> tuple[int, Any] | None:
        with self._timed("retrain"):
            return next(made, None)
