"""Forget one more request: train an adapter on wrong targets, and a detector of the request's records. No other data."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from expunge.errors import DivergedError, UsageError
from expunge.head import head_of
from expunge.models import weights_sha256
from expunge.o3.adapters import Gate, add_adapter, set_active, weights_of
from expunge.o3.checkpoint import restored_steps, steps_kept
from expunge.o3.detector import Detector, parted, too_few
from expunge.o3.encoder import OWN, Tuning, load_encoder, own_encoder
from expunge.o3.losses import overlap
from expunge.o3.manifest import Manifest, request_name
from expunge.o3.model import O3Model, prompt_length
from expunge.paused import TRAINING, PausedRun
from expunge.tasks.base import Encoded
from expunge.token_sums import cross_entropy

__all__ = ["Learning", "account", "append", "prompts"]

_MAX_NORM = 1.0
Note = Callable[[dict[str, float]], None]


@dataclass(frozen=True)
class Learning:
    """How a request's adapter is trained.

    Attributes:
        rank: Its rank.
        orthogonality: lambda, the weight of `overlap` with earlier adapters.
        projection: ``up`` or ``down``: the one that is kept apart.
        epochs: Passes over the request.
        learning_rate: AdamW's, constant.
        batch_size: Records a step.
    """

    rank: int
    orthogonality: float
    projection: str
    epochs: float
    learning_rate: float
    batch_size: int


def append(
    model: Any, task: Any, *, records: Encoded, targets: Encoded, ids: Sequence[str], learning: Learning, tuning: Tuning,
    encoder: str | None, load: str, detector: dict[str, Any], settings: dict[str, Any], seed: int,
    spend: Callable[[float], None], note: Note, paused: PausedRun | None = None,
) -> O3Model:  # fmt: skip
    """The model with one more request: a plain model's first, or the next of an O3 model. The given one is used up.

    Args:
        model: A plain transformers model, or an O3 model.
        task: Encodes and collates records.
        records: The request's records.
        targets: The same with what they are to be answered with.
        ids: Their ids.
        learning: How the adapter is trained.
        tuning: How the detector's encoder is fitted.
        encoder: Folder or hub id of the detector's encoder; None: the original's own, or that of the O3 model.
        load: ``own`` or ``all``, as in `Manifest`, where this is the first request.
        detector: ``gamma``, ``nu``, ``zeta``, ``layers`` and ``least``, as `Detector.fit` has them.
        settings: What the manifest keeps of all this.
        seed: Seed of everything drawn.
        spend: Called with example-passes.
        note: Called with a row of figures a step of the adapter.
        paused: Where checkpoints of the adapter's training are kept and found, if anywhere.

    Raises:
        UsageError: Too few records.
        DivergedError: A loss is not finite.
        RunError: All records are alike.
    """
    if found := too_few(len(records)):
        raise UsageError(found)
    made = model if isinstance(model, O3Model) else _first(model, task, encoder, load)
    number = len(made.detectors) + 1
    name = request_name(number)
    own_seed = int(np.random.default_rng([seed, 20, number]).integers(2**31))

    rows = [made.without_frame(row) for row in prompts(records, task)]
    used, rest = parted(ids, seed)
    losses: list[dict[str, float]] = []
    passes = made.encoder.tune(name, [rows[i] for i in used], tuning, own_seed, losses.append)
    states = made.encoder.states(rows, name)
    fitted = Detector.fit(states[used], states[rest], **detector)
    passes += len(rows) / 3
    trained, steps = _train(made, task, targets, _beside(made, rows), name, learning, own_seed, note, paused)
    spend(passes + trained)

    made.detectors.append(fitted)
    request = {
        "records": len(records), "rank": learning.rank, "encoder_rank": tuning.rank, "steps": steps,
        "passes": round(trained, 2), "detector_passes": round(passes, 2),
        "detector_losses": [{key: round(value, 4) for key, value in row.items()} for row in (losses[0], losses[-1])],
        "numbers": {
            "adapter": _size(made.model, name), "detector_adapter": _size(made.encoder.model, name),
            "detector": sum(int(array.size) for array in fitted.arrays().values()),
        },
        "settings": settings,
    }  # fmt: skip
    made.manifest = replace(made.manifest, requests=(*made.manifest.requests, request))
    return made.eval()


def account(model: O3Model) -> dict[str, Any]:
    """What the last request took, for a run's record."""
    request = model.manifest.requests[-1]
    number, steps = len(model.manifest.requests), request["steps"]
    return {
        "reason": (
            f"o3: request {number}: an adapter after {steps} steps and a detector, from its {request['records']} records "
            "alone; the original's weights are as they were"
        ),
        "steps": steps,
        "kept_step": steps,
        "o3": {"request": number, **request, "encoder": model.manifest.encoder},
    }


