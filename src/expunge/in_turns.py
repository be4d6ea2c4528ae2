"""A step of a language model whose loss has two parts that never meet: one after the other, so that activations are of one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from expunge.gathering import Outputs
from expunge.methods.base import Method
from expunge.retain_term import TwoParts
from expunge.step import Scores, Step
from expunge.step_batches import Parts

__all__ = ["in_turns", "turns_of"]


def turns_of(method: Method, *, of_tokens: bool, whole: bool) -> TwoParts | None:
    """The method where its steps are taken in two turns; None where they are one pass.

    Classifiers' steps are short, and quicker in one pass; a step of several micro-batches, or of several processes, holds the
    activations of a part of its records already. Nor a method that looks at the whole step all the same, or stops halfway.

    Args:
        method: The method.
        of_tokens: Whether units are tokens.
        whole: Whether a step is one micro-batch of one process.
    """
    if not isinstance(method, TwoParts) or method.retain == "none" or method.halfway:
        return None
    own = type(method)
    apart = own.loss is TwoParts.loss and own.counts is Method.counts
    return method if apart and of_tokens and whole else None


def in_turns(
    method: TwoParts,
    inputs: Parts,
    run: Callable[[Parts], Sequence[Outputs | None]],
    step_of: Callable[[Sequence[Outputs | None]], Step],
    backward: Callable[[Tensor], Any],
    watch: Callable[[Scores], None] | None,
) -> dict[str, Tensor]:
    """The parts of a step's loss: of ``forget`` the gradient has been taken, of ``retain`` it has not.

    Args:
        method: The method.
        inputs: The step's groups.
        run: Groups -> their outputs, in one graph; None for a group that is left out.
        step_of: Outputs -> the step they make, its other groups empty.
        backward: Takes the gradient of a scalar.
        watch: Called with the forget scores.
    """
    forget, retain, alternate = inputs
    step = step_of(run((forget, None, alternate)))
    part = method.forgetting(step)
    if watch:
        watch(step.forget)
    del step  # its logits
    if part.requires_grad:
        with torch.autocast(part.device.type, enabled=False):
            backward(part)
    return {**method.retaining(step_of(run((None, retain, None)))), "forget": part.detach()}
