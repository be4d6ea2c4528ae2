"""Find paraphrases of requested records: neighbours in the space of an encoder. Costs a forward pass a record."""

from __future__ import annotations

from typing import Any

import numpy as np

from expunge import models
from expunge.config import RunConfig
from expunge.data.near_duplicates import Alike
from expunge.data.records import Records
from expunge.data.request import Resolved
from expunge.errors import Problem, UsageError
from expunge.tasks.base import Encoded

__all__ = ["embeddings", "neighbours"]

_CHUNK = 256


def neighbours(config: RunConfig, task: Any, train: Records, request: Resolved) -> list[Alike]:
    """Records whose embedding has a cosine of at least `request.neighbours` to that of a requested one.

    The encoder is the base model's. The fine-tuned model's own would not do: it was taught to put all texts of a class in
    one place (of a MiniLM fine-tuned on tweets 10 % of all pairs have a cosine of .9 and more; of its base .005 %).
    Identical rows and near-duplicates are left out: they are found already.

    Args:
        config: The run's settings.
        task: Encodes and collates records.
        train: The training records.
        request: Which of them are requested.

    Raises:
        UsageError: The base's weights cannot be used.
    """
    threshold = config.request.neighbours
    assert threshold is not None
    encoder = _encoder(config, task)
    vectors = embeddings(encoder, task, task.encode(train), config.audit.batch_size)
    found_before = request.added | request.left
    wanted = np.array([i for i in request.forget if train.ids[i] not in request.added])
    others = np.array([i for i in request.retain if train.ids[i] not in found_before], dtype=int)
    found = []
    for start in range(0, len(wanted), _CHUNK):
        chunk = wanted[start : start + _CHUNK]
        cosines = vectors[chunk] @ vectors[others].T
        for row, column in np.argwhere(cosines >= threshold):
            similarity = round(float(cosines[row, column]), 4)
            found.append(Alike(train.ids[chunk[row]], train.ids[others[column]], similarity, "neighbour"))
    return sorted(found, key=lambda match: -match.similarity)


def embeddings(encoder: Any, task: Any, encoded: Encoded, batch_size: int = 64) -> np.ndarray:
    """(N, H) float32 unit vectors: the last hidden layer's mean over tokens, less its mean over the records.

    Encoders put all texts into a narrow cone, where any two have a high cosine; taking the mean away spreads them.
    """
    import torch

    from expunge.length_groups import FORWARD, runs

    device = next(encoder.parameters()).device
    rows: list[np.ndarray] = []
    batches = runs(encoded, batch_size, device, a_pass=FORWARD)
    was_training = encoder.training
    encoder.eval()
    try:
        with torch.inference_mode():
            for chosen in batches:
                inputs = task.collate(encoded, chosen).to(device).inputs
                hidden = encoder(**inputs).last_hidden_state.float()
                mask = inputs["attention_mask"][:, :, None].float()
                rows.append(((hidden * mask).sum(dim=1) / mask.sum(dim=1)).cpu().numpy())
    finally:
        encoder.train(was_training)
    vectors = np.concatenate(rows)[np.argsort([i for chosen in batches for i in chosen])]
    vectors -= vectors.mean(axis=0)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _encoder(config: RunConfig, task: Any) -> Any:
    from expunge.fit import device

    assert config.retrain.base is not None  # checked with the other settings
    sizes, trust = models.head_sizes(task.label_names), config.model.trust_remote_code
    where = "retrain.base"
    model = models.load_model(
        config.retrain.base, task.auto_class, where=where, new_head=sizes, trust_remote_code=trust
    )
    if model.base_model is model:
        what = f'"{config.retrain.base}" has no encoder apart from its head'
        raise UsageError(Problem(where, what, "Leave request.neighbours out."))
    return model.base_model.to(device())
