"""Superficial forgetting, recall, accuracy and success: was a fact forgotten deeply, and what went with it?"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass

from expunge.deep.knowledge import KnowledgeBase

__all__ = ["Curve", "Depth", "depth", "summed_up"]

LEAST = 0.8
"""Recall, or accuracy, from which the paper's summary figures read the other one."""


@dataclass(frozen=True)
class Depth:
    """How deeply one target was forgotten, by EDU-RELAT's figures (Wu et al. 2024, arXiv 2410.15153).

    Attributes:
        superficial: Whether the target itself is forgotten.
        success: Whether it can no longer be deduced from what is not forgotten (their Success-DU), by closure.
        recall: Largest share of a minimal set that is forgotten, 0 to 1. It is 1 exactly where some set is forgotten
            whole, and then `success` holds; where not all minimal sets are known, success can hold below 1.
        accuracy: Share still known of the facts of the rules' relations outside that set. NaN where there are none.
        accuracy_all: The same of all facts.
        minimal: Facts in that set.
        forgotten: Facts forgotten in all.
    """

    superficial: bool
    success: bool
    recall: float
    accuracy: float
    accuracy_all: float
    minimal: int
    forgotten: int


def depth(
    base: KnowledgeBase, target: int, forgotten: Collection[int], sets: Iterable[Collection[int]],
    stands_for: Mapping[int, float] | None = None,
) -> Depth:  # fmt: skip
    """Measure a model that no longer knows these facts.

    With U forgotten, K known and M the minimal sets: recall = max over U* in M of ``|U & U*| / |U*|``, accuracy =
    ``1 - |U - U*| / |K - U*|`` for the set that reaches it; of several the one of highest accuracy over all facts, which the
    paper leaves open. Accuracy with biographies, in the paper ``(a_bio 300 + a_rel (400 - |U*|)) / (700 - |U*|)``, is
    that over all facts, K then being all 700.

    Args:
        base: The facts and rules.
        target: Position of the fact that was to be forgotten.
        forgotten: Positions of the facts the model no longer knows.
        sets: Minimal sets of the target, one or more.
        stands_for: Where only some facts were asked: these, and how many facts each of them stands for. Success and
            recall are exact where all facts that the target hangs on are among them; accuracy is estimated.
    """
    weight = dict.fromkeys(range(len(base.facts)), 1.0) if stands_for is None else stands_for
    gone, everything, ruled = frozenset(forgotten), frozenset(weight), base.ruled & frozenset(weight)

    def accuracy(over: frozenset[int], minimal: frozenset[int]) -> float:
        outside = over - minimal
        whole = sum(weight[i] for i in outside)
        return 1 - sum(weight[i] for i in gone & outside) / whole if whole else float("nan")

    chosen = max(
        (frozenset(one) for one in sets),
        key=lambda one: (len(gone & one) / len(one), accuracy(everything, one) if everything - one else 1.0, -len(one)),
    )
    return Depth(
        superficial=target in gone,
        success=not base.closure.derivable((target,), gone),
        recall=len(gone & chosen) / len(chosen),
        accuracy=accuracy(ruled, chosen),
        accuracy_all=accuracy(everything, chosen),
        minimal=len(chosen),
        forgotten=len(gone),
    )


@dataclass(frozen=True)
class Curve:
    """What a method can reach over its steps or strengths, on several targets.

    Attributes:
        accuracy_at_recall: Mean over targets of the highest accuracy at a recall of 0.8 or more; a target where no such
            recall is reached is left out. None where it is reached on none.
        reached_recall: On how many targets that recall is reached.
        recall_at_accuracy: Mean over targets of the highest recall at an accuracy of 0.8 or more, likewise.
        reached_accuracy: On how many targets that accuracy is reached.
        targets: How many targets there are.
    """

    accuracy_at_recall: float | None
    reached_recall: int
    recall_at_accuracy: float | None
    reached_accuracy: int
    targets: int


def summed_up(points: Sequence[Sequence[tuple[float, float]]]) -> Curve:
    """Acc@Recall>=0.8 and Recall@Acc>=0.8 of EDU-RELAT.

    Args:
        points: One sequence a target: (recall, accuracy) of each model on the way.
    """
    accuracies = [max(a for r, a in own if r >= LEAST) for own in points if any(r >= LEAST for r, _ in own)]
    recalls = [max(r for r, a in own if a >= LEAST) for own in points if any(a >= LEAST for _, a in own)]

    def mean(values: Sequence[float]) -> float | None:
        return sum(values) / len(values) if values else None

    return Curve(mean(accuracies), len(accuracies), mean(recalls), len(recalls), len(points))
