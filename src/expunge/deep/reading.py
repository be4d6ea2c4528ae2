"""Read facts and rules: tables in CSV, JSON or JSONL, one JSON of both, or EDU-RELAT's file."""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from expunge.config_paths import expanded, path_problem
from expunge.data import sources
from expunge.deep.edu_relat import read_edu_relat
from expunge.deep.fact_file import FactFile
from expunge.deep.knowledge import KnowledgeBase, Rule, Triple, is_variable
from expunge.errors import Collector, Problem, UsageError

__all__ = ["parse_atoms", "read_knowledge"]

_FORM = 'Write such as "parent(?x, ?y), parent(?y, ?z)", with ? before variables.'
_ATOM = re.compile(r"\s*([^(),]+?)\s*\(\s*([^(),]+?)\s*,\s*([^(),]+?)\s*\)\s*")
_SEPARATOR = re.compile(r",|&|and\b")
_YES, _NO = ("true", "yes", "1"), ("false", "no", "0", "")
_PARTS = ("subject", "relation", "object")
_SIDES = ("if", "then")
_SHOWN = 5


def read_knowledge(facts: str | Path, rules: str | Path | None = None) -> FactFile:
    """Read facts and rules.

    A table of facts has the columns subject, relation and object ("object is subject's relation"), and where wanted id (else
    row numbers from 1), question and answer, and background (yes for facts that rules may use and nobody forgets). A table
    of rules has the columns if (premises, such as ``child(?x, ?z), child(?y, ?z)``), then (one conclusion) and where
    wanted distinct (yes: different variables stand for different things). A JSON object may hold both, as lists ``facts`` and
    ``rules``; EDU-RELAT's JSON is read as it is.

    Args:
        facts: File of facts: .csv, .tsv, .json, .jsonl or .parquet.
        rules: File of rules, likewise; None where the first holds them.

    Raises:
        UsageError: Everything that is wrong with either.
    """
    found = Collector()
    whole = found.run(_object, facts, "FACTS")
    if whole is not None and rules is not None and ("rules" in whole or "facts" not in whole):
        found.problems.append(Problem("--rules", f'"{facts}" holds rules as well', "Leave --rules out."))
    if whole is not None and "facts" not in whole:
        read = found.run(read_edu_relat, whole, "FACTS")
        found.finish()
        return read
    if whole is None and rules is None:
        what = "no rules are named, and the facts come with none"
        found.problems.append(Problem("--rules", what, "Name a file of rules: --rules rules.csv."))
    rows = of_rules = None
    if whole is not None:
        rows = found.run(_table, whole["facts"], "FACTS", _PARTS)
        own = rules if "rules" not in whole and rules is not None else whole.get("rules")
        of_rules = found.run(_table, own, "--rules", _SIDES)
    else:
        if path_problem(str(facts), "FACTS") is None and Path(facts).expanduser().is_file():  # else it has been said
            rows = found.run(_table, facts, "FACTS", _PARTS)
        if rules is not None:
            of_rules = found.run(_table, rules, "--rules", _SIDES)
    made_rules = found.run(_rules, of_rules) if of_rules else None
    made_facts = found.run(_facts, rows) if rows else None
    found.finish()
    assert made_facts is not None
    known, background, ids, questions = made_facts
    return FactFile(KnowledgeBase(known, tuple(made_rules or ()), background), ids, questions)


def _object(path: str | Path, where: str) -> Mapping[str, Any] | None:
    """The content of a JSON file that holds one object; None for any other file."""
    file = expanded(path, where)
    if not file.is_file():
        raise UsageError(
            Problem(where, f'"{path}" is no file', "Give a file of facts: .csv, .json, .jsonl or .parquet.")
        )
    if file.suffix.lower() != ".json":
        return None
    try:
        values = json.loads(file.read_text(encoding="utf-8-sig"))
    except (ValueError, RecursionError):
        return None  # an object a line, or broken: the reader of tables says which
    if not isinstance(values, dict):
        return None
    if "facts" in values or {"people", "edges"} & values.keys():
        return values
    return None


def _table(source: Any, where: str, wanted: Sequence[str]) -> sources.Columns:
    if isinstance(source, str | Path):
        if not expanded(source, where).is_file():
            raise UsageError(Problem(where, f'"{source}" is no file', "Give a .csv, .json, .jsonl or .parquet file."))
        shown: Any = source
    elif isinstance(source, list) and source and all(isinstance(row, dict) for row in source):
        shown = "the list"
    else:
        name = "facts" if where == "FACTS" else "rules"
        what = f'"{name}" is {"missing" if source is None else "empty" if source == [] else "no list of objects"}'
        raise UsageError(Problem(where, what, f"Give a list of objects with {', '.join(wanted)}."))
    try:
        columns = sources.read(source, where=where)
    except RecursionError:
        raise UsageError(Problem(where, f'"{shown}" is nested too deeply', "Give a flat table.")) from None
    if problems := sources.pick(columns, wanted, where=where, source=shown):
        raise UsageError(problems)
    return columns


def _text(value: Any) -> str:
    """A cell as text; nothing for an empty one. Whole numbers lose their decimals."""
    if value is None or (isinstance(value, float) and value != value):
        return ""
    if isinstance(value, float) and value.is_integer():
        return str(int(value))
    return value.strip() if isinstance(value, str) else str(value)


def _flag(value: Any, where: str, row: int, column: str) -> bool:
    text = _text(value).lower()
    if text not in (*_YES, *_NO):
        raise UsageError(Problem(where, f'row {row}: {column} is "{value}"', "Write yes or no, or leave it empty."))
    return text in _YES


