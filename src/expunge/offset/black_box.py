"""A model of which nothing is known but what it says: weights elsewhere, an interface, any function of tokens."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from expunge.errors import Problem, RunError, UsageError
from expunge.offset.heads import BlackHead, BlackTokenHead, Sizes
from expunge.tasks.base import Batch

__all__ = ["BlackBox"]


@dataclass
class Said:
    """What a call gives.

    Attributes:
        logits: Logits or log-probabilities.
    """

    logits: Tensor


class BlackBox(nn.Module):
    """A frozen model behind a function, to be erased from with the method `offset`.

    The function takes keyword arguments as a transformers model does: ``input_ids`` and ``attention_mask``, integers of shape
    (B, T), padded on the right, and ``token_type_ids`` where the tokenizer makes them. It gives a tensor, or anything with
    one as ``logits``: of a causal language model (B, T, V), of a classifier (B, C), of a tagger (B, T, C). Logits and natural
    log-probabilities do alike: a constant for all classes changes no probability. For V tokens these must be all of them in
    their order: an interface that names the most probable ones alone will not do.

    Args:
        call: The function; a `torch.nn.Module` is called in its own mode and never trained.
        config: Folder, hub id or configuration of a model of the same kind with the same vocabulary, or the same classes: the
            small model's will do.

    Raises:
        UsageError: There is no such configuration.

    Example:
        >>> box = BlackBox(lambda input_ids, **_: ask(input_ids), "my-small-model")  # doctest: +SKIP
        >>> unlearn(box, data, Offset(small="my-small-model"), tokenizer=tokenizer, ...)  # doctest: +SKIP
    """

    unknown_weights = "not known: a black box"

    def __init__(self, call: Callable[..., Any], config: Any) -> None:
        super().__init__()
        if not callable(call):
            what = f"{type(call).__name__} cannot be called"
            raise UsageError(Problem("model", what, "Give a function of input_ids and attention_mask."))
        if isinstance(config, str | os.PathLike):
            from expunge.models import load_config

            config = load_config(str(config), where="config")
        self._call = (
            call,
        )  # in a tuple, or a module would become a part of this one, and be trained and saved with it
        self.config = config
        # Tells where tensors go, and makes this black box differ from any other wherever weights are hashed.
        own = torch.frombuffer(bytearray(os.urandom(8)), dtype=torch.uint8).float()
        self.place = nn.Parameter(own, requires_grad=False)
        self.eval()

    def __deepcopy__(self, memo: object) -> BlackBox:
        return self  # there is nothing in it that could be changed

    @property
    def tokens(self) -> bool:
        """Whether it writes."""
        return not any(
            name.endswith(("ForSequenceClassification", "ForTokenClassification"))
            for name in self.config.architectures or ()
        )

    def forward(self, **inputs: Any) -> Said:
        """What the function says.

        Raises:
            RunError: It says something of another shape, or no numbers.
        """
        known = {name: inputs[name] for name in ("input_ids", "attention_mask", "token_type_ids") if name in inputs}
        with torch.no_grad():
            said = self._call[0](**known)
        logits = said if isinstance(said, Tensor) else getattr(said, "logits", None)
        classes = int(self.config.vocab_size if self.tokens else self.config.num_labels)
        rows = len(known["input_ids"])
        if not isinstance(logits, Tensor) or logits.shape[0] != rows or logits.shape[-1] != classes:
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(said).__name__
            raise RunError(f"the black box gave {shape} for {rows} rows; ({rows}, ..., {classes}) was expected.")
        if torch.isnan(logits).any():
            raise RunError("the black box gave NaN.")
        return Said(logits.detach().to(self.place.device))

    def find_head(self, probe: Batch) -> BlackHead | BlackTokenHead:
        """Stands for the last layer, which nobody sees."""
        del probe
        if not self.tokens:
            return BlackHead()
        return BlackTokenHead(Sizes(int(self.config.vocab_size), int(self.config.vocab_size)))

    def generate(self, *, input_ids: Tensor, attention_mask: Tensor, generation_config: Any) -> Tensor:
        """As `generate` of transformers: the prompts, each followed by what is written."""
        from expunge.offset.writing import write

        return write(self, input_ids, attention_mask, generation_config)
