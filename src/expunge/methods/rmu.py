"""Representation misdirection for unlearning."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from expunge.errors import Problem
from expunge.methods.base import Method, MethodContext, State
from expunge.options import NonNegative, NonNegativeInt, Positive, PositiveInt, option

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["RMU"]


@dataclass(frozen=True, kw_only=True)
class RMU(Method):
    """Steer the states of forget units behind one layer toward a random direction, and hold those of retained units.

    Formula: ``L = mean over units of ||h - c u||^2 / H + retain_weight * mean over units of ||h' - h'_ref||^2 / H``, with h the
    states behind `layer`, u a random direction of length 1 that stays the same, h'_ref the original's
    (`expunge.token_losses.steered`, `held`).

    Source: Li et al., "The WMDP Benchmark: Measuring and Reducing Malicious Use With Unlearning", arXiv 2403.03218. Only
    weights of `layer` and of the `below` layers under it are changed, as there.

    Ours: a pass ends behind `layer`, and so do the gradients; the original's states are taken once; all weights of these
    layers are trained, where the authors' code takes one matrix a layer. Units are the tokens of answers.

    Failure signs: outputs on forget records become gibberish, which tells what was taken out; with a small coefficient nothing
    is forgotten, and how large it must be differs from model to model.

    Example:
        >>> RMU(layer=5).below
        2
    """

    layer: PositiveInt = option(7, "layer, counted from 1, behind which states are steered")
    coefficient: Positive = option(20.0, "c, the length of what states are steered to")
    below: NonNegativeInt = option(2, "how many layers under it are trained too")
    retain_weight: NonNegative = option(100.0, "weight of what holds retained states")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")

    needs: ClassVar[frozenset[str]] = frozenset({"forget.layer", "retain.layer", "retain.reference_layer"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "elsewhere"
    units: ClassVar[frozenset[str]] = frozenset({"tokens"})

    def misfits(self, model_config: Any) -> list[Problem]:
        count = int(getattr(model_config, "num_hidden_layers", self.layer))
        if self.layer <= count:
            return []
        return [Problem("method.layer", f"{self.layer} is not allowed", f"The model has the layers 1 to {count}.")]

    def prepare(self, context: MethodContext) -> State:
        import torch

        made = torch.Generator().manual_seed(context.seed)
        direction = torch.rand(int(context.model.config.hidden_size), generator=made)
        return {"direction": direction / direction.norm()}

    def trained(self, model: Any) -> list[str]:
        from expunge.halfway import layer_of

        layers = [layer_of(model, n) for n in range(max(1, self.layer - self.below), self.layer + 1)]
        own = {id(parameter) for layer in layers for parameter in layer.parameters()}
        return [name for name, parameter in model.named_parameters() if id(parameter) in own]

    def loss(self, step: Step) -> dict[str, Tensor]:
        from expunge.token_losses import held, steered

        forget, retain = step.forget.layer, step.retain.layer
        away = steered(forget, step.state["direction"].to(forget), self.coefficient)
        kept = held(retain, step.retain.reference_layer.to(retain))
        return {
            "retain": self.retain_weight * kept.sum() / max(1, len(kept)),
            "forget": away.sum() / max(1, len(away)),
        }
