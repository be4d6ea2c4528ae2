"""LoRA adapters by name in one model: added, trained, and loaded as far as each input asks for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import RunError

__all__ = ["Gate", "adapted", "add_adapter", "plain_weights", "put_adapter", "set_active", "weights_of"]


class Gate:
    """How far adapters are loaded for each row of a batch; None loads them whole.

    Attributes:
        weight: (rows,) for all adapters, or (adapters, rows) for each its own; or None.
    """

    def __init__(self) -> None:
        self.weight: Tensor | None = None


@dataclass(frozen=True)
class _Loading:
    """A hook on one adapter's up-projections: ``w(x) * A B h``, row by row."""

    gate: Gate
    number: int

    def __call__(self, module: nn.Module, args: Any, output: Tensor) -> Tensor:
        del module, args
        weight = self.gate.weight
        if weight is None:
            return output
        own = (weight if weight.dim() == 1 else weight[self.number]).to(output)
        # Beams repeat each row, and layers may see rows times tokens: both in the rows' order.
        each = own.repeat_interleave(len(output) // len(own))
        return output * each.view(-1, *[1] * (output.dim() - 1))


def adapted(model: Any) -> list[str]:
    """Names of the linear layers that get adapters: those of the encoder or decoder, but no pooler and no head."""
    from transformers.pytorch_utils import Conv1D

    inner = model.base_model
    inside = "" if inner is model else f"{model.base_model_prefix}."
    return [
        name
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and name.startswith(inside) and "pooler" not in name
        and "lora_" not in name and not name.endswith(("lm_head", "classifier", "score"))
    ]  # fmt: skip


def add_adapter(model: Any, name: str, rank: int, seed: int, gate: Gate | None = None) -> None:
    """Give every layer of `adapted` a new adapter that changes nothing yet (Hu et al., arXiv 2106.09685), alone trainable.

    Args:
        model: A transformers model, changed in place; it may hold adapters of other names.
        name: The adapter's.
        rank: Its rank; it is scaled by 2, as everywhere here.
        seed: Of its down-projections.
        gate: What says how far it is loaded.
    """
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    names = [layer.removesuffix(".base_layer") for layer in adapted(model)]
    if not names:
        raise RunError(f"o3: {type(model).__name__} has no linear layer to adapt.")
    first = model.get_submodule(names[0])
    kind = getattr(first, "base_layer", first)
    settings = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules=names, fan_in_fan_out=isinstance(kind, Conv1D)
    )
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        inject_adapter_in_model(settings, model, adapter_name=name)
    del model.peft_config  # peft's note of it; a second one beside it would make peft warn
    if gate is not None:
        loading = _Loading(gate, len(_names(model)) - 1)
        for layer in _layers(model):
            layer.lora_B[name].register_forward_hook(loading)
    set_active(model, [*_names(model)])
    for parameter in weights_of(model, name).values():
        parameter.requires_grad_(True)


def set_active(model: Any, names: list[str]) -> None:
    """Load these adapters and no others; nothing is trainable then."""
    for layer in _layers(model):
        layer.set_adapter(names)
    model.requires_grad_(False)


def weights_of(model: Any, name: str) -> dict[str, nn.Parameter]:
    """Parameters of an adapter by their names in the model."""
    return {key: p for key, p in model.named_parameters() if f".lora_A.{name}." in key or f".lora_B.{name}." in key}


def put_adapter(model: Any, name: str, weights: Mapping[str, Tensor]) -> None:
    """Give an adapter these weights.

    Raises:
        RunError: They are of another model.
    """
    own = weights_of(model, name)
    if own.keys() != weights.keys():
        raise RunError(f"o3: the weights of {name} are not those of an adapter of this model, or of another peft.")
    with torch.no_grad():
        for key, parameter in own.items():
            parameter.copy_(weights[key])


def plain_weights(model: Any) -> dict[str, Tensor]:
    """The weights of the model without its adapters, by the names that they have without."""
    return {key.replace(".base_layer.", "."): t for key, t in model.state_dict().items() if ".lora_" not in key}


def _layers(model: Any) -> list[Any]:
    from peft.tuners.lora import LoraLayer

    return [module for module in model.modules() if isinstance(module, LoraLayer)]


def _names(model: Any) -> list[str]:
    layers = _layers(model)
    return list(layers[0].lora_B) if layers else []
