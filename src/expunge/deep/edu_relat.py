"""EDU-RELAT's facts and rules (Wu et al. 2024, arXiv 2410.15153) from their JSON export."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from expunge.deep.fact_file import FactFile
from expunge.deep.knowledge import KnowledgeBase, Rule, Triple
from expunge.errors import Problem, UsageError

__all__ = ["read_edu_relat"]

_GENDERS = dict.fromkeys(("husband", "nephew", "uncle", "brother", "father"), "male") | dict.fromkeys(
    ("wife", "niece", "aunt", "sister", "mother"), "female"
)
_BIOGRAPHY = re.compile(r"What is the (\w+) of (.+)\?")
_SHOWN = 10


@dataclass
class _Person:
    id: int
    name: str
    gender: Literal["female", "male"]


@dataclass
class _Edge:
    id: int
    src: int
    rel: str
    dst: int
    q: str
    a: str


@dataclass
class _Biography:
    q: str
    a: str


@dataclass
class _Rule:
    left: list[tuple[int, str, int]]
    right: tuple[int, str, int]


@dataclass
class _Data:
    people: list[_Person]
    edges: list[_Edge]
    bios: list[_Biography]
    rules: list[_Rule]
    targets: list[int]
    minimal_sets: dict[int, list[list[int]]]


def read_edu_relat(values: Mapping[str, Any], where: str) -> FactFile:
    """People, relations, biographies, rules, targets and published minimal sets.

    An edge (a, r, b) says that b is a's r. The authors' code derives a relation only for people of its gender, and binds
    different variables to different people: here genders are background facts that rules name, and rules are distinct.
    With both the 400 relations give 562; without genders 990, without distinctness 801. Facts have the ids of their edges
    (``"0"`` to ``"399"``), biographies ``"bio-0"`` and so on. Two rules name a relation "newphe" that no fact has; they
    are kept as they are, and never apply.

    Args:
        values: The JSON's content.
        where: The setting it was given in.

    Raises:
        UsageError: It is not of this form.
    """
    from pydantic import TypeAdapter, ValidationError

    try:
        data = TypeAdapter(_Data).validate_python({name: values.get(name) for name in _Data.__annotations__})
    except ValidationError as error:
        way_out = "Give edu_relat.json as it was exported, or facts and rules as tables."
        problems = [
            Problem(where, f"{'.'.join(map(str, e['loc']))}: {e['msg'].lower()}", way_out)
            for e in error.errors()[:_SHOWN]
        ]
        raise UsageError(problems) from None
    if problems := _misfits(data, where):
        raise UsageError(problems[:_SHOWN])
    names = {person.id: person.name for person in data.people}
    facts = [Triple(names[edge.src], edge.rel, names[edge.dst]) for edge in data.edges]
    for biography in data.bios:
        found = _BIOGRAPHY.fullmatch(biography.q)
        assert found is not None  # looked at in _misfits
        facts.append(Triple(found[2], found[1], biography.a))
    place = {edge.id: i for i, edge in enumerate(data.edges)}
    return FactFile(
        base=KnowledgeBase(
            facts=tuple(facts),
            rules=tuple(map(_rule, data.rules)),
            background=tuple(Triple(person.name, "gender", person.gender) for person in data.people),
        ),
        ids=(*(str(edge.id) for edge in data.edges), *(f"bio-{i}" for i in range(len(data.bios)))),
        questions=tuple((asked.q, asked.a) for asked in (*data.edges, *data.bios)),
        targets=tuple(place[target] for target in data.targets),
        published={
            place[target]: tuple(frozenset(place[i] for i in one) for one in sets)
            for target, sets in data.minimal_sets.items()
        },
    )


def _rule(given: _Rule) -> Rule:
    def pattern(part: tuple[int, str, int]) -> Triple:
        return Triple(f"?{part[0]}", part[1], f"?{part[2]}")

    premises, conclusion = [pattern(part) for part in given.left], pattern(given.right)
    if conclusion.relation in _GENDERS:
        premises.append(Triple(conclusion.object, "gender", _GENDERS[conclusion.relation]))
    return Rule(tuple(premises), conclusion, distinct=True)


def _misfits(data: _Data, where: str) -> list[Problem]:
    """Numbers that name nobody, and names or facts that stand twice."""
    way_out = "Give edu_relat.json as it was exported."
    people, edges = {person.id for person in data.people}, {edge.id for edge in data.edges}
    found = []
    if len({person.name for person in data.people}) < len(data.people) or len(people) < len(data.people):
        found.append(Problem(where, "people: two have one name or id", way_out))
    if len({(edge.src, edge.rel, edge.dst) for edge in data.edges}) < len(data.edges) or len(edges) < len(data.edges):
        found.append(Problem(where, "edges: two say the same or have one id", way_out))
    for edge in data.edges:
        found += [
            Problem(where, f"edges: edge {edge.id} names person {person}, who is not there", way_out)
            for person in (edge.src, edge.dst)
            if person not in people
        ]
    found += [
        Problem(where, f'bios: "{biography.q:.60}" is no question of the form "What is the X of NAME?"', way_out)
        for biography in data.bios
        if not _BIOGRAPHY.fullmatch(biography.q)
    ]
    if len({(biography.q, biography.a) for biography in data.bios}) < len(data.bios):
        found.append(Problem(where, "bios: two say the same", way_out))
    in_sets = {i for sets in data.minimal_sets.values() for one in sets for i in one}
    found += [
        Problem(where, f"fact {i} is named in targets or minimal_sets and is not there", way_out)
        for i in sorted({*data.targets, *data.minimal_sets, *in_sets} - edges)
    ]
    for number, rule in enumerate(data.rules):
        bound = {end for a, _, b in rule.left for end in (a, b)}
        if not {rule.right[0], rule.right[2]} <= bound:
            found.append(Problem(where, f"rules: rule {number} concludes about someone no premise names", way_out))
    return found