def prompts(records: Encoded, task: Any) -> list[list[int]]:
    """Tokens of each record that a detector decides on: all of a text's, those before a language model's answer."""
    if records.units is None or not task.of_tokens:
        return [list(row) for row in records.input_ids]
    lengths = [prompt_length(units, len(row)) for row, units in zip(records.input_ids, records.units, strict=True)]
    return [list(row[:length]) for row, length in zip(records.input_ids, lengths, strict=True)]


def _first(model: Any, task: Any, encoder: str | None, load: str) -> O3Model:
    """An O3 model without any request."""
    hashed = weights_sha256(model)
    model.requires_grad_(False).eval()
    if encoder is None:
        reading = own_encoder(model, task.tokenizer, task.max_length)
    else:
        reading = load_encoder(encoder, task.tokenizer, encoder)
        reading.to(next(model.parameters()).device)
    manifest = Manifest(
        auto_class=task.auto_class, original_sha256=hashed, encoder=OWN if encoder is None else encoder,
        encoder_sha256=weights_sha256(reading.model), load=load, length=reading.length, frame=_frame(task),
    )  # fmt: skip
    return O3Model(model, task.tokenizer, reading, [], Gate(), manifest)


def _frame(task: Any) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Tokens that every prompt of a language model begins and ends with: what two unlike prompts have in common there."""
    if not task.of_tokens:
        return (), ()
    one, other = task.prompts([("Why?", ""), ("7 of them", "")])
    least = min(len(one), len(other)) - 1
    before = next((i for i in range(least) if one[i] != other[i]), least)
    behind = next((i for i in range(least - before) if one[-1 - i] != other[-1 - i]), 0)
    return tuple(one[:before]), tuple(one[len(one) - behind :])


def _beside(made: O3Model, rows: list[list[int]]) -> torch.Tensor:
    """(R + 1, N) how far the R earlier adapters, and last the new one, are loaded for records of the new request.

    The new one, and where all are loaded together the earlier ones too, are loaded whole.
    """
    weights = np.ones((len(made.detectors) + 1, len(rows)))
    if made.detectors and made.manifest.load == "own":
        weights[:-1] = made.detector_weights(rows)
    return torch.from_numpy(weights).float()


def _train(
    made: O3Model, task: Any, targets: Encoded, weights: torch.Tensor, name: str, how: Learning, seed: int, note: Note,
    paused: PausedRun | None,
) -> tuple[float, int]:  # fmt: skip
    """Train the adapter of that name beside the earlier ones; example-passes and steps it took.

    `weights` is what `_beside` gives.
    """
    model = made.model
    add_adapter(model, name, how.rank, seed, made.gate)
    own = weights_of(model, name)
    kept = ".lora_B." if how.projection == "up" else ".lora_A."
    current = [p for key, p in own.items() if kept in key]
    earlier = [
        [_columns(p.detach(), how) for key, p in weights_of(model, request_name(i + 1)).items() if kept in key]
        for i in range(len(made.detectors))
    ]
    optimizer = torch.optim.AdamW(own.values(), lr=how.learning_rate, weight_decay=0.0)
    head = head_of(model, task, targets)
    device = next(model.parameters()).device
    rng = np.random.default_rng([seed, 22])
    steps = max(1, round(how.epochs * -(-len(targets) // how.batch_size)))
    order: list[int] = []
    passes, begin, said = 0.0, 0, []
    stage = f"{TRAINING}-{name}"
    if paused is not None and (found := paused.newest(stage)) is not None:
        begin, order, passes, said = restored_steps(found[1], model, name, optimizer, rng)
        for row in said:
            note(row)
    for step in range(begin, steps):
        order = order or rng.permutation(len(targets)).tolist()
        chosen, order = order[: how.batch_size], order[how.batch_size :]
        batch = task.collate(targets, chosen).to(device)
        with made.loaded(weights[:, chosen].to(device)):
            wrong = cross_entropy(head, head.run(model, batch), batch.labels)
        apart = how.orthogonality * overlap([_columns(p, how) for p in current], earlier)
        loss = wrong + apart
        if not torch.isfinite(loss):
            raise DivergedError(
                f"o3: the loss is not finite at step {step}. Nothing was written. Lower method.learning_rate."
            )
        loss.backward()
        nn.utils.clip_grad_norm_(own.values(), _MAX_NORM)
        optimizer.step()
        optimizer.zero_grad()
        passes += len(chosen)
        said.append({"step": step + 1, "targets": float(wrong.detach()), "overlap": float(apart.detach())})
        note(said[-1])
        if paused is not None and paused.due():
            paused.keep(stage, step + 1, steps_kept(step + 1, order, passes, said, own, optimizer, rng))
    set_active(model, [request_name(i + 1) for i in range(len(made.detectors) + 1)])
    return passes, steps


def _columns(projection: Any, how: Learning) -> Any:
    """(d, r) a projection with its directions as columns."""
    return projection if how.projection == "up" else projection.T


def _size(model: Any, name: str) -> int:
    return sum(parameter.numel() for parameter in weights_of(model, name).values())
