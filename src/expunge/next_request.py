"""The next request on a model in memory: resolved against the same data, beside everything erased before."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from expunge.checks import Prepared, nearly
from expunge.chosen_audits import chosen_audits
from expunge.config import RequestConfig, RunConfig
from expunge.data.records import Records
from expunge.data.request import mentioning, read_request, resolve, with_more
from expunge.errors import Problem, UsageError
from expunge.history.earlier import History, held_records, kept_out
from expunge.history.link import Link
from expunge.methods.base import trains_the_model
from expunge.model_kinds import beside, detectable, unfit_kind
from expunge.reading import Kind, content_key, read_columns, read_records
from expunge.suitability import of_neighbours, rewinding

__all__ = ["next_request"]


def next_request(
    before: Prepared, asked: Sequence[str] | RequestConfig, link: Link, model: Any, *, method: Any = None,
    past: Sequence[Any] = (),
) -> Prepared:  # fmt: skip
    """A run that follows another one on its model.

    Args:
        before: The run that made the model.
        asked: Ids, or a request by ids, file, mention, class or share.
        link: What the history records of that run.
        model: What it left.
        method: Another method; left out: the same.
        past: Records of earlier requests, anything `expunge.data.sources.read` takes.

    Raises:
        UsageError: The request cannot be resolved, or the method does not fit the model.
    """
    request = _asked(before, asked)
    named = tuple(path for path in request.past if path not in before.config.request.past)
    config = replace(before.config, request=replace(request, past=(*before.config.request.past, *named)))
    if method is not None:
        training = (
            config.training
            if trains_the_model(method)
            else replace(config.training, rewind=0.0, rewind_first=0.0, lora_rank=0)
        )
        config = replace(config, method=method, training=training)
        _must_fit(config, before, model)
    if problems := of_neighbours(config, before.task):
        raise UsageError(problems)
    kind = Kind(type(before.task), tuple(before.task.label_names))
    data, train = config.data, before.train
    ids = read_request(request, data.id, content_key(config, kind), None, data.format)
    selected = _selected(before, request)
    history = (before.history or History((), before.salt)).followed_by(link)
    given = [("", records) for records in before.past.values()]
    for source in (*named, *past):
        columns = read_columns(config, source, "", "request.past", data.train_split)
        given.append(("the records given", read_records(columns, config, kind, "request.past", True)))
    resolved = kept_out(history, train, resolve(train, ids, request, selected), ids, again=request.again)
    if request.neighbours is not None:
        from expunge.neighbours import neighbours

        resolved = with_more(train, resolved, neighbours(config, before.task, train, resolved))
    held, strange = held_records(history, train, given)
    calibration, evaluation, near = _unlike(config, before, train.take(resolved.forget))
    audits = before.audits if method is None else chosen_audits(config.audit, before.task, method)
    return replace(
        before, config=config, audits=audits, request=resolved, calibration=calibration, evaluation=evaluation,
        near_held_out=near, model=model, history=history, past=held, strange=strange,
    )  # fmt: skip


def _unlike(config: RunConfig, before: Prepared, forget: Records) -> tuple[Records, Records, int]:
    """Both held-out halves, without what nearly repeats a record to forget where that is dropped, else how many do."""
    halves, count = [], 0
    for half in (before.calibration, before.evaluation):
        like = nearly(forget, half, config.request.near_duplicates)
        if config.data.overlap == "drop":
            halves.append(half.take([i for i in range(len(half)) if i not in like]))
        else:
            halves.append(half)
            count += len(like)
    return halves[0], halves[1], count


def _asked(before: Prepared, asked: Sequence[str] | RequestConfig) -> RequestConfig:
    """The request; ids alone take the settings of the run before."""
    if isinstance(asked, RequestConfig):
        if asked.where is not None:
            what = "a condition on columns cannot be met: only texts, labels and ids are kept in memory"
            raise UsageError(Problem("request.where", what, "Name the ids, or save the model and use `expunge run`."))
        return asked
    settings = before.config.request
    ids = (asked,) if isinstance(asked, str | int) else asked
    return RequestConfig(
        ids=tuple(str(i) for i in ids), seed=settings.seed, with_duplicates=settings.with_duplicates,
        allow_missing=settings.allow_missing, with_near_duplicates=settings.with_near_duplicates,
        near_duplicates=settings.near_duplicates, neighbours=settings.neighbours,
    )  # fmt: skip


def _selected(before: Prepared, request: RequestConfig) -> list[int] | None:
    """Positions that a mention or a class selects."""
    train, task = before.train, before.task
    if request.mention is not None:
        return mentioning(train.texts, request.mention, apart=not train.of_words)
    if request.label is None:
        return None
    if found := type(task).labelled(train.labels, request.label, task.label_names):
        return found
    what = f'no record of the training data carries "{request.label}"'
    raise UsageError(Problem("request.label", what, "Name a class that is there."))


def _must_fit(config: RunConfig, before: Prepared, model: Any) -> None:
    """A method for what the model is: classes or tokens, an ensemble, a pair beside a model, or one model alone."""
    method = config.method
    found = unfit_kind(method, model)
    if not found:
        task = type(before.task)
        found += beside(config, model, model.config, before.task.tokenizer, task)
        found += detectable(config, model, model.config, task)
    units = "tokens" if before.task.of_tokens else "classes"
    if units not in method.units:
        what = f"{type(method).__name__} does not work for this {before.task.noun}"
        found.append(Problem("method", what, "`expunge list` names the methods there are."))
    if method.needs_base and (config.retrain.base is None or before.recipe is None):
        what = f"{type(method).__name__} needs the base model and the recipe, and the first run had none"
        found.append(Problem("method", what, "Give base and recipe to unlearn()."))
    else:
        found.extend(rewinding(config))
    if found:
        raise UsageError(found)
