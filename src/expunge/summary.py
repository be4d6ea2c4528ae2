"""A run in words: the table, how it ended and what it cost, the verdict."""

from __future__ import annotations

from typing import Any

from expunge.record import Measurement, RunRecord

__all__ = [
    "LEAST_FIT",
    "MODELS",
    "facts",
    "history_lines",
    "interval",
    "limits",
    "near_held_out",
    "not_used",
    "print_summary",
    "record_columns",
    "stdout",
    "table",
    "unfit",
    "warnings",
]

MODELS = ("original", "unlearned", "retrained")


def table(record: RunRecord) -> list[tuple[str, dict[str, Measurement]]]:
    """Rows of the main table: what is measured, and the measurement of each model."""
    rows: dict[tuple[str, str], dict[str, Measurement]] = {}
    for m in record.measurements:
        name = "token accuracy" if m.name == "accuracy" and m.audit == "utility" and _writes(record) else m.name
        rows.setdefault((m.audit, f"{name}, {m.group}"), {})[m.model] = m
    return [(name, by_model) for (_, name), by_model in rows.items()]


_OF_EVERY_ROW = {"id", "named", "duplicates", "alike", "percentile", *MODELS}


def record_columns(record: RunRecord) -> list[tuple[str, list[str]]]:
    """What audits say of single records: name of a column -> one text a record, a figure with its interval in one."""
    names = [name for name in (record.records[0] if record.records else ()) if name not in _OF_EVERY_ROW]
    columns = []
    for name in names:
        if name.removesuffix(", low").removesuffix(", high") == name:
            ends = [f"{name}, low", f"{name}, high"]
            ends = ends if set(ends) <= set(names) else []
            shown = "memorised by the original" if name == "memorised" else name
            columns.append((shown, [_cell(row[name], [row[end] for end in ends]) for row in record.records]))
    return columns


def _cell(value: Any, ends: list[Any]) -> str:
    if value is None:
        return "not measured"
    if not isinstance(value, float):
        return str(value)
    return f"{value:z.2f}" + (f" [{ends[0]:z.2f}, {ends[1]:z.2f}]" if ends else "")


def limits(record: RunRecord) -> list[str]:
    """What the evidence of this run cannot show, whatever its figures are."""
    if record.verdict["evidence"] != "population":
        count = len(record.models["retrained"])
        few = "One retrained model does not show how far retrained models differ among themselves: more seeds would."
        return [few] if count == 1 else []
    return [
        "What the model would say of each record had it never been trained on: only a retrained model says that (--retrain).",
        "Whether forget records are by nature easier or harder than records never seen: if so, looking like these is not the "
        "right goal, and these figures cannot know.",
        "How far models differ by the luck of a seed: there is no noise floor.",
    ]


def interval(m: Measurement | None) -> str:
    """A figure with its interval, e.g. ``0.827 [0.76, 0.88]``."""
    return "" if m is None else f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]"


def stdout() -> Any:
    """A rich console on stdout; 140 columns wide where that is no terminal. Texts are shown as they are, cells too."""
    from rich.console import Console

    as_is: dict[str, Any] = {"highlight": False, "markup": False, "emoji": False}  # ids and names are no markup
    console = Console(**as_is)
    return console if console.is_terminal else Console(**as_is, width=140)


def print_summary(record: RunRecord) -> None:
    """Print the table, cost and verdict to stdout."""
    from rich.table import Table

    console = stdout()
    confidence = record.config["audit"]["confidence"]
    grid = Table(title=f"Figures with {confidence:.0%} intervals", title_justify="left")
    grid.add_column("measure")
    grid.add_column("n", justify="right")
    shown = [model for model in MODELS if any(m.model == model for m in record.measurements)]
    for column in shown:
        grid.add_column(column)
    if "retrained" in shown:
        grid.add_column("gap")
    for name, by_model in table(record):
        first = next(iter(by_model.values()))
        cells = [name, str(first.n), *(interval(by_model.get(model)) for model in shown)]
        if "retrained" in shown:
            gap = by_model["unlearned"].gap if "unlearned" in by_model else None
            cells.append("" if gap is None else f"{gap:.3f}")
        grid.add_row(*cells)
    console.print(grid)
    verdict = record.verdict
    last = f"Verdict ({verdict['evidence']}, {verdict['outcome']}): {verdict['sentence']}"
    found = [f"{finding.kind.capitalize()} ({finding.audit}): {finding.sentence}" for finding in record.findings]
    unknown = [f"Not shown by this run: {line[0].lower()}{line[1:]}" for line in limits(record)[:1]]
    for line in (*facts(record), *history_lines(record), *warnings(record), *found, *unknown, last):
        console.print(line)


