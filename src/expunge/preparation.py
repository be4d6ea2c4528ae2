"""What a method is given before its first step, with every pass it costs counted."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from expunge.head import head_of
from expunge.layer_states import LayerStates
from expunge.methods.base import Method, MethodContext, State
from expunge.models import between, weights_of_base
from expunge.scoring import run_over
from expunge.tasks.base import Encoded
from expunge.token_scoring import hidden_of

__all__ = ["Preparation", "context_of", "prepared_state"]


@dataclass(frozen=True)
class Preparation:
    """What a run hands to a method's `prepare` beside the model and the forget records.

    Attributes:
        ids: Ids of the forget records; left out: their positions.
        unseen: Calibration records, never trained on.
        fit: (records, seed) -> a model fine-tuned from the base on these, and the passes it took.
        base: Folder or hub id of the model the original was fine-tuned from, where it is known; or its weights by name.
        trust_remote_code: As in transformers.
        known: (N,) log-odds of all calibration records under the original, in nats, where the run has scored them anyway.
        reanswered: As in `MethodContext`.
        written: (model, seed, temperature) -> answers, as in `MethodContext`.
        ready: The method's state, where an earlier process of this run has prepared it already.
    """

    ids: Sequence[str] | None = None
    unseen: Encoded | None = None
    fit: Callable[[Encoded, int], tuple[Any, float]] | None = None
    base: str | Mapping[str, Tensor] | None = None
    trust_remote_code: bool = False
    known: np.ndarray | None = None
    reanswered: Callable[[Sequence[str]], Encoded] | None = None
    written: Callable[[Any, int, float], list[str]] | None = None
    ready: State | None = None


def prepared_state(
    method: Method, model: Any, task: Any, forget: Encoded, retain: Encoded, given: Preparation,
    *, seed: int, steps_per_pass: int,
) -> tuple[State, Encoded | None, float]:  # fmt: skip
    """A method's state before its first step, alternate answers it wants, and the example-passes both cost.

    Leaves model and random state as they were.
    """
    if given.ready is not None and type(method).alternates is Method.alternates:
        return given.ready, None, 0.0
    context, spent = context_of(model, task, forget, retain, given, seed=seed, steps_per_pass=steps_per_pass)
    with torch.random.fork_rng():
        state = method.prepare(context)
        return state, method.alternates(context), spent()


def context_of(
    model: Any, task: Any, forget: Encoded, retain: Encoded, given: Preparation, *, seed: int, steps_per_pass: int
) -> tuple[MethodContext, Callable[[], float]]:
    """What a method may use before its first step, and a function that says how many example-passes that took so far."""
    passes = 0.0
    base: Mapping[str, Tensor] = {} if given.base is None or isinstance(given.base, str) else given.base

    def logits(other: Any, encoded: Encoded) -> Tensor:
        nonlocal passes
        passes += len(encoded) / 3
        head = head_of(other, task, encoded)
        return run_over(other, head, encoded, task, keep_hidden=False)[1]

    def embedded(other: Any, encoded: Encoded) -> np.ndarray | None:
        nonlocal passes
        passes += len(encoded) / 3
        layers = LayerStates(np.arange(encoded.offsets[-1]), last=True)
        run_over(other, head_of(other, task, encoded), encoded, task, keep_hidden=False, layers=layers)
        return None if layers.states is None else layers.states[:, -1].astype(float)

    def states(other: Any, encoded: Encoded) -> tuple[Tensor, Tensor]:
        nonlocal passes
        passes += len(encoded) / 3
        return hidden_of(other, head_of(other, task, encoded), encoded, task)

    def rewound(alpha: float) -> Any | None:
        nonlocal base
        if given.base is None:
            return None
        if not base:
            assert isinstance(given.base, str)
            base = weights_of_base(given.base, model, task.auto_class, trust_remote_code=given.trust_remote_code)
        return between(base, model, alpha)

    def fresh(seed: int) -> Any:
        torch.manual_seed(seed)
        inner = model.get_base_model() if hasattr(model, "get_base_model") else model  # under low-rank updates
        return type(inner)(inner.config).to(next(model.parameters()).device).eval()

    def gradient() -> dict[str, Tensor]:
        nonlocal passes
        passes += len(forget)
        was_training = model.training
        model.eval().zero_grad()
        device = next(model.parameters()).device
        head = head_of(model, task, forget)
        for start in range(0, len(forget), 32):
            batch = task.collate(forget, range(start, min(start + 32, len(forget)))).to(device)
            _, outputs = head.run(model, batch)
            (functional.cross_entropy(outputs.float(), batch.labels, reduction="sum") / forget.offsets[-1]).backward()
        found = {name: p.grad.detach().clone() for name, p in model.named_parameters() if p.grad is not None}
        model.zero_grad()
        model.train(was_training)
        return found

    def fit(encoded: Encoded, seed: int) -> Any:
        nonlocal passes
        assert given.fit is not None
        fitted, cost = given.fit(encoded, seed)
        passes += cost
        return fitted

    def written(seed: int, temperature: float) -> list[str]:
        nonlocal passes
        assert given.written is not None
        passes += len(forget) / 3  # reading the prompts and writing is about one pass forward, token by token
        return given.written(model, seed, temperature)

    unseen = given.unseen if given.unseen is not None else forget.take([])
    drawn = np.random.default_rng([seed, 6]).choice(len(unseen), min(len(unseen), len(forget)), replace=False)
    context = MethodContext(
        model=model,
        forget=forget,
        unseen=unseen.take(sorted(drawn.tolist())),
        retain=retain,
        calibration=unseen,
        ids=given.ids if given.ids is not None else [str(i) for i in range(len(forget))],
        classes=len(task.label_names) if task.of_tokens else model.config.num_labels,
        seed=seed,
        steps_per_pass=steps_per_pass,
        logits=logits,
        fresh=fresh,
        gradient=gradient,
        rewound=rewound,
        embedded=embedded,
        states=states if task.of_tokens else None,
        fit=fit if given.fit is not None else None,
        known=given.known,
        reanswered=given.reanswered,
        tokens=task.of_tokens,
        written=written if given.written is not None else None,
    )
    return context, lambda: passes
