"""Forgetting as a preference: another answer is preferred to a record's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from expunge.errors import Problem, UsageError

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.methods.base import MethodContext
    from expunge.step import Step
    from expunge.tasks.base import Encoded

__all__ = ["PREFERENCE", "REFUSALS", "preferred", "reanswering"]

PREFERENCE = frozenset({"forget.logits", "forget.reference_logp", "alternate.logits", "alternate.reference_logp"})
"""What `preferred` reads of a step."""

REFUSALS = (
    "I don't know.",
    "I'm not sure about that.",
    "I have no information about this.",
    "I can't answer that question.",
    "That is not something I know.",
    "I'm afraid I don't know the answer.",
)
"""Answers that say nothing."""


def preferred(step: Step, beta: float) -> Tensor:
    """`expunge.token_losses.dpo` of a step's alternate answers over the forget records' own."""
    from expunge.token_losses import dpo

    forget, other = step.forget, step.alternate
    assert other is not None
    return dpo(
        other.logp(), other.reference_logp, other.record_index,
        forget.logp(), forget.reference_logp, forget.record_index, beta,
    )  # fmt: skip


def reanswering(context: MethodContext, method: str) -> Callable[[Sequence[str]], Encoded]:
    """What gives the forget records other answers.

    Raises:
        UsageError: They are plain texts, without prompts.
    """
    if context.reanswered is None:
        what = f"{method} needs prompts to answer otherwise, and records are plain texts"
        raise UsageError(Problem("method", what, "Give records of prompt and answer."))
    return context.reanswered
