"""The encoder behind detectors: one frozen model with an adapter a request, trained on that request's records alone."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from expunge.errors import DivergedError, Problem
from expunge.o3.adapters import add_adapter, set_active, weights_of
from expunge.o3.losses import contrastive_entropy

__all__ = ["OWN", "Encoder", "Tuning", "load_encoder", "misfits", "own_encoder"]

OWN = "own"
"""Name of the encoder that is the original's own."""
_ROWS = 32
_TOKENS = 512  # where a tokenizer names no limit


@dataclass(frozen=True)
class Tuning:
    """How an encoder is fitted to a request: the paper's settings for RoBERTa-large, but for the learning rate.

    Attributes:
        epochs: Passes over the records.
        learning_rate: Peak learning rate of AdamW.
        rank: Rank of the adapter.
        masked: Share of tokens masked.
        batch_size: Records a step.
        warmup: Share of the steps over which the learning rate rises; it falls to 0 afterwards.
        weight_decay: AdamW's.
        max_norm: Gradient clipping.
    """

    epochs: float
    learning_rate: float
    rank: int
    masked: float
    batch_size: int = 8
    warmup: float = 0.06
    weight_decay: float = 0.01
    max_norm: float = 1.0


class Encoder(nn.Module):
    """An encoder language model that reads what the unlearned model reads: rows of that model's tokens.

    With an encoder of its own (`OWN`) these are its tokens too; any other gets the text they decode to. A text's state in a
    layer is the mean over its tokens, padding left out (the authors' code averages over padding as well).

    Attributes:
        model: The encoder, frozen; with its head for masked tokens where it has a trained one.
        tokenizer: Its tokenizer.
        name: `OWN`, or what the user called it.
        length: Tokens a text is cut to.
    """

    def __init__(self, model: Any, tokenizer: Any, reader: Any, name: str, length: int) -> None:
        super().__init__()
        self.model = model.requires_grad_(False).eval()
        self.tokenizer, self.name, self.length = tokenizer, name, length
        self._reader = reader

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> Encoder:
        """Moves go through to an encoder of another name, casts do not: its states and hash are of the weights it came with."""

        def moved(tensor: Tensor) -> Tensor:
            found = fn(tensor)
            return found if self.own or found.dtype == tensor.dtype else tensor.to(found.device)

        return super()._apply(moved, recurse)

    @property
    def own(self) -> bool:
        """Whether it is the original's own."""
        return self.name == OWN

    def batch(self, rows: Sequence[Sequence[int]]) -> dict[str, Tensor]:
        """``input_ids`` and ``attention_mask``, (B, T) each, of rows of the unlearned model's tokens."""
        if self.own:
            kept = [list(row)[: self.length] or [self.tokenizer.unk_token_id or 0] for row in rows]
        else:
            texts = [self._reader.decode(row, skip_special_tokens=True).strip() for row in rows]
            tokenizer = copy.deepcopy(self.tokenizer)  # truncation is a state of the tokenizer
            kept = tokenizer(texts, truncation=True, max_length=self.length)["input_ids"]
        width, fill = max(map(len, kept)), self.tokenizer.pad_token_id
        ids = torch.tensor([[*row, *[fill] * (width - len(row))] for row in kept])
        mask = torch.tensor([[1] * len(row) + [0] * (width - len(row)) for row in kept])
        where = next(self.model.parameters()).device
        return {"input_ids": ids.to(where), "attention_mask": mask.to(where)}

    def use(self, name: str | None) -> None:
        """Read with the adapter of that name, or with none."""
        set_active(self.model, [] if name is None else [name])

    def pooled(self, inputs: dict[str, Tensor]) -> tuple[Tensor, Any]:
        """(B, L, H) mean states behind every layer, and the model's whole output."""
        output = self.model(**inputs, output_hidden_states=True)
        weights = inputs["attention_mask"][:, :, None].float()
        states = torch.stack([state.float() for state in output.hidden_states[1:]], dim=1)
        return (states * weights[:, None]).sum(dim=2) / weights.sum(dim=1)[:, None], output

    def states(self, rows: Sequence[Sequence[int]], name: str | None) -> np.ndarray:
        """(N, L, H) float32 states of rows of tokens, read with the adapter of that name."""
        self.use(name)
        found = []
        with torch.inference_mode():
            for start in range(0, len(rows), _ROWS):
                pooled, _ = self.pooled(self.batch(rows[start : start + _ROWS]))
                found.append(pooled.cpu().numpy())
        return np.concatenate(found)

    def tune(
        self, name: str, rows: Sequence[Sequence[int]], how: Tuning, seed: int, note: Callable[[dict[str, float]], None]
    ) -> float:
        """Give it an adapter of that name, trained on these rows with `contrastive_entropy` plus masked tokens.

        The entropy is divided by rows and layers, so that its weight beside the masked tokens' mean does not hang on the size
        of a batch. Every token drawn becomes the mask token. Without dropout.

        Returns:
            The passes it took: one forward and backward of a row through the encoder counts 1, forward alone a third.

        Raises:
            DivergedError: The loss became NaN or infinite.
        """
        from transformers import get_scheduler

        add_adapter(self.model, name, how.rank, seed)
        parameters = list(weights_of(self.model, name).values())
        optimizer = torch.optim.AdamW(parameters, lr=how.learning_rate, weight_decay=how.weight_decay)
        rng = np.random.default_rng([seed, 21])
        a_pass = -(-len(rows) // how.batch_size)
        steps = max(1, round(how.epochs * a_pass))
        schedule = get_scheduler("linear", optimizer, round(how.warmup * steps), steps)
        order: list[int] = []
        passes = 0.0
        for step in range(steps):
            order = order or rng.permutation(len(rows)).tolist()
            chosen, order = order[: how.batch_size], order[how.batch_size :]
            inputs = self.batch([rows[i] for i in chosen])
            self.use(None)
            with torch.no_grad():
                keys, _ = self.pooled(inputs)
            self.use(name)
            for parameter in parameters:
                parameter.requires_grad_(True)
            masked, drawn = self._masked(inputs, how.masked, rng)
            views, output = self.pooled({**inputs, "input_ids": masked})
            entropy = contrastive_entropy(views, keys) / (views.shape[0] * views.shape[1])
            words = self._masked_tokens(output, inputs["input_ids"], drawn)
            loss = entropy + words
            if not torch.isfinite(loss):
                raise DivergedError(
                    f"o3: the detector's loss is not finite at step {step}. Lower method.encoder_learning_rate."
                )
            loss.backward()
            nn.utils.clip_grad_norm_(parameters, how.max_norm)
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
            passes += len(chosen) * 4 / 3
            note({"step": step + 1, "entropy": float(entropy.detach()), "masked tokens": float(words.detach())})
        self.use(None)
        return passes

    def _masked(self, inputs: dict[str, Tensor], share: float, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Token ids with a share of the words' tokens masked, one a row at least, and which these are."""
        ids = inputs["input_ids"]
        special = torch.tensor(sorted(set(self.tokenizer.all_special_ids) - {self.tokenizer.unk_token_id}))
        words = inputs["attention_mask"].bool() & ~torch.isin(ids, special.to(ids))
        chance = torch.from_numpy(rng.random(ids.shape)).to(ids.device).masked_fill(~words, 2.0)
        drawn = (chance < share) | ((chance == chance.amin(dim=1, keepdim=True)) & words)
        return ids.masked_fill(drawn, self.tokenizer.mask_token_id), drawn

    def _masked_tokens(self, output: Any, ids: Tensor, drawn: Tensor) -> Tensor:
        """Mean cross-entropy of the masked tokens, in nats: by the encoder's own head, else by one tied to its embeddings."""
        if not drawn.any():
            return output.hidden_states[-1].sum() * 0
        if "logits" in output:
            logits = output.logits[drawn]
        else:
            words = self.model.get_input_embeddings().weight
            logits = functional.linear(output.hidden_states[-1][drawn].to(words), words)
        return functional.cross_entropy(logits.float(), ids[drawn])


def own_encoder(original: Any, tokenizer: Any, length: int) -> Encoder:
    """A copy of the original's own encoder, without its head and adapters."""
    return Encoder(copy.deepcopy(original.base_model), tokenizer, tokenizer, OWN, length)


def load_encoder(path: str, reader: Any, name: str) -> Encoder:
    """An encoder of a folder or hub id, with its head for masked tokens where that is a trained one.

    Args:
        path: Folder or hub id.
        reader: Tokenizer of the unlearned model.
        name: What the user called it.
    """
    from transformers import AutoModel, AutoModelForMaskedLM

    from expunge.models import load_tokenizer

    options: dict[str, Any] = {"dtype": torch.float32, "use_safetensors": True}
    if not torch.cuda.is_available():
        options["attn_implementation"] = "eager"
    model, info = AutoModelForMaskedLM.from_pretrained(path, output_loading_info=True, **options)
    if info["missing_keys"]:  # a head made at random would teach the encoder noise
        model = AutoModel.from_pretrained(path, **options)
    tokenizer = load_tokenizer(path, where="method.encoder")
    positions = getattr(model.config, "max_position_embeddings", None) or _TOKENS
    offset = (model.config.pad_token_id or 0) + 1 if "roberta" in str(model.config.model_type) else 0
    limit = int(min(tokenizer.model_max_length, positions - offset, _TOKENS))
    return Encoder(model, tokenizer, reader, name, limit)


def misfits(path: str | None, config: Any, tokens: bool) -> list[Problem]:
    """What keeps an encoder from telling a request's records from others; reads no weights.

    Args:
        path: Folder or hub id; None for the original's own.
        config: Configuration of the original.
        tokens: Whether the original is a causal language model.
    """
    from expunge.errors import UsageError
    from expunge.models import inspect_folder, load_config

    where, way_out = "method.encoder", "Name an encoder, such as BERT, RoBERTa or MiniLM: --set method.encoder=FOLDER."
    if path is None:
        if not tokens and _reads_both_ways(config):
            return []
        kind = f"the model is a {config.model_type}, no encoder, and none is named for the detector"
        return [Problem(where, kind, way_out)]
    if found := inspect_folder(path, where=where):
        return found
    try:
        other = load_config(path, where=where)
    except UsageError as error:
        return list(error.problems)
    if not _reads_both_ways(other) or str((other.architectures or [""])[0]).endswith(("ForCausalLM", "LMHeadModel")):
        return [Problem(where, f'"{path}" is a {other.model_type} model, no encoder of texts', way_out)]
    return []


def _reads_both_ways(config: Any) -> bool:
    """Whether models of this kind are trained on masked tokens."""
    from transformers.models.auto.modeling_auto import MODEL_FOR_MASKED_LM_MAPPING_NAMES

    whole = not getattr(config, "is_encoder_decoder", False) and not getattr(config, "is_decoder", False)
    return whole and config.model_type in MODEL_FOR_MASKED_LM_MAPPING_NAMES
