"""The front door: unlearn, measure, and hand back an `Erased`."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError

from expunge import processes
from expunge.apart import apart_from_models
from expunge.card import write_card
from expunge.checks import Inputs, Prepared, check
from expunge.config import (
    AuditConfig,
    DataConfig,
    ModelConfig,
    PrivacyConfig,
    RequestConfig,
    RetrainConfig,
    RunConfig,
    StopConfig,
    TrainingConfig,
    build_method,
)
from expunge.config_paths import expand_paths, expanded
from expunge.errors import Problem, RunError, UsageError
from expunge.execution import Run
from expunge.head import head_of
from expunge.history.hashes import file_hashes
from expunge.history.link import Link
from expunge.history.signing import Signer, read_signer
from expunge.history.write import linked, write_links
from expunge.next_request import next_request
from expunge.paused import PausedRun
from expunge.progress import Progress
from expunge.record import RunRecord
from expunge.scoring import run_over
from expunge.shareable import unshareable
from expunge.tasks.kinds import Task

__all__ = ["Erased", "execute", "unlearn"]


@dataclass
class Erased:
    """What unlearning leaves: a model that can be used, saved, and asked to forget more.

    Attributes:
        model: The unlearned model, in eval mode.
        tokenizer: Its tokenizer.
        record: What was done and measured.
        prepared: The run's data and settings; None where it was loaded from a folder.
        task: How texts are read.
        link: What its history records of this request; once saved, with the hashes of the files.
    """

    model: Any
    tokenizer: Any
    record: RunRecord
    prepared: Prepared | None
    task: Task
    link: Link | None = None

    @classmethod
    def load(cls, folder: str | Path, *, large: Any = None, trust_remote_code: bool = False) -> Erased:
        """The model in a folder that `expunge run` or `save` wrote, with its record; the run's data are not needed.

        Args:
            folder: The folder.
            large: The large model of an offset folder, where it is a black box that only the caller has.
            trust_remote_code: Run code that comes with the model, whatever its record says.

        Raises:
            UsageError: It is no such folder, or a model it names cannot be had or has changed.
        """
        from expunge.opening import opened

        model, tokenizer, record, task = opened(folder, large, trust_remote_code=trust_remote_code)
        return cls(model, tokenizer, record, None, task)

    def score(self, texts: Sequence[str | Sequence[str]]) -> np.ndarray | list[np.ndarray]:
        """Class probabilities; of a causal language model log-probabilities of answers.

        Args:
            texts: Texts or pairs of texts; for a tagger sentences, each a list of words; for a causal language model pairs of
                prompt and answer, or plain texts.

        Returns:
            (N, C) for texts or pairs. For a tagger a list with one (n_words, C) array a sentence; words behind
            `model.max_length` have NaN there. For a causal language model a list with one (n_tokens,) array a record: the
            log-probabilities of the answer's tokens and of the end of text, in nats.
        """
        task = self.task
        rows = task.as_texts(texts)
        encoded = task.encode_texts(rows)
        head = head_of(self.model, task, encoded)
        if task.of_tokens:
            from expunge.token_scoring import hidden_of

            with processes.alone():
                logp, _ = hidden_of(self.model, head, encoded, task)
            return task.by_record(rows, encoded, logp.numpy())
        with processes.alone():
            _, logits = run_over(self.model, head, encoded, task, keep_hidden=False)
        return task.by_record(rows, encoded, logits.softmax(dim=-1).numpy())

    def generate(self, prompts: Sequence[str], *, tokens: int = 64) -> list[str]:
        """What a causal language model answers, taking the most probable token each time.

        Args:
            prompts: Prompts, joined to their answers as in fine-tuning.
            tokens: Tokens written at most.

        Raises:
            UsageError: The model is a classifier or tagger.
        """
        from expunge.generating import generate

        if not self.task.of_tokens:
            what = f"a {self.task.noun} writes no text"
            raise UsageError(Problem("generate", what, "Use score() for class probabilities."))
        if isinstance(prompts, str) or not all(isinstance(prompt, str) for prompt in prompts):
            what = f"{prompts!r:.60} is no list of texts"
            raise UsageError(Problem("prompts", what, 'Give a list of prompts: generate(["Who was ...?"]).'))
        return generate(self.model, self.task, [(prompt, "") for prompt in prompts], tokens=tokens)

    def save(self, folder: str | Path, *, sign: str | Path | Signer | None = None) -> str:
        """Write model, tokenizer, record.json, report.html, history and model card: the folder is whole or not there.

        Args:
            folder: A folder that does not exist yet, outside every model that was read.
            sign: Private Ed25519 key (PEM file, or read already) to sign this request's link with; takes `cryptography`.

        Returns:
            The head of the history: the hash to remember, by which a history that was cut off can be told. Of several
            processes the first one alone writes; the others get an empty text.

        Raises:
            UsageError: The folder exists, its place cannot be written or lies within a model that was read, the key cannot be
                used, or this was loaded from a folder.
            RunError: Writing failed.
        """
        from expunge.folders import whole_folder
        from expunge.report import render

        if self.prepared is None:
            way_out = "Copy the folder it was loaded from: its history belongs to its files."
            raise UsageError(Problem("save", "a model loaded from a folder lies on disk already", way_out))
        if problems := apart_from_models(expanded(folder, "folder"), self.prepared.config, where="folder"):
            raise UsageError(problems)
        signer = sign if sign is None or isinstance(sign, Signer) else read_signer(expanded(sign, "sign"), where="sign")
        if not processes.first():
            return ""
        with whole_folder(folder) as place:
            try:
                self.model.save_pretrained(place)
            except SafetensorError as error:
                raise RunError(f'writing the model to "{folder}" failed ({error}). Nothing was written.') from error
            self.tokenizer.save_pretrained(place)
            (place / "record.json").write_text(self.record.to_json(), encoding="utf-8")
            (place / "report.html").write_text(render(self.record, str(folder)), encoding="utf-8")
            link = linked(self.prepared, self.record, file_hashes(place), signer)
            links = [*(self.prepared.history.links if self.prepared.history else ()), link]
            write_links(place, links)
            write_card(place, self.prepared.config.model.path, links)
        self.link = link
        return link.sha256

    def forget_next(
        self,
        ids: Sequence[str] | RequestConfig,
        progress: Progress | None = None,
        *,
        method: Any = None,
        past_records: Any = None,
    ) -> Erased:
        """Forget further records of the same training data: the next request of one history.

        Those forgotten before are neither forgotten nor retained, and are measured again: whether any came back.

        Args:
            ids: Ids to forget, or a `RequestConfig` (but `where`: columns are not kept).
            progress: Shows progress.
            method: Another method for this request, or its name.
            past_records: Records of requests before this object's, where the training data hold them no more.

        Raises:
            UsageError: An id is unknown or was forgotten before, nothing would be left to retain, or this was loaded from a
                folder, without its data.
        """
        if self.prepared is None:
            way_out = "Run again on the folder: unlearn(FOLDER, data, method, forget=ids, held_out=...)."
            raise UsageError(Problem("forget_next", "a model loaded from a folder has no data with it", way_out))
        following = next_request(
            self.prepared, ids, self.link or linked(self.prepared, self.record, None, None), self.model,
            method=build_method({"name": method}) if isinstance(method, str) else method,
            past=_sources(past_records),
        )  # fmt: skip
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
    text: str | Sequence[str] = (),
    label: str | None = None,
    id: str | None = None,  # noqa: A002 - the word of the config
    max_length: int | None = None,
    template: str | None = None,
    labels: Sequence[str] = (),
    with_duplicates: bool = False,
    allow_missing: bool = False,
    again: bool = False,
    past_records: Any = None,
    overlap: str = "refuse",
    base: str | None = None,
    recipe: str | None = None,
    retrain_seeds: Sequence[int] = (),
    retrained: Sequence[str] = (),
    training: TrainingConfig | None = None,
    stop: StopConfig | None = None,
    audit: AuditConfig | None = None,
    show_ids: bool = False,
    salt_file: str | None = None,
    trust_remote_code: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Erased:
    """Make a fine-tuned text classifier, tagger or causal language model forget records, and measure how well it did.

    What a model is for is read from its class: `AutoModelForSequenceClassification`, `AutoModelForTokenClassification`
    or `AutoModelForCausalLM`. A tagger's records are sentences: a column with lists of words, one with lists of tags. A
    language model's are prompts with answers, or plain texts.

    Args:
        model: A model folder, a hub id, or a loaded model with its `tokenizer`. It is never changed.
        data: The training data: a path (.csv, .jsonl, .parquet, .conll), hub id, `datasets.Dataset`,
            `pandas.DataFrame` or list of dicts.
        method: A method (`DeepCUT(gamma=0.1)`) or a name from `expunge list`.
        forget: Ids to forget, or the `pathlib.Path` of a file of ids or rows; a share in (0, 1) draws records at random; a
            `RequestConfig` says anything else: ``RequestConfig(mention="John Smith")``.
        held_out: Data never trained on, split by hash into calibration and evaluation halves.
        calibration: Data for the stop rule alone; `held_out` is then used for audits only.
        tokenizer: The tokenizer of a loaded model.
        text: Text column, or two for a pair; left out: ``text``, or ``tokens`` for a tagger.
        label: Label column; left out: ``label``, or ``ner_tags`` for a tagger.
        id: Id column; left out, ids are content hashes.
        max_length: Tokens a record is cut to; left out: the recipe's, else the tokenizer's own limit.
        template: How prompts and answers of a causal language model were joined; left out: the chat template, else a line
            break.
        labels: Class names in the model's order, where the model has none.
        with_duplicates: Forget identical rows too (a `RequestConfig` says so itself, as for near-duplicates and the next).
        allow_missing: Go on when some ids are not in the data.
        again: Erase records once more that an earlier request erased from this model.
        past_records: Records of earlier requests that you still hold: a path, a table in memory, or a list of such. They are
            measured again, never trained on.
        overlap: ``"refuse"`` or ``"drop"`` held-out records that are also in training.
        base: The model the original was fine-tuned from; with `recipe` (a TOML file), retrained models are made.
        recipe: How the original was fine-tuned.
        retrain_seeds: One retrained model a seed.
        retrained: Folders of models retrained already.
        training: Learning rate, batch size and so on.
        stop: When unlearning ends.
        audit: What is measured.
        show_ids: Put raw ids into the record.
        salt_file: File with the secret salt of pseudonyms; left out: your own, made at first use.
        trust_remote_code: Run code that comes with the model.
        seed: Seed of order, dropout and sampling.
        progress: Shows progress, e.g. `expunge.progress.ConsoleProgress()`.

    Raises:
        UsageError: Everything that is wrong with these arguments, at once, before weights load.
        RunError: Training failed; the model given is unchanged.

    Example:
        >>> erased = unlearn(
        ...     "my-model", "train.csv", DeepCUT(), forget=["u17"], held_out="test.csv", id="key"
        ... )  # doctest: +SKIP
        >>> erased.save("erased")  # doctest: +SKIP
    """
    sections = {"training": (training, TrainingConfig), "stop": (stop, StopConfig), "audit": (audit, AuditConfig)}
    if wrong := [
        Problem(name, f"{given!r:.60} is no {kind.__name__}", f"Give expunge.{kind.__name__}(...).")
        for name, (given, kind) in sections.items()
        if given is not None and not isinstance(given, kind)
    ]:
        raise UsageError(wrong)
    loaded = None if _is_path(model) else model
    share = forget if isinstance(forget, float) else None
    file = str(forget) if isinstance(forget, os.PathLike) else None
    named = share is None and file is None and not isinstance(forget, RequestConfig)
    request = RequestConfig(
        file=file, fraction=share, with_duplicates=with_duplicates, allow_missing=allow_missing, seed=seed, again=again
    )
    request = forget if isinstance(forget, RequestConfig) else request
    held = _sources(past_records)
    paths = tuple(str(source) for source in held if _is_path(source))
    request = replace(request, past=(*request.past, *paths))
    config = RunConfig(
        method=build_method({"name": method}) if isinstance(method, str) else method,
        seed=seed,
        model=ModelConfig(
            path="" if loaded is not None else str(model),
            max_length=max_length,
            template=template,
            trust_remote_code=trust_remote_code,
        ),
        data=DataConfig(
            train=str(data) if _is_path(data) else "",
            held_out=str(held_out) if _is_path(held_out) else "",
            calibration=str(calibration) if _is_path(calibration) else None,
            text=(text,) if isinstance(text, str) else tuple(text),
            label=label,
            labels=tuple(_as_list(labels)),
            id=id,
            overlap=overlap,  # pyright: ignore[reportArgumentType]
        ),
        request=request,
        training=training or TrainingConfig(),
        stop=stop or StopConfig(),
        retrain=RetrainConfig(
            enabled=recipe is not None or bool(retrain_seeds),
            base=base,
            recipe=recipe,
            seeds=tuple(retrain_seeds),
            models=tuple(_as_list(retrained)),
        ),
        audit=audit or AuditConfig(),
        privacy=PrivacyConfig(show_ids=show_ids, salt_file=salt_file),
    )
    values = config.as_dict()
    if problems := expand_paths(values):
        raise UsageError(problems)
    config = replace(
        config,
        model=replace(config.model, path=values["model"]["path"]),
        retrain=replace(
            config.retrain, base=values["retrain"]["base"], models=tuple(values["retrain"]["models"])
        ),
    )  # fmt: skip
    inputs = Inputs(
        model=loaded,
        tokenizer=tokenizer,
        train=None if _is_path(data) else data,
        held_out=None if _is_path(held_out) else held_out,
        calibration=None if _is_path(calibration) else calibration,
        forget=_as_list(forget) if named else None,
        past=tuple(source for source in held if not _is_path(source)),
    )
    return execute(check(config, inputs), progress)


def _is_path(source: Any) -> bool:
    return isinstance(source, str | os.PathLike)


def _sources(given: Any) -> list[Any]:
    """Data sources, given alone or as a list of them; a list of dicts is one source."""
    if given is None or (isinstance(given, list | tuple) and not given):
        return []
    several = isinstance(given, list | tuple) and not all(isinstance(row, dict) for row in given)
    return [*given] if several else [given]


def _as_list(values: Any) -> list[Any]:
    return [values] if isinstance(values, str | int | os.PathLike) or np.isscalar(values) else [*values]


def execute(prepared: Prepared, progress: Progress | None = None, paused: PausedRun | None = None) -> Erased:
    """Carry out a checked run: score the original, unlearn, score again, retrain where asked, audit.

    Args:
        prepared: Data and settings.
        progress: Shows progress.
        paused: Where the run keeps what another process could go on from, and finds what one has kept.

    Raises:
        UsageError: The model's weights cannot be used, or several processes cannot share the run.
        RunError: Training failed.
    """
    if problems := unshareable(prepared.config):
        raise UsageError(problems)
    model, record = Run(prepared, progress or Progress(), paused=paused).carry_out()
    return Erased(model, prepared.task.tokenizer, record, prepared, prepared.task)
