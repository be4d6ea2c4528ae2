"""One validation pass before any weight loads: everything that is wrong with a run, all at once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from expunge import adapter, model_kinds, registry, suitability
from expunge.apart import cache_apart
from expunge.chosen_audits import chosen_audits, lacking
from expunge.config import Recipe, RequestConfig, RunConfig
from expunge.data import sources
from expunge.data.held_out import again, at_most, overlapping, split_halves
from expunge.data.ids import id_text
from expunge.data.near_duplicates import alike
from expunge.data.records import Records
from expunge.data.request import Resolved, matching, mentioning, read_request, resolve, with_more
from expunge.errors import Collector, Problem, UsageError
from expunge.history.earlier import History, held_records, history_of, kept_out
from expunge.methods.base import Method
from expunge.privacy import named_salt, pseudonym, read_salt, salt_there
from expunge.reading import Kind, content_key, picked, read_columns, read_records, read_source
from expunge.sisa.request import manifest_of, still_there
from expunge.tasks.generation import template_problems
from expunge.tasks.kinds import Task
from expunge.verdict import LEAST_RECORDS

__all__ = ["Inputs", "Kind", "Prepared", "check", "nearly", "read_columns", "read_records"]


@dataclass(frozen=True)
class Inputs:
    """Objects in memory that take the place of what the config names.

    Attributes:
        model: A loaded model; needs `tokenizer`.
        tokenizer: Its tokenizer.
        train: Training data, anything `expunge.data.sources.read` takes.
        held_out: Held-out data, likewise.
        calibration: Calibration data, likewise.
        forget: Ids to forget.
        past: Records of earlier requests, each likewise.
    """

    model: Any = None
    tokenizer: Any = None
    train: Any = None
    held_out: Any = None
    calibration: Any = None
    forget: Sequence[str] | None = None
    past: Sequence[Any] = ()


@dataclass(frozen=True)
class Prepared:
    """A run that passed its checks: records split, names resolved, nothing loaded but the tokenizer.

    Attributes:
        config: The configuration, with the columns of the task where none were named.
        task: Encodes and collates records.
        train: Training records.
        request: Which of them to forget.
        calibration: Held-out records for the stop rule.
        evaluation: Held-out records for the audits.
        halved: Whether one held-out file was split into these two.
        dropped: Held-out records left out because they are in training.
        recipe: How retrained models are made, where wanted.
        audits: The audits, built.
        salt: The user's salt.
        model: The model in memory, where one was given.
        unused: Held-out records beyond `data.held_out_sample`.
        near_held_out: Held-out records that nearly repeat a record to forget: they are not as if never seen.
        history: Earlier requests that were carried out on the model, where there are any.
        past: Number of an earlier request -> its records, as far as they are held.
        strange: Records that were given as of earlier requests and are of none.
        erased_held_out: Held-out records left out because an earlier request erased them.
    """

    config: RunConfig
    task: Task
    train: Records
    request: Resolved
    calibration: Records
    evaluation: Records
    halved: bool
    dropped: int
    recipe: Recipe | None
    audits: dict[str, Any]
    salt: bytes
    model: Any
    unused: int = 0
    near_held_out: int = 0
    history: History | None = None
    past: Mapping[int, Records] = field(default_factory=dict)
    strange: int = 0
    erased_held_out: int = 0

    def shown(self, record_id: str) -> str:
        """An id as reports may show it: its pseudonym, unless raw ids are wanted."""
        return record_id if self.config.privacy.show_ids else pseudonym(self.salt, record_id)

    @property
    def duplicates_left(self) -> frozenset[str]:
        """Ids of retained records that say the same, or nearly, as one to forget: with them the erasure is incomplete."""
        return self.request.left & {self.train.ids[i] for i in self.request.retain}

    def left(self) -> dict[str, int]:
        """How many duplicates are retained, by kind: ``identical``, ``near``, ``neighbour``."""
        stays, near = self.duplicates_left, self.request.near
        kinds = {kind: stays & {match.other for match in near if match.kind == kind} for kind in ("near", "neighbour")}
        counts = {kind: len(found) for kind, found in kinds.items()}
        return {"identical": len(stays) - sum(counts.values()), **counts}


def check(config: RunConfig, inputs: Inputs | None = None, extra: Sequence[Problem] = ()) -> Prepared:
    """Validate a run.

    Args:
        config: The configuration.
        inputs: Objects in memory, in place of paths.
        extra: Problems found elsewhere (the output folder's, say), raised with the others.

    Raises:
        UsageError: Every problem found.
    """
    inputs = inputs or Inputs()
    found = Collector()
    model_config, tokenizer, task = suitability.original(config, inputs.model, inputs.tokenizer, found)
    source = inputs.train if inputs.train is not None else config.data.train
    read = found.run(read_source, config, inputs.train, config.data.train, "data.train", config.data.train_split)
    if task is not None:  # else the model's own problems come first: nobody knows what columns it takes
        config = _with_columns(config, task, read or {})
    names = None
    if model_config is not None and task is not None and (tokenizer is not None or not task.of_tokens):
        names = found.run(task.names, model_config, tokenizer, config.data.labels)
    found.problems.extend(template_problems(config.model.template))
    found.problems.extend(_fits(config, task, model_config))
    found.problems.extend(found.run(model_kinds.beside, config, inputs.model, model_config, tokenizer, task) or [])
    found.problems.extend(model_kinds.detectable(config, inputs.model, model_config, task))
    found.problems.extend(adapter.problems(config.training.lora_rank))
    found.problems.extend(cache_apart(config))
    kind = Kind(task, names) if task is not None and names else None
    training = found.run(picked, config, read, "data.train", source) if read else None
    train = found.run(read_records, training, config, kind, "data.train", True) if training and kind else None
    key = content_key(config, kind)
    ids = found.run(read_request, config.request, config.data.id, key, inputs.forget, config.data.format)
    selected = found.run(_selected, config.request, training, train, kind) if training else None
    request = None
    if train is not None and (ids or selected or config.request.fraction is not None):
        request = found.run(resolve, train, ids, config.request, selected)
        found.problems.extend(model_kinds.enough(config, request))
    known = named_salt(config.privacy.salt_file) is not None or found.run(salt_there) is not False
    salt = found.run(read_salt, config.privacy.salt_file) if known else None
    history, held, strange = None, {}, 0
    past = found.run(_past, config, inputs, kind) if kind else None
    if train is not None and past is not None and (salt is not None or not known):
        history = found.run(
            history_of, config, inputs.model, salt, train.ids, [i for _, rows in past for i in rows.ids]
        )
    if history is not None and train is not None and past is not None:
        held, strange = found.run(held_records, history, train, past) or ({}, 0)
    manifest = found.run(manifest_of, config.model.path, inputs.model)
    if manifest is not None and train is not None and request is not None:
        request = found.run(still_there, manifest, train.ids, request, ids, salt)
    if history is not None and request is not None:
        request = found.run(kept_out, history, train, request, ids, again=config.request.again)
    halves = found.run(_held_out, config, inputs, kind, train, request, history, found)
    if config.audit.require is not None and request is not None and len(request.forget) < LEAST_RECORDS:
        count = len(request.forget)
        few = f"{count} record{'s' if count > 1 else ''}"
        what = f"{config.audit.require} is required of {few}, and a verdict needs {LEAST_RECORDS}"
        way_out = "Leave it out and read the records' table, or gather requests until there are as many."
        found.problems.append(Problem("audit.require", what, way_out))
    recipe = found.run(suitability.comparisons, config, model_config, found)
    found.problems.extend(suitability.of_neighbours(config, task))
    found.problems.extend(suitability.rewinding(config))
    found.problems.extend(suitability.low_rank(config))
    audits = found.run(chosen_audits, config.audit, task, config.method)
    found.problems.extend(lacking(config, audits or {}, train))
    max_length = None
    if tokenizer and model_config:
        max_length = found.run(suitability.max_length, config, recipe, tokenizer, model_config)
    if past and history is None and not found.problems:
        what = "the model has no earlier requests that records could be of"
        found.problems.append(Problem("request.past", what, "Leave --past-records out, or name the unlearned model."))
    if train is not None and halves is not None and kind is not None and max_length is not None and not found.problems:
        made = kind.made(config, tokenizer, max_length)
        groups = [("data.train", train), *(("data.held_out", half) for half in halves[:2])]
        for where, records in (*groups, *(("request.past", rows) for _, rows in past or ())):
            found.problems.extend(found.run(made.misfits, records, where) or [])
    found.problems[:0] = extra
    found.finish()
    salt = salt or read_salt()  # made now, when nothing else is wrong
    assert max_length is not None
    assert train is not None  # a problem would have been found otherwise, here and below
    assert request is not None
    assert halves is not None
    assert kind is not None
    if config.request.neighbours is not None:
        from expunge.neighbours import neighbours

        task_ = kind.made(config, tokenizer, max_length)
        request = with_more(train, request, neighbours(config, task_, train, request))
    calibration, evaluation, halved, dropped, unused, near, erased_held_out = halves
    return Prepared(
        config=config, task=kind.made(config, tokenizer, max_length), train=train, request=request,
        calibration=calibration, evaluation=evaluation, halved=halved, dropped=dropped, unused=unused,
        recipe=recipe, audits=audits, salt=salt, model=inputs.model, near_held_out=near, history=history,
        past=held, strange=strange, erased_held_out=erased_held_out,
    )  # fmt: skip


def _with_columns(config: RunConfig, task: type[Task], there: sources.Columns) -> RunConfig:
    """The columns named, else the task's own, else the first others that the training data has."""
    data = config.data
    text, label = data.text or task.text_columns, task.label_column if data.label is None else data.label
    if task.other_columns and not data.text and data.label is None:
        for own_text, own_label in ((text, label), *task.other_columns):
            if all(name in there for name in (*own_text, own_label) if name):
                text, label = own_text, own_label
                break
    elif data.label is None:
        label = dict(task.other_columns).get(data.text, label)
    return replace(config, data=replace(data, text=text, label=label))


def _fits(config: RunConfig, task: type[Task] | None, model_config: Any) -> list[Problem]:
    """Methods that only know classes, for a model that writes tokens, or the other way round."""
    if task is None:
        return []
    needed = "tokens" if task.of_tokens else "classes"
    if needed in config.method.units:
        found = config.method.misfits(model_config) if isinstance(config.method, Method) else []
        if task.of_tokens and getattr(config.method, "average", None) == "classes":
            way_out = 'Leave it out ("auto"): tokens weigh by how much they tell.'
            found = [*found, Problem("method.average", '"classes" is not for models that write tokens', way_out)]
        return found
    known = [n for n in registry.names("methods") if needed in registry.find("methods", n).units]
    name = registry.name_of("methods", type(config.method))
    return [Problem("method.name", f"{name} does not work for a {task.noun}", f"These do: {', '.join(known)}.")]


def _selected(
    request: RequestConfig, columns: sources.Columns, train: Records | None, kind: Kind | None
) -> list[int] | None:
    """Positions that a rule of the request selects; None where it names ids or a share, or records cannot be read."""
    if request.where is not None:
        return matching(columns, request.where)
    if train is None or kind is None:
        return None
    if request.mention is not None:
        return mentioning(train.texts, request.mention, apart=not train.of_words)
    if request.label is None:
        return None
    if found := kind.task.labelled(train.labels, request.label, kind.names):
        return found
    what = f'no record of the training data carries "{request.label}"'
    raise UsageError(Problem("request.label", what, "Name a class that is there."))


def _past(config: RunConfig, inputs: Inputs, kind: Kind) -> list[tuple[str, Records]]:
    """Records given as those of earlier requests, by where they come from."""
    where, split, read, found = "request.past", config.data.train_split, [], Collector()
    for shown, given in (*((p, None) for p in config.request.past), *(("the records given", g) for g in inputs.past)):
        columns = found.run(read_columns, config, given, shown, where, split)
        records = found.run(read_records, columns, config, kind, where, True) if columns else None
        if records is not None:
            read.append((shown, records))
    found.finish()
    return read


def _held_out(
    config: RunConfig, inputs: Inputs, kind: Kind | None, train: Records | None, request: Resolved | None,
    history: History | None, found: Collector,
) -> tuple[Records, Records, bool, int, int, int, int] | None:  # fmt: skip
    forget = train.take(request.forget) if train is not None and request is not None else None
    forgotten = set(forget.ids) if forget is not None else set()
    read = []
    for where, given, path in (
        ("data.held_out", inputs.held_out, config.data.held_out),
        ("data.calibration", inputs.calibration, config.data.calibration),
    ):
        if given is None and path is None:
            continue
        if kind is None:  # nobody knows what columns the model takes, but whether there are any
            found.run(read_source, config, given, path, where, config.data.held_out_split)
            continue
        columns = found.run(read_columns, config, given, path, where, config.data.held_out_split)
        records = found.run(read_records, columns, config, kind, where, False) if columns else None
        if records is None:
            return None
        own = list(map(id_text, columns.get(config.data.id, ())))
        names = list(records.ids) if config.data.id is None else own
        erased = again(names, history.requests_of(names)) if history is not None else []
        read.append((where, records, again(own, forgotten), erased))
    if kind is None:
        return None
    dropped = near = gone = 0
    kept = []
    for where, records, named, erased in read:
        inside = overlapping(records, train.texts) if train is not None else []
        way_out = 'Held-out records must be unseen. --drop-overlap (data.overlap = "drop") leaves them out.'
        if inside and config.data.overlap == "refuse":
            what = f"{len(inside)} of {len(records)} held-out records are also in the training data"
            found.problems.append(Problem(where, what, way_out))
        if named and config.data.overlap == "refuse":
            what = f"{len(named)} of {len(records)} held-out records have the id of a record to forget"
            found.problems.append(Problem(where, what, way_out))
        like = nearly(forget, records, config.request.near_duplicates) - {*inside, *named} if forget else set()
        if config.data.overlap == "refuse":
            near += len(like)
            like = set()
        outside = set(range(len(records))) - {*inside, *named, *like}
        dropped += len(records) - len(outside)
        gone += len(outside.intersection(erased))
        outside -= set(erased)
        kept.append(records.take(sorted(outside)))
    halved = len(kept) == 1
    if halved:
        calibration, evaluation = (kept[0].take(half) for half in split_halves(kept[0]))
    else:
        evaluation, calibration = kept
        shared = overlapping(calibration, evaluation.texts)
        if shared and config.data.overlap == "drop":
            calibration = calibration.take(sorted(set(range(len(calibration))) - set(shared)))
            dropped += len(shared)
        elif shared:
            what = f"{len(shared)} calibration records are also in data.held_out"
            way_out = 'Give files without common records. --drop-overlap (data.overlap = "drop") leaves them out here.'
            found.problems.append(Problem("data.calibration", what, way_out))
    held = len(calibration) + len(evaluation)
    calibration, evaluation = (at_most(half, config.data.held_out_sample) for half in (calibration, evaluation))
    unused = held - len(calibration) - len(evaluation)
    if not found.problems and min(len(calibration), len(evaluation)) < 2:
        what = f"{len(calibration)} calibration and {len(evaluation)} evaluation records are left"
        found.problems.append(
            Problem("data.held_out", what, "Give more held-out records; some hundred make useful figures.")
        )
    return calibration, evaluation, halved, dropped, unused, near, gone


def nearly(forget: Records, held_out: Records, threshold: float) -> set[int]:
    """Positions of held-out records that nearly repeat a record to forget."""
    return {place for _, place, _ in alike(forget.texts, held_out.texts, threshold, of_words=held_out.of_words)}
