"""Train the stages of one shard so that nothing outside its slices decides a single bit.

A loop of its own and not transformers' `Trainer`: there dropout draws from one stream that runs through the whole training,
so that a batch's masks hang on how much was drawn before it. Here every batch's dropout has a seed of its own, made of the
ids in it, every stage a fresh optimizer and schedule, and every weight memory that torch itself has laid out (kernels may
round differently on memory laid out otherwise).
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from expunge.config import Recipe
from expunge.errors import DivergedError, Problem, UsageError
from expunge.folders import whole_folder
from expunge.models import head_sizes, load_model
from expunge.paused import PausedRun
from expunge.record import environment
from expunge.sisa.manifest import Members
from expunge.sisa.plan import Plan
from expunge.tasks.base import Encoded

__all__ = ["ADAPTER_FILE", "Shards", "made_with", "stage_folder"]

ADAPTER_FILE = "adapter.safetensors"
_MAX_NORM = 1.0  # transformers' own default, which plain fine-tuning has too


def stage_folder(shard: int, stage: int) -> Path:
    """Where a SISA folder keeps the checkpoint after a stage."""
    return Path(f"shard-{shard}") / f"stage-{stage}"


def made_with(device: Any) -> dict[str, str]:
    """What the bits of weights trained here hang on, beside data, plan and recipe."""
    found = {name: value for name, value in environment().items() if name in ("torch", "transformers", "platform")}
    return {**found, "device": torch.device(device).type, "threads": str(torch.get_num_threads())}


@dataclass(frozen=True)
class Shards:
    """Makes, trains, writes and reads the members of an ensemble.

    Attributes:
        plan: Shards, slices, seed and epochs.
        recipe: Learning rate, batch size and so on.
        members: Full copies or adapters, and of what.
        base: Folder of the base model.
        trust_remote_code: As in transformers.
    """

    plan: Plan
    recipe: Recipe
    members: Members
    base: Path
    trust_remote_code: bool = False

    def fresh(self, shard: int) -> Any:
        """The base with a head, and adapters where wanted, that hang on the plan's seed and the shard's number alone."""
        with _own_randomness(None, self.plan.draw("head", shard)):
            model = load_model(
                str(self.base), self.members.auto_class, where="the base of the SISA folder",
                new_head=head_sizes(self.members.label_names), trust_remote_code=self.trust_remote_code,
            )  # fmt: skip
            if self.members.adapter == "lora":
                torch.manual_seed(self.plan.draw("adapter", shard))
                model = _with_adapter(model, self.members.rank)
        model.config.architectures = [type(model).__name__]  # not the base's
        return _in_own_memory(model)

    def read(self, shard: int, checkpoint: Path) -> Any:
        """The model as a stage left it, ready to be trained on."""
        from safetensors.torch import load_file

        if self.members.adapter == "none":
            model = load_model(
                str(checkpoint), self.members.auto_class, where="model.path", trust_remote_code=self.trust_remote_code
            )
            return _in_own_memory(model)
        model = self.fresh(shard)
        wanted = _trained(model)
        found = load_file(checkpoint / ADAPTER_FILE)
        if wanted.keys() != found.keys():
            what = f'the adapter "{checkpoint}" holds other weights than this version of peft gives the base'
            raise UsageError(Problem("model.path", what, "Use the versions that record.json names."))
        with torch.no_grad():
            for name, parameter in wanted.items():
                parameter.copy_(found[name])
        return model

    def whole(self, shard: int, checkpoint: Path) -> Any:
        """The model as a stage left it, to be used: a plain transformers model in eval mode, adapters merged into it."""
        model = self.read(shard, checkpoint)
        if self.members.adapter == "lora":
            model = _merged(model)
        return model.requires_grad_(True).eval()

    def write(self, model: Any, checkpoint: Path) -> None:
        """Write what `read` takes back: a model folder, or the trained weights alone where there are adapters."""
        from safetensors.torch import save_file

        if self.members.adapter == "none":
            model.save_pretrained(checkpoint)
            return
        checkpoint.mkdir(parents=True, exist_ok=True)
        weights = {name: p.detach().cpu().contiguous() for name, p in _trained(model).items()}
        save_file(weights, checkpoint / ADAPTER_FILE)

    def train(
        self,
        shard: int,
        first: int,
        *,
        task: Any,
        encoded: Encoded,
        ids: Sequence[str],
        start: Path | None,
        place: Path,
        device: Any,
        advance: Callable[[float], None] = lambda amount: None,
        paused: PausedRun | None = None,
    ) -> list[int]:
        """Train the stages of a shard from `first` on and write a checkpoint after each; those that are there are read.

        Args:
            shard: Number of the shard, from 0.
            first: First stage to train, from 1.
            task: Collates records.
            encoded: Tokenised records; those of other shards are left alone.
            ids: Their ids.
            start: Checkpoint of the stage before; None for the base.
            place: Folder that gets ``shard-<n>/stage-<r>``.
            device: Where to train.
            advance: Called with the records of each step.
            paused: The run whose folder `place` is in, where it is kept; its stages are then those of this run.

        Returns:
            Example-passes of each of these stages.

        Raises:
            DivergedError: The loss became NaN or infinite.
        """
        model = self.fresh(shard) if start is None else self.read(shard, start)
        model.to(device)
        counts = self.plan.counts(ids)[shard]
        spent = []
        for stage in range(first, self.plan.slices + 1):
            spent.append(self.plan.visits(counts, stage))
            made = place / stage_folder(shard, stage)
            if (kept := self._kept(shard, made, paused)) is not None:
                model = kept.to(device)
                advance(spent[-1])
                continue
            chosen = self.plan.members(shard, stage, ids)
            records, names = encoded.take(chosen), [ids[i] for i in chosen]
            self._train_stage(model, shard, stage, task, records, names, counts, advance)
            with whole_folder(made) as beside:
                self.write(model, beside)
        return spent

    def _kept(self, shard: int, made: Path, paused: PausedRun | None) -> Any | None:
        """A stage as an earlier process of this run left it, if it did; one that cannot be read is told, and removed."""
        if paused is None or not made.is_dir():
            return None
        try:
            return self.read(shard, made)
        except (UsageError, SafetensorError, OSError) as error:
            paused.unusable(made, error)
            return None

    def _train_stage(
        self, model: Any, shard: int, stage: int, task: Any, records: Encoded, ids: Sequence[str],
        counts: Sequence[int], advance: Callable[[float], None],
    ) -> None:  # fmt: skip
        from transformers import get_scheduler

        recipe = self.recipe
        lengths = [len(row) for row in records.input_ids] if recipe.group_by_length else None
        batches = list(self.plan.batches(shard, stage, ids, counts, recipe.batch_size, lengths))
        if not batches:
            return
        weights = [p for p in model.parameters() if p.requires_grad]
        groups = [
            {"params": [p for p in weights if p.dim() > 1], "weight_decay": recipe.weight_decay},
            {"params": [p for p in weights if p.dim() < 2], "weight_decay": 0.0},  # biases and norms, as in `Trainer`
        ]
        optimizer = torch.optim.AdamW([g for g in groups if g["params"]], lr=recipe.learning_rate, fused=True)
        name = "constant_with_warmup" if recipe.scheduler == "constant" and recipe.warmup > 0 else recipe.scheduler
        schedule = get_scheduler(name, optimizer, int(recipe.warmup * len(batches)), len(batches))
        device = weights[0].device
        bfloat16 = recipe.precision == "bfloat16"
        model.train()
        with _own_randomness(device, 0):
            for number, batch in enumerate(batches):
                torch.manual_seed(batch.seed)
                rows = task.collate(records, batch.positions).to(device)
                with torch.autocast(device.type, torch.bfloat16, enabled=bfloat16):
                    loss = model(**rows.inputs, labels=rows.targets()).loss
                if not torch.isfinite(loss):
                    where = f"shard {shard}, stage {stage}, step {number}"
                    raise DivergedError(
                        f"training: the loss is not finite at {where}. Nothing was written. Lower the recipe's learning rate."
                    )
                loss.backward()
                nn.utils.clip_grad_norm_(weights, _MAX_NORM)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
                advance(len(batch.positions))
        model.eval()


@contextlib.contextmanager
def _own_randomness(device: Any, seed: int) -> Iterator[None]:
    """Torch's random numbers from a seed, and those of the caller as they were afterwards."""
    with torch.random.fork_rng([device] if device is not None and device.type == "cuda" else []):
        torch.manual_seed(seed)
        yield


