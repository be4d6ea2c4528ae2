"""The unlearned model of O3: the original, untouched, with adapters that are loaded as far as each input asks for."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.o3.adapters import Gate
from expunge.o3.detector import Detector
from expunge.o3.encoder import Encoder
from expunge.o3.manifest import Manifest, request_name
from expunge.tasks.base import Batch
from expunge.token_head import TokenHead, find_token_head

__all__ = ["GatedTokenHead", "O3Model"]


class O3Model(nn.Module):
    """Usable where a transformers model is: ``h' = W h + w(x) A B h`` in every adapted layer (arXiv 2407.10223, Algorithm 2).

    Rows of a batch have weights of their own. How several requests' adapters are loaded the manifest says (`Manifest.load`).
    ``all``: ``w(x) = max_t w_t(x)`` over the requests' detectors, as in the paper, and ``A B`` is the sum over the requests'
    adapters: where one is loaded all are. ``own``: ``h' = W h + sum_t w_t(x) A_t B_t h``, each by its own request's detector.
    Either way an adapter was trained with the earlier ones loaded as they will be.

    A classifier's input is the whole text. A causal language model's is the prompt: `generate` decides on it, and scoring
    decides on what stands before the answer (of a plain text its first half). What the prompt template adds to every prompt is
    left out of it. Called directly, without either, it decides on all it is given.

    Attributes:
        model: The original with the adapters in it; its own weights are as they were.
        tokenizer: Its tokenizer.
        encoder: Behind the detectors.
        detectors: One a request.
        gate: How far adapters are loaded.
        manifest: What was asked of it.
        config: The original's configuration.
    """

    def __init__(
        self,
        model: Any,
        tokenizer: Any,
        encoder: Encoder,
        detectors: Sequence[Detector],
        gate: Gate,
        manifest: Manifest,
    ) -> None:
        super().__init__()
        self.model, self.encoder = model, encoder
        self.tokenizer, self.detectors, self.gate, self.manifest = tokenizer, list(detectors), gate, manifest
        self.config = model.config

    def detector_weights(self, rows: Sequence[Sequence[int]]) -> np.ndarray:
        """(R, N) how far each request's detector would load the adapters for rows of tokens, padding left out."""
        kept = [self.without_frame(list(row)) for row in rows]
        return np.stack(
            [
                detector.weights(self.encoder.states(kept, request_name(number)))
                for number, detector in enumerate(self.detectors, start=1)
            ]
        )

    def weights(self, ids: Tensor, mask: Tensor) -> Tensor:
        """(R, B) how far each of R adapters is loaded for (B, T) tokens, those where (B, T) `mask` is 0 left out."""
        rows = [row[kept].tolist() for row, kept in zip(ids.cpu(), mask.cpu().bool(), strict=True)]
        return torch.from_numpy(self.as_loaded(self.detector_weights(rows))).to(ids.device, torch.float32)

    def as_loaded(self, weights: np.ndarray) -> np.ndarray:
        """(R, N) how far adapters are loaded where the detectors say (R, N)."""
        return weights if self.manifest.load == "own" else np.broadcast_to(weights.max(axis=0), weights.shape).copy()

    def without_frame(self, row: list[int]) -> list[int]:
        """A prompt without what its template puts before and behind every prompt."""
        before, behind = map(list, self.manifest.frame)
        if before and row[: len(before)] == before:
            row = row[len(before) :]
        if behind and row[-len(behind) :] == behind:
            row = row[: -len(behind)]
        return row

    @contextmanager
    def loaded(self, weight: Tensor | None) -> Iterator[None]:
        """While this lasts, adapters are loaded that far: (B,) all, (R, B) each; None leaves it to the detectors."""
        before, self.gate.weight = self.gate.weight, weight
        try:
            yield
        finally:
            self.gate.weight = before

    def forward(self, **inputs: Any) -> Any:
        """As the original's."""
        if self.gate.weight is not None:
            return self.model(**inputs)
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        with self.loaded(self.weights(ids, torch.ones_like(ids) if mask is None else mask)):
            return self.model(**inputs)

    def generate(self, **inputs: Any) -> Any:
        """As the original's, with weights decided on the prompts."""
        ids = inputs["input_ids"]
        mask = inputs.get("attention_mask")
        with self.loaded(self.weights(ids, torch.ones_like(ids) if mask is None else mask)):
            return self.model.generate(**inputs)

    def find_token_head(self, probe: Batch) -> GatedTokenHead:
        """The output layer of a causal language model, with weights decided on prompts."""
        with self.loaded(probe.inputs["input_ids"].new_zeros(len(probe), dtype=torch.float32)):
            return GatedTokenHead(find_token_head(self.model, probe).module)

    def get_input_embeddings(self) -> Any:
        """The original's."""
        return self.model.get_input_embeddings()

    def get_output_embeddings(self) -> Any:
        """The original's."""
        return self.model.get_output_embeddings()

    def save_pretrained(self, place: str | Path) -> None:
        """Write an O3 folder."""
        from expunge.o3.folder import write

        write(self, Path(place))


@dataclass(frozen=True)
class GatedTokenHead(TokenHead):
    """As `TokenHead`, for a model whose adapters are loaded by what stands before the answers."""

    def run(self, model: Any, batch: Batch) -> tuple[Tensor, None]:
        ids, mask = batch.inputs["input_ids"], batch.inputs["attention_mask"]
        with model.loaded(model.weights(ids, mask * prompts_of(batch))):
            return super().run(model, batch)


def prompt_length(units: Sequence[int], length: int) -> int:
    """Tokens before a record's first unit; of a plain text, which is all units, its first half."""
    first = units[0] + 1 if units else length
    return first if first > 1 else max(1, length // 2)


def prompts_of(batch: Batch) -> Tensor:
    """(B, T) 1 at the tokens that `prompt_length` counts in each row."""
    mask = batch.inputs["attention_mask"]
    ends = mask.sum(dim=1)
    if batch.rows is not None and batch.columns is not None:
        units: list[list[int]] = [[] for _ in range(len(batch))]
        for row, column in zip(batch.rows.tolist(), batch.columns.tolist(), strict=True):
            units[row].append(column)
        ends = [prompt_length(sorted(own), int(length)) for own, length in zip(units, ends, strict=True)]
        ends = torch.tensor(ends, device=mask.device)
    return (torch.arange(mask.shape[1], device=mask.device) < ends[:, None]).to(mask)
