"""Whether a model and a small one can make an ensemble, judged before any weight loads."""

from __future__ import annotations

from typing import Any

from expunge import models
from expunge.errors import Collector, Problem
from expunge.offset.folder import is_offset
from expunge.offset.manifest import Manifest
from expunge.tasks.kinds import Task, task_for

__all__ = ["misfits"]

_ALIKE = (
    "The two must tell the same tokens apart: give a small model with the model's own tokenizer, or leave method.small out: a "
    "copy of the model's first layers is made."
)


def misfits(
    method: Any, path: str, model: Any, model_config: Any, tokenizer: Any, task: type[Task], trust_remote_code: bool
) -> list[Problem]:
    """What keeps the method `offset` from working with a model.

    Args:
        method: Its settings.
        path: The model's folder or hub id; empty where it is in memory.
        model: The model in memory, or None.
        model_config: Its configuration.
        tokenizer: Its tokenizer, or None where that is a problem of its own.
        task: Its task.
        trust_remote_code: As in transformers.
    """
    before = getattr(model, "about", None) if model is not None else None
    if model is None and is_offset(path):
        before = Manifest.read(path)
    if before is not None:
        if getattr(before, "alpha", method.alpha) == method.alpha:
            return []
        way_out = f"Give method.alpha = {before.alpha}, as it was made with."
        return [Problem("method.alpha", f"{method.alpha} is not that of the offset folder", way_out)]
    if method.small is not None:
        return _small(method.small, model_config, tokenizer, task, trust_remote_code)
    if hasattr(model, "unknown_weights"):
        way_out = "Name a small model with the same vocabulary or classes: Offset(small=FOLDER)."
        return [Problem("method.small", "a black box has no layers to copy", way_out)]
    count = int(getattr(model_config, "num_hidden_layers", None) or 0)
    if not count:
        way_out = "Name a small model: method.small = FOLDER."
        return [Problem("method.layers", f"a {model_config.model_type} names no layers to copy", way_out)]
    if method.layers is not None and method.layers > count:
        way_out = f"The model has the layers 1 to {count}."
        return [Problem("method.layers", f"{method.layers} is not allowed", way_out)]
    return []


def _small(path: str, model_config: Any, tokenizer: Any, task: type[Task], trust: bool) -> list[Problem]:
    where = "method.small"
    if found := models.inspect_folder(path, where=where):
        return found
    collected = Collector()
    config = collected.run(models.load_config, path, where=where, trust_remote_code=trust)
    if config is None:
        return collected.problems
    kind = collected.run(task_for, (config.architectures or ["a model of unknown kind"])[0])
    if kind is not None and kind is not task:
        what = f'"{path}" is a {kind.noun}, the model a {task.noun}'
        return [Problem(where, what, "Give a small model of the same kind.")]
    own, other = (int(getattr(c, "vocab_size", 0) or 0) for c in (model_config, config))
    if task.of_tokens and own != other:
        return [Problem(where, f'"{path}" has a vocabulary of {other} tokens, the model one of {own}', _ALIKE)]
    if not task.of_tokens and config.id2label != model_config.id2label:
        way_out = "Its classes must be the model's, in the same order."
        return [Problem(where, f'"{path}" has other classes than the model', way_out)]
    theirs = collected.run(models.load_tokenizer, path, where=where, trust_remote_code=trust)
    if theirs is not None and tokenizer is not None and theirs.get_vocab() != tokenizer.get_vocab():
        return [Problem(where, f'the tokenizer of "{path}" numbers other tokens than the model\'s', _ALIKE)]
    return collected.problems
