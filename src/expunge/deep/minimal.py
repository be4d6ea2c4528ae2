"""Minimal deep-unlearning sets: which facts must go so that a target can no longer be deduced."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from random import Random
from typing import Any, NamedTuple

from expunge.deep.knowledge import Closure
from expunge.errors import RunError

__all__ = ["Family", "all_minimal", "is_minimal", "minimal_sets", "searched", "smallest"]

Set = frozenset[int]
BRANCHES = 1000
"""Branches after which the search for every minimal set is given up; each costs a few passes over the closure."""


class Family(NamedTuple):
    """Minimal sets of a target.

    Attributes:
        sets: The sets, smallest first.
        complete: Whether these are all there are.
    """

    sets: tuple[Set, ...]
    complete: bool


def is_minimal(closure: Closure, targets: Collection[int], removed: Collection[int]) -> bool:
    """Whether no target follows any longer without these facts, and one would as soon as any one of them stayed.

    What follows only grows with what is known, so sets that lack one fact stand for all proper subsets.
    """
    part, own, targets = closure.about(targets)
    place = {whole: i for i, whole in enumerate(own)}
    if any(fact not in place for fact in removed):
        return False  # no target follows from it
    return _minimal(part, targets, frozenset(place[fact] for fact in removed))


def _minimal(closure: Closure, targets: Collection[int], removed: Set) -> bool:
    return not closure.derivable(targets, removed) and all(
        closure.derivable(targets, removed - {fact}) for fact in removed
    )


def minimal_sets(
    closure: Closure, targets: Collection[int], *, tries: int = 100, seed: int = 0, branches: int = BRANCHES
) -> Family:
    """Every minimal set where branch and bound ends within so many branches, else those that random search finds.

    A smallest set (`smallest`) is among them either way.

    Raises:
        RunError: A target follows from background facts alone.
    """
    best = smallest(closure, targets)
    found, complete = all_minimal(closure, targets, branches=branches)
    if not complete:
        found = list({best, *found, *searched(closure, targets, tries=tries, seed=seed)})
    return Family(tuple(sorted(found, key=lambda one: (len(one), sorted(one)))), complete)


def searched(closure: Closure, targets: Collection[int], *, tries: int = 100, seed: int = 0) -> set[Set]:
    """Minimal sets by randomised search, after algorithm 3 of EDU-RELAT (Wu et al. 2024, arXiv 2410.15153).

    Each try goes back from the target: of every rule instance that derives what must not follow, one premise drawn at
    random must not follow either, until none is left intact; the known facts among these are then pruned to a minimal
    set. Which sets are found hangs on chance; each found is minimal.

    The paper's text of the algorithm is not public: this is our reading of its description (100 seeds, random expansion,
    pruning).

    Args:
        closure: What follows from what.
        targets: Positions of the facts that must not follow.
        tries: How many sets are drawn; several may be the same.
        seed: Seed of the draws.
    """
    closure, own, targets = closure.about(targets)
    found: set[Set] = set()
    for number in range(tries):
        random = Random(f"{seed}-{number}")  # a text: the numbers of two seeds do not overlap
        removed = _expanded(closure, targets, random)
        if removed is not None:
            found.add(_named(_pruned(closure, targets, removed, random), own))
    return found


def _expanded(closure: Closure, targets: Collection[int], random: Random) -> Set | None:
    """Known facts without which no target follows; None where a draw ends at background facts alone."""
    gone, queue = set(targets), sorted(targets)
    while queue:
        derivations = list(closure.of[queue.pop(random.randrange(len(queue)))])
        random.shuffle(derivations)
        for derivation in derivations:
            if gone.isdisjoint(derivation.premises):
                free = [i for i in derivation.premises if not closure.is_background(i)]
                if not free:
                    return None
                fact = random.choice(free)
                gone.add(fact)
                queue.append(fact)
    return frozenset(i for i in gone if i < closure.known)


def _pruned(closure: Closure, targets: Collection[int], removed: Collection[int], random: Random) -> Set:
    """A minimal subset: facts are put back in random order wherever the targets still do not follow."""
    left = set(removed)
    order = sorted(left)
    random.shuffle(order)
    for fact in order:
        if not closure.derivable(targets, left - {fact}):
            left.remove(fact)
    return frozenset(left)


def all_minimal(
    closure: Closure, targets: Collection[int], *, size: int | None = None, branches: int | None = None
) -> tuple[list[Set], bool]:
    """Every minimal set, by branch and bound over proofs.

    A set must meet each proof of a target (known facts that give it), so the search takes a proof that is still intact
    and branches on which of its facts goes; in later branches the earlier ones stay, so no set comes twice. A branch
    ends where a proof consists of facts that stay, or where disjoint proofs show that it would grow beyond `size`.

    Args:
        closure: What follows from what.
        targets: Positions of the facts that must not follow.
        size: Facts a set may have at most; None: any number.
        branches: Branches looked at, at most; None: all.

    Returns:
        The sets, and whether these are all (of that size) there are.
    """
    found: list[Set] = []
    closure, own, targets = closure.about(targets)
    limit = closure.known if size is None else size
    stack: list[tuple[Set, Set]] = [(frozenset(), frozenset())]  # facts gone, facts that stay
    looked = 0
    while stack:
        if looked == branches:
            return found, False
        looked += 1
        removed, kept = stack.pop()
        proofs = _disjoint(closure, targets, removed, kept, limit - len(removed))
        if proofs is None:
            continue
        if not proofs:
            if _minimal(closure, targets, removed):
                found.append(_named(removed, own))
            continue
        first = sorted(proofs[0])
        stack += [(removed | {fact}, kept | frozenset(first[:place])) for place, fact in enumerate(first)]
    return found, True


def _disjoint(closure: Closure, targets: Collection[int], removed: Set, kept: Set, most: int) -> list[Set] | None:
    """What may go of proofs that share nothing that may; None where one cannot be broken, or there are more than `most`."""
    proofs: list[Set] = []
    gone = removed
    while (proof := closure.proof(targets, gone)) is not None:
        free = proof - kept
        if not free or len(proofs) == most:
            return None
        proofs.append(free)
        gone |= free
    return proofs


def smallest(closure: Closure, targets: Collection[int]) -> Set:
    """A minimal set of the fewest facts, exact.

    Facts that stay, with all that follows from them, are a set closed under the rules that lacks the targets; so the
    set sought is what the largest such set leaves of the known facts. That is an integer program with one 0/1 variable
    a fact of the closure and one inequality a rule instance, "not all premises without the conclusion", which HiGHS
    solves by branch and bound. What it says is checked here: the set is minimal.

    Raises:
        RunError: A target follows from background facts alone, or the program could not be solved.
    """
    import numpy as np
    from scipy import optimize
    from scipy.sparse import coo_array

    if closure.derivable(targets, range(closure.known)):
        raise RunError(
            "a target follows from background facts alone: whatever is forgotten, it can be deduced. Leave the rule or the "
            "background facts out, or name another target."
        )
    closure, own, targets = closure.about(targets)
    scipy: Any = optimize  # its stubs know plain numbers only
    count = len(closure.facts)
    upper, lower = np.ones(count), np.zeros(count)
    upper[list(targets)] = 0
    lower[closure.known : closure.known + closure.background] = 1
    entries = [(1.0, row, i) for row, derivation in enumerate(closure.derivations) for i in derivation.premises]
    entries += [(-1.0, row, derivation.conclusion) for row, derivation in enumerate(closure.derivations)]
    constraints = []
    if entries:
        values, rows, columns = zip(*entries, strict=True)
        matrix = coo_array((values, (rows, columns)), shape=(len(closure.derivations), count))
        bounds = np.array([len(derivation.premises) - 1.0 for derivation in closure.derivations])
        constraints = [scipy.LinearConstraint(matrix.tocsr(), ub=bounds)]
    kept = np.where(np.arange(count) < closure.known, -1.0, 0.0)
    solved = scipy.milp(kept, constraints=constraints, integrality=np.ones(count), bounds=scipy.Bounds(lower, upper))
    removed = frozenset() if solved.x is None else frozenset(np.flatnonzero(solved.x[: closure.known] < 0.5).tolist())
    if solved.status != 0 or not _minimal(closure, targets, removed):
        raise RunError(f"no smallest set was found: the solver says {solved.message}")
    return _named(removed, own)


def _named(positions: Collection[int], own: Sequence[int]) -> Set:
    """Positions in the whole closure, of those in a part of it."""
    return frozenset(own[i] for i in positions)
