"""The small pair's start: a copy of a model's first layers, or a small model of the user's; and what a pass of it weighs."""

from __future__ import annotations

import copy
from typing import Any

import torch

from expunge.errors import Problem, RunError, UsageError
from expunge.models import load_model

__all__ = ["default_layers", "first_layers", "small_model", "weight_of", "weight_of_output"]


def default_layers(count: int) -> int:
    """Layers of a small copy where nobody says how many: a fifth of them, at least one."""
    return max(1, round(count / 5))


def small_model(
    large: Any, small: str | None, layers: int | None, *, auto_class: str, trust_remote_code: bool = False
) -> tuple[Any, str]:
    """The model that both of the small pair start from, in float32 and eval mode, and what it is in words.

    Args:
        large: The model to erase from.
        small: Folder or hub id of a small model; None: a copy of the large one's first layers.
        layers: How many; None: `default_layers`.
        auto_class: Name of a transformers auto class.
        trust_remote_code: As in transformers.

    Raises:
        UsageError: It cannot be had.
    """
    if small is not None:
        made = load_model(small, auto_class, where="method.small", trust_remote_code=trust_remote_code)
        return made.to(next(large.parameters()).device).eval(), f'"{small}"'
    count = getattr(large.config, "num_hidden_layers", None)
    if getattr(large, "unknown_weights", None) is not None or not count:
        way_out = "Name a small model with the same vocabulary or classes: method.small = FOLDER."
        raise UsageError(Problem("method.small", "the large model has no layers to copy", way_out))
    wanted = layers or default_layers(int(count))
    return first_layers(large, wanted), f"a copy of the first {wanted} of {count} layers"


def first_layers(model: Any, layers: int) -> Any:
    """A copy of a transformer that ends after its first layers: embeddings, norm and head are copied too.

    Args:
        model: Any transformers model whose layers are numbered by ``config.num_hidden_layers``.
        layers: How many, counted from the input.

    Raises:
        RunError: The model's weights do not fit one with fewer layers.
    """
    config = copy.deepcopy(model.config)
    count = int(config.num_hidden_layers)
    for name, value in vars(config).items():  # what there is one of for each layer, such as its kind of attention
        if isinstance(value, list) and len(value) == count and name not in ("architectures", "id2label"):
            setattr(config, name, value[:layers])
    config.num_hidden_layers = layers
    with torch.random.fork_rng():
        made = type(model)(config)
    own = next(model.parameters())
    found = made.load_state_dict(model.state_dict(), strict=False)
    if found.missing_keys:
        raise RunError(
            f"a {type(model).__name__} cut to {layers} layers lacks weights ({', '.join(found.missing_keys[:3])}): name a "
            "small model (method.small)."
        )
    return made.to(own.device, own.dtype).eval()


def weight_of(model: Any) -> int:
    """Parameters that a pass multiplies by: all but input embeddings, which are looked up, unless they are the output layer."""
    total = sum(parameter.numel() for parameter in model.parameters())
    embeddings, output = model.get_input_embeddings(), model.get_output_embeddings()
    if embeddings is None or not hasattr(embeddings, "weight"):
        return total
    tied = output is not None and output.weight is embeddings.weight
    return total - (0 if tied else embeddings.weight.numel())


def weight_of_output(model: Any) -> int:
    """Parameters of the output layer over the vocabulary; 0 for a model without one."""
    output = model.get_output_embeddings()
    return 0 if output is None else sum(parameter.numel() for parameter in output.parameters())