LEAST_FIT = 0.6
"""Accuracy of an original on its own training records below which something is probably mixed up."""
_LEAST_F1 = 0.3


def near_held_out(count: int) -> str:
    """What to say of held-out records that nearly repeat one to forget."""
    what = f"{count} held-out records nearly repeat one to forget, so they are not as if never seen"
    return f"{what}: --drop-overlap leaves them out."


def not_used(count: int, most: int) -> str:
    """What to say of held-out records beyond `data.held_out_sample`."""
    return f"{count} held-out records are left unused: {most} a half are looked at, at most (data.held_out_sample)."


def unfit(accuracy: float, tokens: bool = False) -> str:
    """What to say of an original that does not fit the data it is said to be trained on; of `tokens` where it writes."""
    what = "tokens of the answers it was trained on" if tokens else "training data"
    return _mixed_up(f"is right on only {accuracy:.0%} of the {what}", tokens)


def _mixed_up(what: str, tokens: bool = False) -> str:
    if tokens:
        return (
            f"The original {what}. Are these its training data, and are prompts and answers joined as in its fine-tuning "
            "(--template)?"
        )
    return f"The original {what}. Are these its training data, and --labels, --label and --model as they should be?"


def warnings(record: RunRecord) -> list[str]:
    """What the reader must not overlook."""
    found = []
    fit = record.find("accuracy", "original", "retain")
    if fit is not None and fit.value < LEAST_FIT:
        found.append(unfit(fit.value, _writes(record)))
    fit = record.find("entity F1", "original", "retain")  # most words are no entity: accuracy alone says little
    if fit is not None and fit.value < _LEAST_F1:
        found.append(_mixed_up(f"has an entity F1 of only {fit.value:.2f} on the training data"))
    if cut := record.data.get("words_cut"):
        what, whole = ("tokens of answers", "record") if _writes(record) else ("words", "sentence")
        found.append(
            f"{cut} {what} lie behind the {record.data['max_length']} tokens a {whole} is cut to: they were neither "
            "unlearned nor measured. --max-length may be higher."
        )
    history = record.training["history"]
    alone = sum(row.get("anchors_without_same_class", 0) for row in history)
    if alone and alone == sum(row.get("anchors", 0) for row in history):
        what = "No forget record had a retained record of its class to be pushed away from: the forgetting term was 0."
        deepcut = record.config["method"]["name"] == "deepcut"
        found.append(what + " To forget a whole class use the method gradient-difference." * deepcut)
    if near := record.request.get("near_held_out"):
        found.append(near_held_out(near))
    if record.request["missing"]:
        found.append(f"{record.request['missing']} requested ids are not in the training data.")
    if record.data["held_out_dropped"]:
        told = "that stand in the training data, or in both held-out files,"
        found.append(f"{record.data['held_out_dropped']} held-out records {told} were left out.")
    if unused := record.data.get("held_out_unused"):
        found.append(not_used(unused, record.config["data"]["held_out_sample"]))
    if record.verdict["outcome"] == "not reached":
        found += _hint(record, record.verdict["classes"][record.verdict["evidence"]]["criteria"])
    return found


def _writes(record: RunRecord) -> bool:
    """Whether the model is a language model."""
    return record.data.get("task") == "generation"


