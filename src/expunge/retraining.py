"""Models retrained without the records, one a seed: here one after the other, or at once where Ray has room."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Any

from expunge.config import Recipe
from expunge.errors import ExpungeError, RunError
from expunge.fit import device, fit
from expunge.kept_models import keep_model, kept_model
from expunge.paused import PausedRun
from expunge.progress import Progress
from expunge.snapshot import Snapshot
from expunge.tasks.base import Encoded
from expunge.trainer_state import model_state, restore_model

__all__ = ["Retraining"]


@dataclass(frozen=True)
class Retraining:
    """What retrained models are made of.

    Attributes:
        base: Folder or hub id of the base model; with Ray every node must find it there.
        task: Collates records.
        retain: Tokenised training records without those to forget.
        recipe: Epochs, learning rate and so on.
        trust_remote_code: As in transformers.
        loaded: -> the base with a fresh head, to put a finished model's weights into.
        paused: Where finished models are kept, if anywhere.
        progress: Where progress is shown.
    """

    base: str
    task: Any
    retain: Encoded
    recipe: Recipe
    trust_remote_code: bool
    loaded: Callable[[], Any]
    paused: PausedRun | None
    progress: Progress

    def models(self, seeds: Sequence[int], engine: str) -> Iterator[tuple[int, Any]]:
        """(seed, model) by seed, one in memory at a time; those that an earlier process kept are not trained again.

        Args:
            seeds: Seeds of head initialisation, order and dropout.
            engine: ``in-process``, or ``ray``: a task of Ray's a seed, with one GPU where there are GPUs and else one CPU
                thread, on the cluster that ``RAY_ADDRESS`` names or on this machine. What a task gets is token ids and
                labels, never text.

        Raises:
            ExpungeError: A training failed.
        """
        if engine == "ray":
            yield from self._by_ray(seeds)
            return
        for seed in seeds:
            yield seed, self._fitted(seed)

    def _kept(self, seed: int) -> Any | None:
        return kept_model(self.paused, _stage(seed), self.loaded)

    def _fitted(self, seed: int) -> Any:
        return fit(
            self.base, self.task, self.retain, self.recipe, seed=seed, label_names=self.task.label_names,
            progress=self.progress, name=f"retraining without the records (seed {seed})",
            trust_remote_code=self.trust_remote_code, paused=self.paused, stage=_stage(seed),
        )  # fmt: skip

    def _by_ray(self, seeds: Sequence[int]) -> Iterator[tuple[int, Any]]:
        missing = [s for s in seeds if self.paused is None or self.paused.newest(_stage(s)) is None]
        name = f"retraining without the records ({len(missing)} models, Ray)"
        with _cluster() as ray, self.progress.stage(name, len(missing)) as advance:
            gpus = int(ray.cluster_resources().get("GPU", 0))
            task = ray.remote(num_cpus=1, num_gpus=min(gpus, 1), max_retries=1)(_trained)
            # Ray pickles what it sends, which tokens made on demand from a file of this process cannot be.
            plain = Encoded(list(self.retain.input_ids), self.retain.token_types and list(self.retain.token_types),
                            *(getattr(self.retain, field) for field in ("labels", "units", "cut", "compressed")))  # fmt: skip
            own = ray.put(replace(self, retain=plain, loaded=None, paused=None, progress=Progress()))
            waiting = {seed: task.remote(own, seed) for seed in missing}
            for seed in seeds:
                if seed in waiting:
                    model = self._received(ray, waiting.pop(seed))
                    advance(1)
                    keep_model(self.paused, _stage(seed), model)
                else:
                    model = self._kept(seed)
                yield seed, model

    def _received(self, ray: Any, result: Any) -> Any:
        from safetensors.torch import load

        try:
            weights = load(ray.get(result))
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ExpungeError):
                raise error.cause from None
            raise RunError(f"retraining failed on Ray ({type(error.cause).__name__}: {error.cause}).") from error
        except ray.exceptions.RayError as error:
            raise RunError(
                f"Ray lost a retraining ({type(error).__name__}). Start the run again: it goes on."
            ) from error
        model = self.loaded().to(device())
        restore_model(model, Snapshot(weights))
        return model.eval()


def _stage(seed: int) -> str:
    return f"retrained-{seed}"


def _trained(retraining: Retraining, seed: int) -> bytes:
    """Runs on Ray: the weights and buffers of the model of a seed, as safetensors."""
    from safetensors.torch import save

    if not os.environ.get("CUDA_VISIBLE_DEVICES"):
        import torch

        torch.set_num_threads(1)
    tensors = model_state(retraining._fitted(seed)).tensors
    return save({name: tensor.detach().contiguous().cpu() for name, tensor in tensors.items()})


@contextmanager
def _cluster() -> Iterator[Any]:
    """Ray, connected; what this process starts it ends."""
    import ray  # pyright: ignore[reportMissingImports]

    ours = not ray.is_initialized()
    if ours:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield ray
    finally:
        if ours:
            ray.shutdown()
