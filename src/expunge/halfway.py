"""A forward pass that ends behind one layer: what a loss there needs, and nothing more."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn

from expunge.errors import Problem, UsageError
from expunge.models import passes_of
from expunge.tasks.base import Batch

__all__ = ["end_of_pass", "hold_all_but", "layer_of", "states_behind"]


class _EnoughError(Exception):
    """The layer has run."""


def layer_of(model: Any, number: int) -> nn.Module:
    """Layer `number` of a transformer, counted from 1.

    Raises:
        UsageError: It has fewer, or its layers cannot be found.
    """
    count = int(model.config.num_hidden_layers)
    lists = [m for m in model.modules() if isinstance(m, nn.ModuleList) and len(m) == count]
    if not lists:
        way_out = "Use a method that works on the model's outputs, such as npo."
        raise UsageError(Problem("method.layer", f"the layers of a {type(model).__name__} cannot be found", way_out))
    if not 1 <= number <= count:
        raise UsageError(Problem("method.layer", f"{number} is not allowed", f"The model has the layers 1 to {count}."))
    return lists[0][number - 1]


def end_of_pass(method: Any, model: Any) -> tuple[nn.Module | None, float]:
    """The layer behind which a method's steps stop, None for the whole model, and the share of an example-pass they make.

    Raises:
        UsageError: As `layer_of`.
    """
    if not method.halfway:
        return None, passes_of(model)
    return layer_of(model, method.layer), method.layer / model.config.num_hidden_layers


def states_behind(model: Any, layer: nn.Module, batch: Batch) -> Tensor:
    """(U, H) outputs of a layer at the units, with their graph; what comes after it does not run."""
    caught: list[Tensor] = []

    def keep(module: nn.Module, args: Any, output: Any) -> None:
        del module, args
        caught.append(output[0] if isinstance(output, tuple) else output)
        raise _EnoughError

    hook = layer.register_forward_hook(keep)
    try:
        model(**batch.inputs)
    except _EnoughError:
        pass
    finally:
        hook.remove()
    return batch.select(caught[-1])


def hold_all_but(names: Sequence[str] | None, model: Any) -> list[nn.Parameter]:
    """Take all other trainable parameters out of training, and give them back; none where no names are given."""
    held = [p for n, p in model.named_parameters() if names is not None and n not in names and p.requires_grad]
    for parameter in held:
        parameter.requires_grad_(False)
    return held
