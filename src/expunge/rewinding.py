"""How far a model must be rewound for records it has learnt to look like records it never saw. Pure but for its looks."""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["rewound_to"]


def rewound_to(wanted: float, loss_at: Callable[[float], float], *, learnt: float, looks: int = 4) -> float:
    """The share of the way from base to original at which records have a wanted mean loss.

    Between the base, which never saw them, and the original, which learnt them, their loss falls: the place is enclosed by
    halving, then read off the straight line between the last two looks.

    Args:
        wanted: The loss wanted, in nats.
        loss_at: Share in [0, 1) -> their mean loss under the model rewound to it, in nats: one look.
        learnt: Their loss under the original itself.
        looks: How many looks are made at most.

    Returns:
        A share in [0, 1]: 1 where the original's own loss is as high as wanted already, 0 where the base's is not.
    """
    if learnt >= wanted:
        return 1.0
    low, high = (0.0, loss_at(0.0)), (1.0, learnt)
    if low[1] <= wanted:
        return 0.0
    for _ in range(looks - 1):
        middle = (low[0] + high[0]) / 2
        found = middle, loss_at(middle)
        low, high = (found, high) if found[1] > wanted else (low, found)
    return low[0] + (high[0] - low[0]) * (low[1] - wanted) / (low[1] - high[1])