_Facts = tuple[tuple[Triple, ...], tuple[Triple, ...], tuple[str, ...], tuple[tuple[str, str] | None, ...]]


def _facts(columns: sources.Columns) -> _Facts:
    """Facts, background facts, and ids and questions of the former."""
    where, found, count = "FACTS", Collector(), len(columns["subject"])

    def column(name: str) -> Sequence[Any]:
        return columns.get(name) or [None] * count

    known, background, ids, questions = [], [], [], []
    for row in range(count):
        given = [columns[name][row] for name in _PARTS]
        parts = ["" if isinstance(part, list | dict) else _text(part) for part in given]
        empty = [name for name, part in zip(_PARTS, parts, strict=True) if not part]
        if empty:
            what = f"row {row + 1} has no {' and no '.join(empty)}"
            found.problems.append(Problem(where, what, "Every fact needs a subject, a relation and an object."))
            continue
        if variables := [part for part in (parts[0], parts[2]) if is_variable(part)]:
            what = f'row {row + 1}: "{variables[0]}" begins with ?'
            found.problems.append(Problem(where, what, "That marks a variable of a rule: a fact names things."))
        aside = found.run(_flag, column("background")[row], where, row + 1, "background")
        if aside:
            background.append(Triple(*parts))
            continue
        known.append(Triple(*parts))
        ids.append(_text(column("id")[row]) if "id" in columns else str(row + 1))
        asked, said = _text(column("question")[row]), _text(column("answer")[row])
        if bool(asked) != bool(said):
            what = f"row {row + 1} has {'no answer' if asked else 'no question'}"
            found.problems.append(Problem(where, what, "Give a fact both, or neither."))
        questions.append((asked, said) if asked and said else None)
    found.problems += _repeated(known, background, ids, where)
    if not known and not found.problems:
        found.problems.append(Problem(where, "all facts are background", "Give facts that can be forgotten."))
    found.problems = _cut(found.problems, where)
    found.finish()
    return tuple(known), tuple(background), tuple(ids), tuple(questions)


def _repeated(known: Sequence[Triple], background: Sequence[Triple], ids: Sequence[str], where: str) -> list[Problem]:
    problems = []
    if empty := sum(not one for one in ids):
        problems.append(Problem(where, f"{empty} facts have no id", "Give every fact an id, or leave the column out."))
    if twice := [one for one, times in Counter(ids).items() if times > 1 and one]:
        what = f'{len(twice)} ids stand in several rows, such as "{twice[0]}"'
        problems.append(Problem(where, what, "Ids must be unique; or leave the column out."))
    if twice := [fact for fact, times in Counter([*known, *set(background)]).items() if times > 1]:
        what = f"{len(twice)} facts stand twice, such as {twice[0]}"
        problems.append(Problem(where, what, "Leave one out: forgetting one would leave the other."))
    return problems


def _rules(columns: sources.Columns) -> list[Rule]:
    where, found, rules = "--rules", Collector(), []
    distinct = columns.get("distinct") or [None] * len(columns["if"])
    for row, (premises, conclusion, flag) in enumerate(
        zip(columns["if"], columns["then"], distinct, strict=True), start=1
    ):
        before = found.run(parse_atoms, premises, where, f"row {row}, if")
        after = found.run(parse_atoms, conclusion, where, f"row {row}, then")
        apart = found.run(_flag, flag, where, row, "distinct")
        if after is not None and len(after) > 1:
            what = f"row {row}, then: {len(after)} conclusions"
            found.problems.append(Problem(where, what, "A Horn rule has one: write a rule for each."))
        elif before is not None and after is not None and apart is not None:
            rule = Rule(tuple(before), after[0], apart)
            if rule.unbound:
                what = f"row {row}: {' and '.join(rule.unbound)} stands in the conclusion and in no premise"
                found.problems.append(Problem(where, what, "Every variable of a conclusion needs a premise."))
            rules.append(rule)
    found.problems = _cut(found.problems, where)
    found.finish()
    return rules


def parse_atoms(given: Any, where: str, place: str) -> list[Triple]:
    """Patterns written as ``relation(subject, object)``, several with commas, "&" or "and"; or a list of triples of texts.

    Raises:
        UsageError: It is nothing of the kind.
    """
    if isinstance(given, list):
        rows = [given] if given and all(isinstance(part, str) for part in given) else given
        if rows and all(
            isinstance(row, list) and len(row) == 3 and all(isinstance(p, str) and p.strip() for p in row)
            for row in rows
        ):
            return [Triple(*(part.strip() for part in row)) for row in rows]
        raise UsageError(Problem(where, f"{place}: {given!r:.60} is no list of triples", _FORM))
    text, atoms, at = _text(given), [], 0
    while True:
        match = _ATOM.match(text, at)
        if match is None:
            break
        atoms.append(Triple(match[2], match[1], match[3]))
        at = match.end()
        if at == len(text):
            return atoms
        separator = _SEPARATOR.match(text, at)
        if separator is None:
            break
        at = separator.end()
    shown = f'"{text[at : at + 40]}" cannot be read' if text else "it is empty"
    raise UsageError(Problem(where, f"{place}: {shown}", _FORM))


def _cut(problems: Sequence[Problem], where: str) -> list[Problem]:
    """The first few of many: a table can be wrong in every row."""
    if len(problems) <= _SHOWN:
        return list(problems)
    more = Problem(where, f"{len(problems) - _SHOWN} more problems of this kind", "Mend these first.")
    return [*problems[:_SHOWN], more]
