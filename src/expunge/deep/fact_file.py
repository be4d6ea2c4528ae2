"""What a file of facts and rules holds once it is read."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from expunge.deep.knowledge import KnowledgeBase
from expunge.deep.minimal import minimal_sets
from expunge.errors import Problem, UsageError
from expunge.options import did_you_mean

__all__ = ["FactFile"]


@dataclass(frozen=True)
class FactFile:
    """Facts and rules, with what a model is asked about each fact.

    Attributes:
        base: The knowledge base.
        ids: Id of each fact of the base, in order.
        questions: Question and answer of each fact; None where a fact has none.
        targets: Positions of facts that the file names as targets.
        published: Target -> minimal sets that the file names for it.
    """

    base: KnowledgeBase
    ids: tuple[str, ...]
    questions: tuple[tuple[str, str] | None, ...]
    targets: tuple[int, ...] = ()
    published: Mapping[int, tuple[frozenset[int], ...]] = field(default_factory=dict)

    def positions(self, wanted: Sequence[str], where: str) -> tuple[int, ...]:
        """Positions of facts in the closure, by id, or as ``relation(subject, object)``: so a derived fact is named.

        Raises:
            UsageError: One problem a name that is no fact's.
        """
        known = {name: i for i, name in enumerate(self.ids)}
        written = {str(fact): i for i, fact in enumerate(self.base.closure.facts)}
        problems, found = [], []
        for name in wanted:
            place = known.get(name, written.get(name))
            if place is None:
                way_out = f"{did_you_mean(name, [*known, *written])}Name facts by id, or as relation(subject, object)."
                problems.append(Problem(where, f'"{name}" is no fact, and follows from none', way_out))
            elif self.base.closure.is_background(place):
                problems.append(Problem(where, f'"{name}" is a background fact', "Only other facts can be forgotten."))
            else:
                found.append(place)
        if not wanted:
            problems.append(Problem(where, "no fact is named", "Name at least one: --target ID."))
        if problems:
            raise UsageError(problems)
        return tuple(dict.fromkeys(found))

    def name(self, position: int) -> str:
        """Id of a known fact, else the fact as it is written."""
        return self.ids[position] if position < len(self.ids) else str(self.base.closure.facts[position])

    def sets(self, target: int) -> tuple[list[frozenset[int]], bool]:
        """Minimal sets of a target, those found here and those the file names; and whether these are all."""
        family = minimal_sets(self.base.closure, (target,))
        return list({*family.sets, *self.published.get(target, ())}), family.complete

    @property
    def idle(self) -> list[str]:
        """Relations of premises that no fact of the closure has: rules with one of these never apply."""
        there = {fact.relation for fact in self.base.closure.facts}
        named = {premise.relation for rule in self.base.rules for premise in rule.premises}
        return sorted(named - there)