def _in_own_memory(model: Any) -> Any:
    """Copy every tensor out of the file it may be mapped from."""
    for tensor in chain(model.parameters(), model.buffers()):
        tensor.data = tensor.data.clone()
    return model


def _trained(model: Any) -> dict[str, nn.Parameter]:
    return {name: parameter for name, parameter in model.named_parameters() if parameter.requires_grad}


def _with_adapter(model: Any, rank: int) -> Any:
    """LoRA (arXiv 2106.09685) on every linear layer of the encoder; the head, and a pooler, are trained whole."""
    from peft import LoraConfig, inject_adapter_in_model
    from transformers.pytorch_utils import Conv1D

    inside = f"{model.base_model_prefix}."
    linear = {
        name: layer
        for name, layer in model.named_modules()
        if isinstance(layer, nn.Linear | Conv1D) and name.startswith(inside) and "pooler" not in name
    }
    config = LoraConfig(
        r=rank,
        lora_alpha=2 * rank,
        lora_dropout=0.0,
        target_modules=list(linear),
        fan_in_fan_out=any(isinstance(layer, Conv1D) for layer in linear.values()),
    )
    model = inject_adapter_in_model(config, model)
    for name, parameter in model.named_parameters():
        if not name.startswith(inside) or "pooler" in name:
            parameter.requires_grad_(True)
    return model


def _merged(model: Any) -> Any:
    """The plain model with its adapters added to the weights they adapt."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    for name, layer in list(model.named_modules()):
        if isinstance(layer, BaseTunerLayer):
            layer.merge(safe_merge=True)
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, layer.get_base_layer())
    return model
