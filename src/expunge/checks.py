"""One validation pass before any weight loads: everything that is wrong with a run, all at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

from expunge import adapter, registry, suitability
from expunge.chosen_audits import chosen_audits, lacking
from expunge.config import Recipe, RequestConfig, RunConfig
from expunge.data import sources
from expunge.data.alternatives import read_alternatives
from expunge.data.held_out import again, overlapping, split_halves
from expunge.data.near_duplicates import alike
from expunge.data.records import Records, content_ids, is_text
from expunge.data.request import Resolved, matching, mentioning, read_request, resolve, with_more
from expunge.errors import Collector, Problem, UsageError
from expunge.methods.base import Method
from expunge.privacy import pseudonym, read_salt, salt_path
from expunge.sisa.request import manifest_of, still_there
from expunge.tasks.generation import template_problems
from expunge.tasks.kinds import Task

__all__ = ["Inputs", "Kind", "Prepared", "check", "read_columns", "read_records"]


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
    """

    model: Any = None
    tokenizer: Any = None
    train: Any = None
    held_out: Any = None
    calibration: Any = None
    forget: Sequence[str] | None = None


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
        near_held_out: Held-out records that nearly repeat a record to forget: they are not as if never seen.
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
    near_held_out: int = 0

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
    found.problems.extend(extra)
    model_config, tokenizer, task = suitability.original(config, inputs.model, inputs.tokenizer, found)
    source = inputs.train if inputs.train is not None else config.data.train
    read = found.run(_read, config, inputs.train, config.data.train, "data.train", config.data.train_split)
    if task is not None:  # else the model's own problems come first: nobody knows what columns it takes
        config = _with_columns(config, task, read or {})
    names = None
    if model_config is not None and task is not None and (tokenizer is not None or not task.of_tokens):
        names = found.run(task.names, model_config, tokenizer, config.data.labels)
    found.problems.extend(template_problems(config.model.template))
    found.problems.extend(_fits(config, task, model_config))
    found.problems.extend(suitability.detectable(config, inputs.model, model_config, task))
    found.problems.extend(adapter.problems(config.training.lora_rank))
    kind = Kind(task, names) if task is not None and names else None
    training = found.run(_picked, config, read, "data.train", source) if read else None
    train = found.run(read_records, training, config, kind, "data.train", True) if training and kind else None
    content_key = _content_key(config, kind)
    ids = found.run(read_request, config.request, config.data.id, content_key, inputs.forget, config.data.format)
    selected = found.run(_selected, config.request, training, train, kind) if training else None
    request = None
    if train is not None and (ids or selected or config.request.fraction is not None):
        request = found.run(resolve, train, ids, config.request, selected)
        found.problems.extend(suitability.enough(config, request))
    halves = found.run(_held_out, config, inputs, kind, train, request, found) if kind else None
    recipe = found.run(suitability.comparisons, config, model_config, found)
    if config.request.neighbours is not None and config.retrain.base is None:
        way_out = "Name the model the original was fine-tuned from: --base PATH."
        found.problems.append(Problem("request.neighbours", "there is no base model to compare texts in", way_out))
    if config.request.neighbours is not None and task is not None and task.of_tokens:
        way_out = "Leave it out: near-duplicates are looked for without it."
        what = "neighbours are looked for in an encoder, and the model is a causal language model"
        found.problems.append(Problem("request.neighbours", what, way_out))
    audits = found.run(chosen_audits, config.audit, task, config.method)
    found.problems.extend(lacking(config, audits or {}, train))
    max_length = None
    if tokenizer and model_config:
        max_length = found.run(suitability.max_length, config, recipe, tokenizer, model_config)
    salt = None
    if config.privacy.salt_file or salt_path().exists():
        salt = found.run(read_salt, config.privacy.salt_file)
    manifest = found.run(manifest_of, config.model.path, inputs.model)
    if manifest is not None and train is not None and request is not None:
        request = found.run(still_there, manifest, train.ids, request, ids, salt)
    if train is not None and halves is not None and kind is not None and max_length is not None and not found.problems:
        made = kind.made(config, tokenizer, max_length)
        for where, records in (("data.train", train), ("data.held_out", halves[0]), ("data.held_out", halves[1])):
            found.problems.extend(found.run(made.misfits, records, where) or [])
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
    calibration, evaluation, halved, dropped, near = halves
    return Prepared(
        config=config, task=kind.made(config, tokenizer, max_length), train=train, request=request,
        calibration=calibration, evaluation=evaluation, halved=halved, dropped=dropped, recipe=recipe,
        audits=audits, salt=salt, model=inputs.model, near_held_out=near,
    )  # fmt: skip


@dataclass(frozen=True)
class Kind:
    """The model's task and class names: what records are read by."""

    task: type[Task]
    names: tuple[str, ...]

    def made(self, config: RunConfig, tokenizer: Any, max_length: int) -> Task:
        """The task itself."""
        return self.task(tokenizer, max_length, self.names, **self.task.settings(config.model))  # pyright: ignore[reportCallIssue]


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
        return config.method.misfits(model_config) if isinstance(config.method, Method) else []
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


def read_columns(config: RunConfig, given: Any, path: str, where: str, split: str) -> sources.Columns:
    """The columns of data given in memory or by path, those that are needed among them.

    Raises:
        UsageError: No data, or a column is missing.
    """
    return _picked(config, _read(config, given, path, where, split), where, given if given is not None else path)


def _read(config: RunConfig, given: Any, path: str, where: str, split: str) -> sources.Columns:
    source = given if given is not None else path
    if isinstance(source, str) and not source:
        raise UsageError(Problem(where, "no data is named", f"Set {where} to a file, a saved dataset or a hub id."))
    return sources.read(source, where=where, split=split, file_format=config.data.format)


