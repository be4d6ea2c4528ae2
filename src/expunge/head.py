"""The last linear layer of a classifier or tagger: found, checked, and run."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import DivergedError, Problem, RunError, UsageError
from expunge.tasks.base import Batch, Encoded

__all__ = ["Head", "find_head", "head_of", "must_be_finite"]


@dataclass(frozen=True)
class Head:
    """The last linear layer of a classifier: its input is `hidden`, its output the logits.

    Attributes:
        module: The layer.
        pad_token_id: For models that put the layer over every position (decoders): the padding token, since such a
            model reads its answer at the last position that is no padding.
    """

    module: nn.Linear
    pad_token_id: int | None

    def run(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor]:
        """One forward pass.

        Returns:
            (U, H) inputs of the layer and (U, C) logits, both with their graph.
        """
        caught = self.inputs(model, batch)
        if caught is None:
            raise RunError("the model's last linear layer took no part in a forward pass; its head must have changed.")
        return caught

    def inputs(self, model: Any, batch: Batch) -> tuple[Tensor, Tensor] | None:
        """As `run`; None where the layer takes no part in the pass."""
        caught: list[Tensor] = []
        hook = self.module.register_forward_pre_hook(lambda _, args: caught.append(args[0]))
        try:
            logits = batch.select(model(**batch.inputs).logits)
        finally:
            hook.remove()
        if not caught:
            return None
        hidden = caught[-1]
        if hidden.dim() == 3 and batch.columns is not None:
            hidden = batch.select(hidden)
        elif hidden.dim() == 3:
            hidden = hidden[torch.arange(len(hidden), device=hidden.device), self._answer_positions(batch)]
        return hidden, logits

    def _answer_positions(self, batch: Batch) -> Tensor:
        ids = batch.inputs["input_ids"]
        positions = torch.arange(ids.shape[1], device=ids.device)
        return (positions * (ids != self.pad_token_id)).argmax(dim=1)


def head_of(model: Any, task: Any, encoded: Encoded) -> Any:
    """`find_head`, with the first of some records as the probe.

    Raises:
        UsageError: As `find_head`.
    """
    probe = task.collate(encoded, [0]).to(next(model.parameters()).device)
    if task.of_tokens:
        from expunge.token_head import find_token_head

        return find_token_head(model, probe)
    return find_head(model, probe)


def must_be_finite(logits: Tensor) -> None:
    """Refuse the outputs of a model that training, or whoever made it, has broken.

    Raises:
        DivergedError: One of them is NaN or infinite.
    """
    if not torch.isfinite(logits).all():
        raise DivergedError(
            "the model's outputs are NaN or infinite. Nothing was written and the original model is unchanged. "
            "Where unlearning made it so, lower training.learning_rate or the weight of the forgetting term."
        )


def find_head(model: Any, probe: Batch) -> Head:
    """The linear layer that makes the logits, found by running `probe` once and checking that it reproduces them.

    A model that says itself which it is (a SISA ensemble has several) is asked.

    Raises:
        UsageError: No such layer: the model's head ends in something else.
        DivergedError: The model's outputs are not finite.
    """
    if hasattr(model, "find_head"):
        return model.find_head(probe)
    labels = model.config.num_labels
    pad = getattr(model.config, "pad_token_id", None)
    layers = [m for m in model.modules() if isinstance(m, nn.Linear) and m.out_features == labels]
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode():
            for layer in reversed(layers):
                head = Head(layer, pad)
                caught = head.inputs(model, probe)
                if caught is None:  # the layer took no part in the pass
                    continue
                hidden, logits = caught
                must_be_finite(logits)
                made = layer(hidden.to(layer.weight.dtype)).to(logits.dtype)
                loose = 1e-4 if hidden.dtype == logits.dtype == torch.float32 else 5e-2  # under autocast
                if hidden.dim() == 2 and torch.allclose(made, logits, atol=loose, rtol=loose):
                    return head
    finally:
        model.train(was_training)
    way_out = "Expunge works in front of a linear classifier; heads of another kind are not supported yet."
    what = f"{type(model).__name__} has no linear layer with {labels} outputs that makes its logits"
    raise UsageError(Problem("model", what, way_out))