def _hint(record: RunRecord, criteria: list[dict[str, Any]]) -> list[str]:
    """What to try, beside what it was, where the forget records stand too high or too low."""
    sides = {criterion["side"] for criterion in criteria} & {"low", "high"}
    if not sides:
        return []
    method, training = record.config["method"]["name"], record.config.get("training", {})
    found = []
    if record.training["history"]:
        rate, epochs = training.get("learning_rate", 0.0), training.get("epochs", 0.0)
        looked = [check["step"] for check in record.training.get("checks", ())]
        if "low" in sides:
            found.append(f"--set training.learning_rate={rate / 3:.2g} (it was {rate:g})")
            if len(looked) > 1 and looked[-1] - looked[-2] > 1:
                steps = ", ".join(map(str, looked))
                found.append(f"--set stop.every={(looked[-1] - looked[-2]) // 2} (checks were at steps {steps})")
        else:
            found.append(f"--set training.epochs={2 * epochs:g} (it was {epochs:g})")
            found.append(f"--set training.learning_rate={3 * rate:.2g} (it was {rate:g})")
    return [f"To try: {'; '.join([*found, f'the settings of the method, or another one (expunge show {method})'])}."]


def facts(record: RunRecord) -> list[str]:
    """Lines on how the run ended and what it cost."""
    training, cost = record.training, record.cost
    kept = training.get("kept_step", 0)
    lines = [f"Ended: {training['reason']}; weights of step {kept} of {training['steps']} kept{_why(training, kept)}."]
    if first := record.config.get("training", {}).get("rewind_first"):
        lines.append(f"Its steps began {first:.0%} of the way back to the base.")
    if "rewound" in training:
        share = record.config["training"]["rewind"]
        lines.append(
            f"Then {share:.0%} of the way back to the base: AUC {training['rewound']['auc']:.3f} over records never seen."
        )
    if not training["history"]:
        lines = [f"Method: {training['reason']}."]
    price = f"Cost: {cost['total']:.0f} example-passes"
    if cost["ratio_to_retraining"] is not None:
        price += f", {cost['ratio_to_retraining']:.1%} of retraining's {cost['retraining']:.0f}"
    lines.append(price + f"; {_seconds(record, 'unlearn')}.")
    if "retrain" in record.timings:
        lines[-1] = lines[-1][:-1] + f" against {_seconds(record, 'retrain')} of retraining."
    return lines


def history_lines(record: RunRecord) -> list[str]:
    """Lines on the requests that were carried out on the model before; none where this was the first."""
    known = record.history
    if not known.get("earlier"):
        return []
    lines = [f"History: request {known['number']} of this model."]
    if known["kept_out"]:
        lines[0] += (
            f" {known['kept_out']} training records erased by earlier requests were neither forgotten nor retained."
        )
    if known["erased_held_out"]:
        lines[0] += f" {known['erased_held_out']} held-out records that they erased were left out."
    for row in known["earlier"]:
        if "not_measured" in row:
            lines.append(f"Request {row['number']} ({row['records']} records): not measured, {row['not_measured']}.")
            continue
        before, after = (f"{row[side]['auc']['value']:.3f}" for side in ("before", "after"))
        ends = f"[{row['after']['auc']['low']:.3f}, {row['after']['auc']['high']:.3f}]"
        told = "came back" if row["came_back"] else "did not come back"
        lines.append(
            f"Request {row['number']} ({row['held']} of {row['records']} records measured): {told}; membership AUC {before} "
            f"before, {after} {ends} now."
        )
    return lines


def _why(training: dict[str, Any], kept: int) -> str:
    """Why an earlier step than the last was kept, in words."""
    if kept == training["steps"]:
        return ""
    found = [check for check in training.get("checks", ()) if check["step"] == kept]
    told = f" (AUC {found[0]['auc']:.3f})" if found and "auc" in found[0] else ""
    if "as far as" in training.get("reason", ""):  # another's was nearer by less than small samples tell
        return f", whose check{told} was as near to what is wanted as samples can tell"
    return f", whose check{told} was nearest to what is wanted"


def _seconds(record: RunRecord, stage: str) -> str:
    value: Any = record.timings.get(stage)
    return "time not measured" if value is None else f"{value:.1f} s"
