"""Forget the closure: which facts to erase with a target so that it cannot be deduced again, and what else goes with them."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from expunge.deep.knowledge import Derivation, KnowledgeBase
from expunge.deep.minimal import all_minimal, smallest

__all__ = ["ClosurePlan", "forget_the_closure"]

COMPARED = 1000
"""Branches of the search for equally small sets: these are compared by what they leave."""


@dataclass(frozen=True)
class ClosurePlan:
    """A smallest deep-unlearning set, chosen for what it leaves.

    Attributes:
        targets: The facts that must not follow, as positions in the closure.
        forget: The facts to erase, as positions in the knowledge base: the targets that are known, then the others.
        lost: Facts that followed and do so no longer, as positions in the closure; the targets are not counted.
        compared: How many sets of the fewest facts there were to choose from.
        complete: Whether these are all of them.
        reasons: Fact to erase -> a rule instance that uses it, by which a target would follow if it stayed; none for the
            targets themselves.
    """

    targets: tuple[int, ...]
    forget: tuple[int, ...]
    lost: tuple[int, ...]
    compared: int
    complete: bool
    reasons: dict[int, Derivation]


def forget_the_closure(base: KnowledgeBase, targets: Collection[int]) -> ClosurePlan:
    """Choose a minimal set to erase with the targets: of the fewest facts, then that which leaves most derivable.

    Among sets that are equal in both, the one whose facts come first in the knowledge base.

    Args:
        base: Facts and rules.
        targets: Positions in the closure; a target may be derived only.

    Raises:
        RunError: A target follows from background facts alone.
    """
    closure = base.closure
    best = smallest(closure, targets)
    sets, complete = all_minimal(closure, targets, size=len(best), branches=COMPARED)
    sets = sorted({best, *sets}, key=lambda one: (len(one), sorted(one)))
    chosen = max(sets, key=lambda one: len(closure.without(one)))  # the first of equals
    left = closure.without(chosen)
    lost = tuple(i for i in range(len(closure.facts)) if i not in left and i not in chosen and i not in targets)
    first = [target for target in sorted(targets) if target in chosen]
    return ClosurePlan(
        targets=tuple(sorted(targets)),
        forget=(*first, *sorted(chosen - set(first))),
        lost=lost,
        compared=len(sets),
        complete=complete,
        reasons={fact: _reason(base, targets, chosen, fact) for fact in sorted(chosen - set(first))},
    )


def _reason(base: KnowledgeBase, targets: Collection[int], chosen: frozenset[int], fact: int) -> Derivation:
    """The first use of a fact in deriving a target, were it the only one of its set to stay."""
    held = base.closure.without(chosen - {fact})
    queue = [target for target in targets if target in held]
    seen = set(queue)
    for following in queue:
        derivation = held[following]
        if derivation is None:
            continue
        if fact in derivation.premises:
            return derivation
        fresh = [i for i in derivation.premises if i not in seen]
        seen |= set(fresh)
        queue += fresh
    raise AssertionError("a minimal set holds only facts from which a target would follow")
