"""Whether models can be erased from and compared with, judged before any weight loads."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

from expunge import models, registry
from expunge.config import Recipe, RunConfig, read_recipe
from expunge.errors import Collector, Problem, UsageError
from expunge.methods.base import Method, trains_the_model
from expunge.model_kinds import architecture_of, unfit_kind
from expunge.tasks.kinds import Task, task_for

__all__ = ["comparisons", "max_length", "original", "rewinding"]


def original(config: RunConfig, model: Any, tokenizer: Any, found: Collector) -> tuple[Any, Any, type[Task] | None]:
    """Configuration, tokenizer and task of the model to erase from, given in memory or named; None for what cannot be had."""
    found.problems.extend(unfit_kind(config.method, model, config.model.path))
    if model is not None:
        if tokenizer is None:
            found.problems.append(Problem("tokenizer", "none is given", "Give the model's tokenizer with the model."))
        elif getattr(tokenizer, "pad_token_id", None) is None:
            way_out = "Set one: tokenizer.pad_token = ..., model.config.pad_token_id = ..."
            found.problems.append(Problem("tokenizer", "it has no padding token", way_out))
        if hasattr(model, "peft_config"):
            way_out = "Merge the adapter first: model.merge_and_unload()."
            found.problems.append(Problem("model", "it carries an adapter", way_out))
        return model.config, tokenizer, _task(model.config, architecture_of(model), tokenizer, found)
    path, trust = config.model.path, config.model.trust_remote_code
    problems = models.inspect_folder(path, where="model.path")
    found.problems.extend(problems)
    if not path or (problems and not (Path(path) / "config.json").is_file()):
        return None, None, None
    model_config = found.run(models.load_config, path, where="model.path", trust_remote_code=trust)
    if model_config is None:
        return None, None, None
    tokenizer = found.run(models.load_tokenizer, path, where="model.path", trust_remote_code=trust)
    architecture = (model_config.architectures or ["a model of unknown kind"])[0]
    return model_config, tokenizer, _task(model_config, architecture, tokenizer, found)


def _task(model_config: Any, architecture: str, tokenizer: Any, found: Collector) -> type[Task] | None:
    task = found.run(task_for, architecture)
    if task is not None:
        found.problems.extend(task.unsuitable(model_config, tokenizer))
    found.problems.extend(_unsuitable(model_config, task))
    if tokenizer is not None and task is not None and not task.of_tokens:  # of tokens: the task's names say so
        found.problems.extend(_unread(model_config, tokenizer))
    return task


def _unsuitable(model_config: Any, task: type[Task] | None) -> list[Problem]:
    problems = []
    tokens = task is not None and task.of_tokens
    if task is not None and not tokens and model_config.num_labels < 2:
        what, way_out = "the model has a single output", "Only single-label classification is supported for now."
        problems.append(Problem("model.path", what, way_out))
    if getattr(model_config, "quantization_config", None):
        way_out = "Quantised weights cannot be trained; give the model before quantisation."
        problems.append(Problem("model.path", "the model is quantised", way_out))
    if model_config.pad_token_id is None and not tokens:
        way_out = "Set model.config.pad_token_id to the tokenizer's and save the model again."
        problems.append(Problem("model.path", "the model's config names no padding token", way_out))
    if sorted(model_config.id2label) != list(range(model_config.num_labels)):
        way_out = "Number the classes 0, 1, 2 ... in config.json."
        problems.append(Problem("model.path", f"id2label has the keys {sorted(model_config.id2label)}", way_out))
    return problems


def _unread(model_config: Any, tokenizer: Any) -> list[Problem]:
    """Tokens that the model has no embedding for."""
    count, last = _vocabulary(model_config), max(tokenizer.get_vocab().values(), default=0)
    if count is None or last < count:
        return []
    what = f"its tokenizer has a token of number {last}, and the model embeds {count}"
    return [Problem("model.path", what, "Give the tokenizer the model was trained with.")]


def max_length(config: RunConfig, recipe: Recipe | None, tokenizer: Any, model_config: Any) -> int:
    """Tokens a record is cut to: `model.max_length`, else the recipe's, else the tokenizer's own limit.

    The tokenizer's limit (2048 where it names none) counts no further than the model has positions for.

    Raises:
        UsageError: More than the model has positions for, or too few for a word.
    """
    _must_fit(config.model.max_length, model_config, "model.max_length")
    given = config.model.max_length or (recipe.max_length if recipe is not None else None)
    if config.model.max_length and recipe is not None and recipe.max_length not in (None, config.model.max_length):
        what = f"it is {config.model.max_length}, but the recipe trains on {recipe.max_length} tokens"
        way_out = "A retrained model must read what the original reads: give one length, or leave model.max_length out."
        raise UsageError(Problem("model.max_length", what, way_out))
    special = int(tokenizer.num_special_tokens_to_add())
    if given is not None and given <= special:
        what = f"{given} tokens leave no room for a word beside the {special} special ones"
        raise UsageError(Problem("model.max_length", what, "Give more."))
    own = int(tokenizer.model_max_length) if tokenizer.model_max_length < 100_000 else 2048
    return given or min(own, _longest_input(model_config) or own)


def _longest_input(config: Any) -> int | None:
    """Tokens the model has positions for; None where it sets no limit."""
    positions = getattr(config, "max_position_embeddings", None) or getattr(config, "n_positions", None)
    if not positions or positions < 0:
        return None
    offset = (config.pad_token_id or 0) + 1 if "roberta" in str(config.model_type) else 0
    return int(positions - offset)


def _must_fit(tokens: int | None, model_config: Any, where: str) -> None:
    most = _longest_input(model_config)
    if tokens is not None and most is not None and tokens > most:
        what = f"{tokens} tokens are more than the model has positions for"
        raise UsageError(Problem(where, what, f"Give at most {most}."))


def comparisons(config: RunConfig, model_config: Any, found: Collector) -> Recipe | None:
    """Whether what is to be compared with can be compared with; the recipe of retrained models.

    Raises:
        UsageError: Retraining is asked for without base or recipe, or the recipe is wrong. Other problems go to `found`.
    """
    retrain = config.retrain
    for path in retrain.models:
        problems = models.inspect_folder(path, where="retrain.models")
        found.problems.extend(problems)
        trust = config.model.trust_remote_code
        other = None
        if not problems:
            other = found.run(models.load_config, path, where="retrain.models", trust_remote_code=trust)
        if other is not None and model_config is not None and _told_apart(other) != _told_apart(model_config):
            way_out = "A retrained model must have the same classes in the same order."
            found.problems.append(Problem("retrain.models", f'"{path}" has other classes than the model', way_out))
    if config.audit.require == "retrain-compared" and not retrain.enabled and not retrain.models:
        way_out = "Add --retrain with --base and --recipe, or --retrained FOLDER; or require population."
        what = "retrain-compared is required, but there is no retrained model to compare with"
        found.problems.append(Problem("audit.require", what, way_out))
    if retrain.engine == "ray" and find_spec("ray") is None:
        way_out = "Install it: pip install ray. Or leave retrain.engine out: one model is then trained after the other."
        found.problems.append(Problem("retrain.engine", "Ray is not installed", way_out))
    wanted = retrain.enabled or config.method.needs_base
    if wanted and (retrain.base is None or retrain.recipe is None):
        missing = [name for name, value in (("base", retrain.base), ("recipe", retrain.recipe)) if value is None]
        way_out = (
            "Retraining needs the model the original was fine-tuned from (--base PATH) and how (--recipe recipe.toml "
            "with epochs, learning_rate, batch_size, max_length, seed). Without them leave retraining out: the "
            "evidence is then population-only."
        )
        what = f"retraining is asked for without {' and '.join('retrain.' + name for name in missing)}"
        raise UsageError(Problem("retrain", what, way_out))
    if retrain.base is not None:
        problems = models.inspect_folder(retrain.base, where="retrain.base")
        found.problems.extend(problems)
        trust = config.model.trust_remote_code
        base = None
        if not problems:
            base = found.run(models.load_config, retrain.base, where="retrain.base", trust_remote_code=trust)
        if retrain.base == config.model.path:
            what = "it is the fine-tuned model itself, which has seen the records"
            found.problems.append(Problem("retrain.base", what, "Give the model it was fine-tuned from."))
        elif base is not None and model_config is not None and base.model_type != model_config.model_type:
            what = f"it is a {base.model_type}, the model a {model_config.model_type}"
            found.problems.append(Problem("retrain.base", what, "Give the base the model was fine-tuned from."))
        elif base is not None and model_config is not None and _vocabulary(base) != _vocabulary(model_config):
            what = f"its vocabulary has {_vocabulary(base)} tokens, the model's {_vocabulary(model_config)}"
            found.problems.append(Problem("retrain.base", what, "Give the base the model was fine-tuned from."))
    recipe = read_recipe(retrain.recipe) if retrain.recipe is not None else None
    if recipe is not None and model_config is not None:
        _must_fit(recipe.max_length, model_config, "recipe.max_length")
    return recipe


def rewinding(config: RunConfig) -> list[Problem]:
    """What keeps weights from being moved back toward the base, where the method or a setting of the training does."""
    method, found = config.method, []
    name = registry.name_of("methods", type(method))
    wants = name if getattr(method, "rewinds", False) else None
    for setting in ("rewind", "rewind_first"):
        if not getattr(config.training, setting):
            continue
        if trains_the_model(method):
            wants = wants or f"training.{setting}"
        else:
            what = f"{name} trains models of its own, and their weights stay as they are"
            way_out = "Leave it out, or use a method with a loss (`expunge list`)."
            found.append(Problem(f"training.{setting}", what, way_out))
    if wants and config.retrain.base is None:
        way_out = "Name the model the original was fine-tuned from: --base PATH."
        found.append(Problem("retrain.base", f"{wants} needs the base model, and none is named", way_out))
    return found


def of_neighbours(config: RunConfig, task: Any) -> list[Problem]:
    """What keeps paraphrases from being looked for, where they are to be.

    Args:
        config: The configuration.
        task: The task, or its type; None: not known.
    """
    if config.request.neighbours is None:
        return []
    found = []
    if config.retrain.base is None:
        way_out = "Name the model the original was fine-tuned from: --base PATH."
        found.append(Problem("request.neighbours", "there is no base model to compare texts in", way_out))
    if task is not None and task.of_tokens:
        way_out = "Leave it out: near-duplicates are looked for without it."
        what = "neighbours are looked for in an encoder, and the model is a causal language model"
        found.append(Problem("request.neighbours", what, way_out))
    return found


def low_rank(config: RunConfig) -> list[Problem]:
    """What keeps low-rank updates from being trained, where they are to be: a method that takes no steps on the model."""
    method = config.method
    if not config.training.lora_rank or isinstance(method, Method):
        return []
    what = f"{registry.name_of('methods', type(method))} is no training loss, and would train all weights"
    return [Problem("training.lora_rank", what, "Leave it out, or use a method with a loss (`expunge list`).")]


def _told_apart(model_config: Any) -> Any:
    """Classes, and for language models the vocabulary."""
    return model_config.id2label, _vocabulary(model_config)


def _vocabulary(model_config: Any) -> int | None:
    return getattr(model_config, "vocab_size", None)
