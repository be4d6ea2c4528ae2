"""Facts as triples, Horn rules over them, and everything the rules derive."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import NamedTuple

__all__ = ["Closure", "Derivation", "KnowledgeBase", "Rule", "Triple", "is_variable"]


class Triple(NamedTuple):
    """One fact, "object is subject's relation"; in a rule, a pattern: an argument that begins with ``?`` is a variable.

    Attributes:
        subject: Whose relation it is.
        relation: The relation.
        object: What stands in it.
    """

    subject: str
    relation: str
    object: str

    def __str__(self) -> str:
        return f"{self.relation}({self.subject}, {self.object})"


@dataclass(frozen=True)
class Rule:
    """A Horn rule: where all premises hold, the conclusion does.

    Attributes:
        premises: One pattern or more.
        conclusion: A pattern whose variables all stand in premises.
        distinct: Whether different variables must stand for different things, as EDU-RELAT has it.
    """

    premises: tuple[Triple, ...]
    conclusion: Triple
    distinct: bool = False

    def __str__(self) -> str:
        return f"{', '.join(map(str, self.premises))} -> {self.conclusion}"

    @property
    def unbound(self) -> list[str]:
        """Variables of the conclusion that no premise binds: such a rule says nothing."""
        bound = {part for premise in self.premises for part in (premise.subject, premise.object)}
        ends = (self.conclusion.subject, self.conclusion.object)
        return [part for part in ends if is_variable(part) and part not in bound]


class Derivation(NamedTuple):
    """One ground instance of a rule.

    Attributes:
        rule: Position of the rule.
        premises: Positions in `Closure.facts`, each once.
        conclusion: Likewise.
    """

    rule: int
    premises: tuple[int, ...]
    conclusion: int


def is_variable(part: str) -> bool:
    """Whether an argument of a pattern is a variable."""
    return part.startswith("?")


@dataclass(frozen=True)
class KnowledgeBase:
    """What is known, K, and how more follows from it, R.

    Attributes:
        facts: The facts that may be forgotten, each once.
        rules: The rules.
        background: Facts that rules may use and nobody asks to forget, such as who is a woman: the types of typed rules.
    """

    facts: tuple[Triple, ...]
    rules: tuple[Rule, ...]
    background: tuple[Triple, ...] = ()

    @cached_property
    def closure(self) -> Closure:
        """Everything that follows, Omega(K, R), with how."""
        return _saturated(self)

    @cached_property
    def ruled(self) -> frozenset[int]:
        """Positions of the facts whose relation stands in some rule; no rule touches the others."""
        relations = {atom.relation for rule in self.rules for atom in (*rule.premises, rule.conclusion)}
        return frozenset(i for i, fact in enumerate(self.facts) if fact.relation in relations)


@dataclass(frozen=True)
class Closure:
    """The deductive closure of a knowledge base.

    Attributes:
        known: How many facts may be forgotten: they are the first of `facts`.
        background: How many background facts come next; what is derived follows.
        facts: All facts of the closure.
        derivations: Every ground rule instance over them, no two with equal premises and conclusion.
    """

    known: int
    background: int
    facts: tuple[Triple, ...]
    derivations: tuple[Derivation, ...]
    position: Mapping[Triple, int] = field(repr=False)

    @property
    def size(self) -> int:
        """Facts known or derived; background facts are not counted."""
        return len(self.facts) - self.background

    @cached_property
    def of(self) -> tuple[tuple[Derivation, ...], ...]:
        """Position of a fact -> the rule instances that derive it."""
        found: list[list[Derivation]] = [[] for _ in self.facts]
        for derivation in self.derivations:
            found[derivation.conclusion].append(derivation)
        return tuple(map(tuple, found))

    @cached_property
    def _using(self) -> tuple[tuple[int, ...], ...]:
        found: list[list[int]] = [[] for _ in self.facts]
        for number, derivation in enumerate(self.derivations):
            for premise in derivation.premises:
                found[premise].append(number)
        return tuple(map(tuple, found))

    def is_background(self, fact: int) -> bool:
        """Whether a position is that of a background fact."""
        return self.known <= fact < self.known + self.background

    def about(self, targets: Collection[int]) -> tuple[Closure, list[int], frozenset[int]]:
        """The part from which some target follows: itself a closure, its facts' positions here, and the targets in it."""
        needed, queue = set(targets), list(targets)
        while queue:
            for derivation in self.of[queue.pop()]:
                for premise in derivation.premises:
                    if premise not in needed:
                        needed.add(premise)
                        queue.append(premise)
        own = sorted(needed)
        new = {old: i for i, old in enumerate(own)}
        derivations = tuple(
            Derivation(rule, tuple(new[i] for i in premises), new[end])
            for old in own
            for rule, premises, end in self.of[old]
        )
        known, background = sum(i < self.known for i in own), sum(map(self.is_background, own))
        facts = tuple(self.facts[i] for i in own)
        part = Closure(known, background, facts, derivations, {fact: i for i, fact in enumerate(facts)})
        return part, own, frozenset(new[i] for i in targets)

    def without(self, removed: Collection[int]) -> dict[int, Derivation | None]:
        """What is left when facts are removed: position -> how it is derived first, None where it is simply known.

        Linear in the size of the closure: each derivation fires once all its premises hold. The order is that of deriving,
        so that premises come before conclusions.
        """
        held: dict[int, Derivation | None] = {
            i: None for i in range(self.known + self.background) if i not in removed or i >= self.known
        }
        missing = [len(derivation.premises) for derivation in self.derivations]
        queue = list(held)
        while queue:
            fact = queue.pop()
            for number in self._using[fact]:
                missing[number] -= 1
                if not missing[number]:
                    end = self.derivations[number].conclusion
                    if end not in held:
                        held[end] = self.derivations[number]
                        queue.append(end)
        return held

    def derivable(self, targets: Collection[int], removed: Collection[int]) -> bool:
        """Whether any of these facts still follows when others, and themselves, may have been removed."""
        held = self.without(removed)
        return any(target in held for target in targets)

    def proof(self, targets: Collection[int], removed: Collection[int]) -> frozenset[int] | None:
        """Known facts that together give one of the targets without the removed ones; None where none follows."""
        held = self.without(removed)
        start = next((target for target in sorted(targets) if target in held), None)
        if start is None:
            return None
        needed, queue = {start}, [start]
        while queue:
            derivation = held[queue.pop()]
            for premise in () if derivation is None else derivation.premises:
                if premise not in needed:
                    needed.add(premise)
                    queue.append(premise)
        return frozenset(i for i in needed if i < self.known and held[i] is None)


