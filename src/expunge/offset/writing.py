"""Generation by the ensemble: the offset is added to the large model's logits at every token."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from expunge.offset.heads import combined

__all__ = ["AddOffset", "write"]


class AddOffset(LogitsProcessor):
    """A logits processor of transformers: ``l_M + alpha (l_tuned - l_small)``, with key and value caches of both small models.

    It comes before temperature and the like, which are then applied to the ensemble's logits.

    Args:
        small: The small model as it was.
        tuned: Its trained copy.
        alpha: Weight of the offset.
        mask: (B, T) of the prompts: 0 where they are padded.
    """

    def __init__(self, small: Any, tuned: Any, alpha: float, mask: Tensor) -> None:
        self._small, self._tuned = _Following(small, mask), _Following(tuned, mask)
        self._alpha = alpha

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B, V) logits of the next token after (B, T) tokens, of which `scores` are the large model's."""
        small, tuned = (one.next(input_ids).to(scores) for one in (self._small, self._tuned))
        return combined(scores, small, tuned, self._alpha)


class _Following:
    """Next-token logits of a model that reads on as tokens are added; anything else is read from the start."""

    def __init__(self, model: Any, mask: Tensor) -> None:
        self._model, self._mask = model, mask
        self._read: Tensor | None = None
        self._past: Any = None

    def next(self, ids: Tensor) -> Tensor:
        read = self._read
        goes_on = (
            read is not None and self._past is not None and ids.shape == (read.shape[0], read.shape[1] + 1)
            and torch.equal(ids[:, :-1], read)
        )  # fmt: skip
        if not goes_on:
            self._past = None
        added = ids.shape[1] - self._mask.shape[1]
        mask = torch.cat([self._mask, self._mask.new_ones(len(self._mask), added)], dim=1)
        places = (mask.cumsum(dim=1) - 1).clamp(min=0)
        new = slice(-1, None) if goes_on else slice(None)
        said = self._model(
            input_ids=ids[:, new], attention_mask=mask, position_ids=places[:, new], past_key_values=self._past,
            use_cache=True,
        )  # fmt: skip
        self._read, self._past = ids, said.past_key_values
        return said.logits[:, -1]


def write(
    model: Any,
    input_ids: Tensor,
    attention_mask: Tensor,
    settings: Any,
    *,
    processor: Callable[[Tensor, Tensor], Tensor] | None = None,
) -> Tensor:
    """Generation without a cache, for a model that is a function: every token is a call with all tokens so far.

    Rows are padded on the right for the call, whatever side the prompts are padded on: a function knows no positions.

    Args:
        model: (input_ids, attention_mask) -> something with (B, T, V) `logits`.
        input_ids: (B, T) prompts, padded on the left.
        attention_mask: (B, T) 0 where they are padded.
        settings: A `GenerationConfig`: `max_new_tokens`, `do_sample`, `temperature`, `eos_token_id` and `pad_token_id`.
        processor: (ids, logits) -> logits, as in transformers.

    Returns:
        (B, T + n) the prompts with what was written; padding behind the end-of-text token.
    """
    ids = input_ids
    fill = int(settings.pad_token_id)
    ended = torch.zeros(len(ids), dtype=torch.bool, device=ids.device)
    for _ in range(int(settings.max_new_tokens)):
        mask = torch.cat([attention_mask, attention_mask.new_ones(len(ids), ids.shape[1] - input_ids.shape[1])], dim=1)
        lengths = mask.sum(dim=1)
        order = mask.argsort(dim=1, descending=True, stable=True)
        logits = model(input_ids=ids.gather(1, order), attention_mask=mask.gather(1, order)).logits
        scores = logits[torch.arange(len(ids), device=ids.device), lengths - 1].float()
        if processor is not None:
            scores = processor(ids, scores)
        if settings.do_sample:
            drawn = torch.multinomial((scores / settings.temperature).softmax(dim=-1), 1).squeeze(1)
        else:
            drawn = scores.argmax(dim=-1)
        ids = torch.cat([ids, drawn.masked_fill(ended, fill)[:, None]], dim=1)
        ended |= drawn == int(settings.eos_token_id)
        if bool(ended.all()):
            break
    return ids