def _picked(config: RunConfig, columns: sources.Columns, where: str, source: Any) -> sources.Columns:
    wanted = _columns(config)
    if config.data.id is not None and where == "data.train":
        wanted.append(config.data.id)
    if problems := sources.pick(columns, wanted, where=where, source=source):
        raise UsageError(problems)
    return columns


def _columns(config: RunConfig) -> list[str]:
    return [name for name in (*config.data.text, config.data.label) if name]


def read_records(columns: sources.Columns, config: RunConfig, kind: Kind, where: str, with_ids: bool) -> Records:
    """The records in columns.

    Raises:
        UsageError: Every problem of texts, labels and ids.
    """
    found = Collector()
    read = found.run(kind.task.read, columns, config.data.text, config.data.label, kind.names, where=where)
    ids: list[str] = []
    if with_ids and config.data.id is not None:
        ids = found.run(_given_ids, columns[config.data.id], config.data.id, where) or []
    others: tuple[tuple[str, ...], ...] = ()
    if kind.task.of_tokens and config.data.label:
        data = config.data
        others = found.run(
            read_alternatives, columns, data.paraphrased, data.perturbed, where=where, needed=where == "data.train"
        ) or ()  # fmt: skip
    found.finish()
    texts, labels = read
    made = tuple(ids or content_ids(texts, labels))
    return Records(made, texts, labels, made_ids=not ids, alternatives=others)


def _given_ids(values: Sequence[Any], column: str, where: str) -> list[str]:
    ids = [_id_text(value) for value in values]
    empty = sum(not record_id for record_id in ids)
    twice = [record_id for record_id, count in Counter(ids).items() if count > 1 and record_id]
    problems = []
    if empty:
        what = f"{empty} rows have no id in column {column}"
        problems.append(
            Problem(where, what, "Give every row an id, or leave data.id out: ids are then made from content.")
        )
    if twice:
        what = f'{len(twice)} ids stand in several rows, such as "{twice[0]}", in column {column}'
        problems.append(
            Problem(where, what, "Ids must be unique; or leave data.id out: ids are then made from content.")
        )
    if problems:
        raise UsageError(problems)
    return ids


def _id_text(value: Any) -> str:
    """An id as text; whole numbers without decimals (a column with gaps is read as floats), nothing for no id."""
    if value is None or value != value:
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    text = str(value)
    return text if is_text(text) else ""


def _content_key(config: RunConfig, kind: Kind | None) -> Any:
    def key(columns: sources.Columns) -> list[str]:
        wanted = _columns(config)
        if problems := sources.pick(columns, wanted, where="request.file", source=config.request.file):
            raise UsageError(problems)
        if kind is None:
            return ["unresolved"]  # the model's own problems come first
        return list(read_records(columns, config, kind, "request.file", False).ids)

    return key


def _held_out(
    config: RunConfig, inputs: Inputs, kind: Kind, train: Records | None, request: Resolved | None, found: Collector
) -> tuple[Records, Records, bool, int, int] | None:
    forget = train.take(request.forget) if train is not None and request is not None else None
    forgotten = set(forget.ids) if forget is not None else set()
    read = []
    for where, given, path in (
        ("data.held_out", inputs.held_out, config.data.held_out),
        ("data.calibration", inputs.calibration, config.data.calibration),
    ):
        if given is None and path is None:
            continue
        columns = found.run(read_columns, config, given, path, where, config.data.held_out_split)
        records = found.run(read_records, columns, config, kind, where, False) if columns else None
        if records is None:
            return None
        named = again(list(map(_id_text, columns.get(config.data.id, ()))), forgotten)
        read.append((where, records, named))
    dropped = near = 0
    kept = []
    for where, records, named in read:
        inside = overlapping(records, train.texts) if train is not None else []
        way_out = 'Held-out records must be unseen. --drop-overlap (data.overlap = "drop") leaves them out.'
        if inside and config.data.overlap == "refuse":
            what = f"{len(inside)} of {len(records)} held-out records are also in the training data"
            found.problems.append(Problem(where, what, way_out))
        if named and config.data.overlap == "refuse":
            what = f"{len(named)} of {len(records)} held-out records have the id of a record to forget"
            found.problems.append(Problem(where, what, way_out))
        like = _nearly(forget, records, config.request.near_duplicates) - {*inside, *named} if forget else set()
        if config.data.overlap == "refuse":
            near += len(like)
            like = set()
        outside = set(range(len(records))) - {*inside, *named, *like}
        dropped += len(records) - len(outside)
        kept.append(records.take(sorted(outside)))
    halved = len(kept) == 1
    if halved:
        calibration, evaluation = (kept[0].take(half) for half in split_halves(kept[0]))
    else:
        evaluation, calibration = kept
        shared = overlapping(calibration, evaluation.texts)
        if shared:
            what = f"{len(shared)} calibration records are also in data.held_out"
            found.problems.append(Problem("data.calibration", what, "Give files without common records."))
    if not found.problems and min(len(calibration), len(evaluation)) < 2:
        what = f"{len(calibration)} calibration and {len(evaluation)} evaluation records are left"
        found.problems.append(
            Problem("data.held_out", what, "Give more held-out records; some hundred make useful figures.")
        )
    return calibration, evaluation, halved, dropped, near


def _nearly(forget: Records, held_out: Records, threshold: float) -> set[int]:
    """Positions of held-out records that nearly repeat a record to forget."""
    return {place for _, place, _ in alike(forget.texts, held_out.texts, threshold, of_words=held_out.of_words)}
