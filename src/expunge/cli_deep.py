"""`expunge deep`: which facts must go so that another cannot be deduced, and whether a model still knows them."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from expunge.errors import Problem, UsageError

__all__ = ["measure", "plan"]

_SHOWN = 30

_Facts = Annotated[Path, typer.Argument(help="Facts: .csv, .json, .jsonl or .parquet; or edu_relat.json.")]
_Rules = Annotated[Path | None, typer.Option(help="Rules, likewise; left out where the facts' JSON holds them.")]
_Target = Annotated[
    list[str] | None, typer.Option(help="Id of a fact to forget, or relation(subject, object); repeatable.")
]
_Json = Annotated[bool, typer.Option("--json", help="Print JSON.")]


def plan(
    facts: _Facts,
    rules: _Rules = None,
    target: _Target = None,
    out: Annotated[
        Path | None, typer.Option(help="File to write the ids to, one a line: for --forget of a run.")
    ] = None,
    json: _Json = False,
) -> None:
    """Choose the facts to erase with a target so that the rules cannot give it back, and say what else goes."""
    from expunge.config_paths import expanded
    from expunge.deep.plan import forget_the_closure
    from expunge.deep.reading import read_knowledge

    out = None if out is None else expanded(out, "--out")
    if out is not None and out.exists():
        way_out = "Name a file that does not exist; nothing is overwritten."
        raise UsageError(Problem("--out", f'"{out}" exists already', way_out))
    read = read_knowledge(facts, rules)
    made = forget_the_closure(read.base, read.positions(target or (), "--target"))
    if out is not None:
        from expunge.folders import whole_file

        whole_file(out, "".join(f"{read.ids[i]}\n" for i in made.forget))
    if json:
        import json as json_module

        print(json_module.dumps(_as_dict(read, made), indent=1))
        return
    _show(read, made)
    if out is not None:
        print(f"The ids are in {out}: expunge run ... --forget {out}")


def _as_dict(read: Any, made: Any) -> dict[str, Any]:
    closure = read.base.closure
    return {
        "known": closure.known,
        "derivable": closure.size,
        "targets": [read.name(i) for i in made.targets],
        "forget": [{"id": read.ids[i], "fact": str(closure.facts[i]), "why": _why(read, made, i)} for i in made.forget],
        "lost": [str(closure.facts[i]) for i in made.lost],
        "compared": made.compared,
        "complete": made.complete,
        "idle_relations": read.idle,
    }


def _why(read: Any, made: Any, fact: int) -> str:
    if fact not in made.reasons:
        return "asked for"
    derivation, names = made.reasons[fact], read.base.closure.facts
    return f"{', '.join(str(names[i]) for i in derivation.premises)} -> {names[derivation.conclusion]}"


def _show(read: Any, made: Any) -> None:
    closure = read.base.closure
    print(f"{closure.known} facts are known; with the rules {closure.size} follow.")
    names = ", ".join(str(closure.facts[i]) for i in made.targets)
    several = "the smallest set there is" if made.compared == 1 and made.complete else (
        f"one of {made.compared}{'' if made.complete else ' or more'} smallest sets: the one that leaves most derivable"
    )  # fmt: skip
    print(f"So that {names} cannot be deduced, {_count(len(made.forget), 'fact')} must go ({several}):")
    for i in made.forget:
        print(f"  {read.ids[i]}  {closure.facts[i]}: {_why(read, made, i)}")
    if not made.lost:
        print("Nothing else ceases to follow.")
    else:
        print(f"{_count(len(made.lost), 'fact')} that followed will do so no longer:")
        for i in made.lost[:_SHOWN]:
            print(f"  {closure.facts[i]}")
        if len(made.lost) > _SHOWN:
            print(f"  ... and {len(made.lost) - _SHOWN} more (--json names all)")
    for relation in read.idle:
        print(f'No fact has the relation "{relation}" that rules name: they never apply.', file=sys.stderr)


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'' if number == 1 else 's'}"


def measure(
    model: Annotated[str, typer.Argument(help="A causal language model: folder (what `expunge run` wrote) or hub id.")],
    facts: _Facts,
    rules: _Rules = None,
    target: _Target = None,
    template: Annotated[str | None, typer.Option(help="How question and answer were joined in training.")] = None,
    batch_size: Annotated[int, typer.Option(help="Questions at once.", min=1)] = 64,
    json: _Json = False,
) -> None:
    """Ask a model every fact, and say of each target: forgotten? deducible from what is left? at what cost to the rest?"""
    from expunge.deep.measuring import measure_model

    found = measure_model(model, facts, rules, target or (), template=template, batch_size=batch_size)
    if json:
        import json as json_module

        print(json_module.dumps(found.as_dict(), indent=1))
        return
    for line in found.lines():
        print(line)
