"""A model whose weights, gradients and optimizer state lie cut up over the processes (FSDP2)."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn

from expunge import processes

__all__ = ["cut_copy", "gather_into", "spread_from"]


def cut_copy(model: Any, head: Any, device: torch.device) -> tuple[Any, Any]:
    """A copy of the model, each of its layers a unit of FSDP and all the rest one more, and its head.

    Gradients are added up, not averaged. What is no layer, the head among it, lies whole in every process between forward
    and backward: a method's loss uses the head there.
    """
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.fsdp import FSDPModule, fully_shard

    cut, head = copy.deepcopy((model, head))
    mesh = init_device_mesh(device.type, (processes.count(),))
    layers = getattr(model.config, "num_hidden_layers", None)
    for found in [m for m in cut.modules() if isinstance(m, nn.ModuleList) and len(m) == layers]:
        for layer in found:
            fully_shard(layer, mesh=mesh)
    fully_shard(cut, mesh=mesh)
    for module in cut.modules():
        if isinstance(module, FSDPModule):
            module.set_gradient_divide_factor(1.0)
            module.set_force_sum_reduction_for_comms(True)  # gloo has no mean
    return cut, head


def gather_into(model: nn.Module, cut: nn.Module) -> None:
    """Put the whole weights of a cut copy into the model it was made of; all processes must take part."""
    from torch.distributed.tensor import DTensor

    with torch.no_grad():
        for whole, part in zip(model.parameters(), cut.parameters(), strict=True):
            whole.copy_(part.full_tensor() if isinstance(part, DTensor) else part)


def spread_from(model: nn.Module, cut: nn.Module) -> None:
    """Put a model's weights, alike in all processes, into the cut copy that was made of it; all processes must take part."""
    from torch.distributed.tensor import DTensor, distribute_tensor

    with torch.no_grad():
        for whole, part in zip(model.parameters(), cut.parameters(), strict=True):
            there = whole.detach().to(part.device)
            cut_up = isinstance(part, DTensor)
            part.copy_(distribute_tensor(there, part.device_mesh, part.placements) if cut_up else there)
