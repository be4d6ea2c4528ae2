"""Low-rank updates (LoRA) in place of changes of all weights, merged when a run is over."""

from __future__ import annotations

from typing import Any

from expunge.errors import Problem, UsageError

__all__ = ["PEFT", "merged", "problems", "with_adapter"]

PEFT = "Install it: pip install peft."


def problems(rank: int) -> list[Problem]:
    """What keeps low-rank updates from being trained here."""
    from importlib.util import find_spec

    if not rank or find_spec("peft"):
        return []
    return [Problem("training.lora_rank", "peft is not installed", PEFT)]


def with_adapter(model: Any, rank: int, seed: int, head: Any = None) -> Any:
    """The model with new low-rank updates of all linear layers but the head, alone trainable; itself for rank 0.

    peft knows the head of a causal language model; that of any other is to be given.

    New updates change nothing (Hu et al., arXiv 2106.09685), so that the model is still the original, and its outputs are the
    reference: no second model is needed.
    """
    if not rank:
        return model
    if found := problems(rank):
        raise UsageError(found)
    import torch
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    heads = [name for name, module in model.named_modules() if head is not None and module is head]
    settings = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=0.0, target_modules="all-linear", exclude_modules=heads or None
    )
    return get_peft_model(model, settings)


def merged(model: Any) -> Any:
    """The model with its low-rank updates added to its weights; itself without any."""
    if not hasattr(model, "merge_and_unload"):
        return model
    made = model.merge_and_unload()
    return made.requires_grad_(True)
