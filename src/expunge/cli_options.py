"""The command-line options that describe a run, shared by `check` and `run`."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Callable
from typing import Annotated, Any, get_type_hints

import typer

__all__ = ["A_METHOD", "A_NAME", "given", "with_run_options"]


def _names_of(*kinds: str) -> Callable[[str], list[str]]:
    """What a shell offers at the tab key: the registered names of these kinds that begin as typed. Imports none of them."""

    def offered(incomplete: str) -> list[str]:
        from expunge import registry

        return [name for kind in kinds for name in registry.names(kind) if name.startswith(incomplete)]

    return offered


A_METHOD = typer.Argument(help="A method of `expunge list`.", autocompletion=_names_of("methods"))
A_NAME = typer.Argument(
    help="A method or audit, or a folder that `expunge run` wrote.",
    autocompletion=_names_of("methods", "audits", "tasks"),
)

_OVER = "Data and model"
_ASK = "Request"
_HOW = "Method and evidence"

_OPTIONS: dict[str, tuple[Any, Any]] = {
    "model": (str | None, typer.Option(help="Fine-tuned model: folder or hub id.", rich_help_panel=_OVER)),
    "format_": (
        str | None, typer.Option("--format", help="conll: a word and its tag a line, any suffix.", rich_help_panel=_OVER)
    ),
    "max_length": (int | None, typer.Option(help="Tokens a record is cut to.", rich_help_panel=_OVER)),
    "template": (
        str | None,
        typer.Option(help="Language model: 'Question: {prompt}\\nAnswer: {answer}'.", rich_help_panel=_OVER),
    ),
    "data": (str | None, typer.Option(help="Training data: file, saved dataset or hub id.", rich_help_panel=_OVER)),
    "text": (
        list[str] | None,
        typer.Option(help="Text column, twice for a text pair; of a language model the prompts.", rich_help_panel=_OVER),
    ),
    "label": (
        str | None, typer.Option(help="Label column; of a language model the answers.", rich_help_panel=_OVER)
    ),
    "labels": (str | None, typer.Option(help="Class names in the model's order, with commas.", rich_help_panel=_OVER)),
    "id_": (str | None, typer.Option("--id", help="Id column.", rich_help_panel=_OVER)),
    "held_out": (str | None, typer.Option(help="Data never trained on.", rich_help_panel=_OVER)),
    "calibration": (str | None, typer.Option(help="Data for the stop rule alone.", rich_help_panel=_OVER)),
    "drop_overlap": (
        bool, typer.Option("--drop-overlap", help="Leave out held-out records found in training.", rich_help_panel=_OVER)
    ),
    "forget": (str | None, typer.Option(help="File of ids (or rows) to forget.", rich_help_panel=_ASK)),
    "forget_where": (
        str | None,
        typer.Option(help="Rows to forget by a condition instead: author == 'u17'.", rich_help_panel=_ASK),
    ),
    "forget_mention": (
        str | None, typer.Option(help="Every record that mentions this instead: 'John Smith'.", rich_help_panel=_ASK)
    ),
    "forget_label": (
        str | None, typer.Option(help="Every record of a class (or with such an entity) instead.", rich_help_panel=_ASK)
    ),
    "forget_fraction": (float | None, typer.Option(help="Random share to forget instead.", rich_help_panel=_ASK)),
    "with_duplicates": (
        bool, typer.Option("--with-duplicates", help="Forget identical rows too.", rich_help_panel=_ASK)
    ),
    "with_near_duplicates": (
        bool, typer.Option("--with-near-duplicates", help="Forget near-duplicates and neighbours too.", rich_help_panel=_ASK)
    ),
    "near_duplicates": (
        float | None, typer.Option(help="Share of a text's pieces that makes a near-duplicate: 0.8.", rich_help_panel=_ASK)
    ),
    "neighbours": (
        float | None, typer.Option(help="Look for paraphrases too, in the base model: cosine, 0.85.", rich_help_panel=_ASK)
    ),
    "allow_missing": (
        bool, typer.Option("--allow-missing", help="Go on when some ids are not found.", rich_help_panel=_ASK)
    ),
    "again": (
        bool, typer.Option("--again", help="Erase again what an earlier request erased.", rich_help_panel=_ASK)
    ),
    "past_records": (
        list[str] | None,
        typer.Option(help="Records of earlier requests, to measure again; repeatable.", rich_help_panel=_ASK),
    ),
    "method": (
        str | None,
        typer.Option(help="Method, of `expunge list`.", rich_help_panel=_HOW, autocompletion=_names_of("methods")),
    ),
    "base": (str | None, typer.Option(help="Model the original was fine-tuned from.", rich_help_panel=_HOW)),
    "recipe": (str | None, typer.Option(help="TOML file: how it was fine-tuned.", rich_help_panel=_HOW)),
    "retrain": (
        bool, typer.Option("--retrain", help="Compare with a model retrained without the records.", rich_help_panel=_HOW)
    ),
    "retrained": (
        list[str] | None, typer.Option(help="Folder of a model retrained already; repeatable.", rich_help_panel=_HOW)
    ),
    "audit": (
        list[str] | None,
        typer.Option(
            "--audit", help="An audit beside the usual ones; repeatable.", rich_help_panel=_HOW,
            autocompletion=_names_of("audits"),
        ),
    ),
    "require": (
        str | None, typer.Option(help="population or retrain-compared: exit 3 unless reached.", rich_help_panel=_HOW)
    ),
    "seed": (int | None, typer.Option(help="Seed of order, dropout and sampling.", rich_help_panel=_HOW)),
    "salt_file": (str | None, typer.Option(help="File with the secret salt.", rich_help_panel=_HOW)),
    "show_ids": (bool, typer.Option("--show-ids", help="Keep and show raw ids.", rich_help_panel=_HOW)),
}  # fmt: skip


def with_run_options(function: Callable[..., None]) -> Callable[..., None]:
    """Give a command the options that describe a run; it receives them as one dict, `options`."""
    hints = get_type_hints(function, include_extras=True)
    own = [p.replace(annotation=hints[n]) for n, p in inspect.signature(function).parameters.items() if n != "options"]
    shared = [
        inspect.Parameter(
            name, inspect.Parameter.KEYWORD_ONLY, default=False if kind is bool else None,
            annotation=Annotated[kind, option],
        )
        for name, (kind, option) in _OPTIONS.items()
    ]  # fmt: skip

    @functools.wraps(function)
    def command(**arguments: Any) -> None:
        options = {name: arguments.pop(name) for name in _OPTIONS}
        function(options=options, **arguments)

    parameters = [p.replace(kind=inspect.Parameter.KEYWORD_ONLY) for p in own] + shared
    command.__signature__ = inspect.Signature(parameters)  # pyright: ignore[reportAttributeAccessIssue]
    command.__annotations__ = {p.name: p.annotation for p in parameters}
    return command


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Config keys of the options that were given."""
    names = options["labels"]
    values = {
        "model.path": options["model"],
        "model.max_length": options["max_length"],
        "model.template": None if options["template"] is None else options["template"].replace("\\n", "\n"),
        "data.train": options["data"],
        "data.format": options["format_"],
        "data.text": options["text"],
        "data.label": options["label"],
        "data.labels": [name.strip() for name in names.split(",")] if names else None,
        "data.id": options["id_"],
        "data.held_out": options["held_out"],
        "data.calibration": options["calibration"],
        "data.overlap": "drop" if options["drop_overlap"] else None,
        "request.file": options["forget"],
        "request.where": options["forget_where"],
        "request.mention": options["forget_mention"],
        "request.label": options["forget_label"],
        "request.fraction": options["forget_fraction"],
        "request.with_duplicates": options["with_duplicates"],
        "request.with_near_duplicates": options["with_near_duplicates"],
        "request.near_duplicates": options["near_duplicates"],
        "request.neighbours": options["neighbours"],
        "request.allow_missing": options["allow_missing"],
        "request.again": options["again"],
        "request.past": options["past_records"],
        "method.name": options["method"],
        "retrain.base": options["base"],
        "retrain.recipe": options["recipe"],
        "retrain.enabled": options["retrain"],
        "retrain.models": options["retrained"],
        "audit.more": options["audit"],
        "audit.require": options["require"],
        "seed": options["seed"],
        "privacy.salt_file": options["salt_file"],
        "privacy.show_ids": options["show_ids"],
    }
    return {key: value for key, value in values.items() if value is not None and value is not False and value != []}