_Binding = dict[str, str]


class _Index:
    """Facts seen so far, by relation and by either end."""

    def __init__(self) -> None:
        self._found: dict[tuple[str, str | None, str | None], list[Triple]] = defaultdict(list)

    def add(self, fact: Triple) -> None:
        subject, relation, object_ = fact
        for key in (
            (relation, None, None),
            (relation, subject, None),
            (relation, None, object_),
            (relation, subject, object_),
        ):
            self._found[key].append(fact)

    def matching(self, pattern: Triple, binding: _Binding) -> Iterable[Triple]:
        subject, object_ = (
            binding.get(part) if is_variable(part) else part for part in (pattern.subject, pattern.object)
        )
        return self._found.get((pattern.relation, subject, object_), ())


def _saturated(base: KnowledgeBase) -> Closure:
    """Semi-naive evaluation: each fact meets the rules once, joined with those that met them before it."""
    given = [*base.facts, *base.background]
    position = {fact: i for i, fact in reversed(list(enumerate(given)))}
    facts, index = list(given), _Index()
    wanted: dict[str, list[tuple[int, int]]] = defaultdict(list)
    for number, rule in enumerate(base.rules):
        for place, premise in enumerate(rule.premises):
            wanted[premise.relation].append((number, place))
    derivations: dict[tuple[tuple[int, ...], int], Derivation] = {}
    done = 0
    while done < len(facts):
        fact = facts[done]
        done += 1
        if position[fact] != done - 1:
            continue  # given twice
        index.add(fact)
        for number, place in wanted.get(fact.relation, ()):
            rule = base.rules[number]
            rest = [premise for i, premise in enumerate(rule.premises) if i != place]
            start = _bound(rule.premises[place], fact, {}, rule.distinct)
            for binding in () if start is None else _joined(rest, start, index, rule.distinct):
                conclusion = _filled(rule.conclusion, binding)
                if conclusion not in position:
                    position[conclusion] = len(facts)
                    facts.append(conclusion)
                end = position[conclusion]
                premises = tuple(sorted({position[_filled(premise, binding)] for premise in rule.premises}))
                if end not in premises:
                    derivations.setdefault((premises, end), Derivation(number, premises, end))
    return Closure(len(base.facts), len(base.background), tuple(facts), tuple(derivations.values()), position)


def _joined(rest: Sequence[Triple], binding: _Binding, index: _Index, distinct: bool) -> Iterator[_Binding]:
    if not rest:
        yield binding
        return
    for fact in index.matching(rest[0], binding):
        more = _bound(rest[0], fact, binding, distinct)
        if more is not None:
            yield from _joined(rest[1:], more, index, distinct)


def _bound(pattern: Triple, fact: Triple, binding: _Binding, distinct: bool) -> _Binding | None:
    """The binding that makes a pattern this fact, or None."""
    made = dict(binding)
    for part, value in ((pattern.subject, fact.subject), (pattern.object, fact.object)):
        if not is_variable(part):
            if part != value:
                return None
        elif part in made:
            if made[part] != value:
                return None
        elif distinct and value in made.values():
            return None
        else:
            made[part] = value
    return made


def _filled(pattern: Triple, binding: _Binding) -> Triple:
    return Triple(
        binding.get(pattern.subject, pattern.subject), pattern.relation, binding.get(pattern.object, pattern.object)
    )
