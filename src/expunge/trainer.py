"""`transformers.Trainer` for unlearning: one forward of forget views and retained partners, parts logged."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from transformers import Trainer, TrainingArguments

from expunge.errors import NonFiniteLossError, Problem, UsageError
from expunge.methods.base import Method
from expunge.models import Head, find_head
from expunge.sampling import StepSampler
from expunge.scoring import Scores, Step
from expunge.tasks.base import Batch, Encoded

__all__ = ["UnlearnTrainer"]

_Pair = tuple[Batch | None, Batch | None]  # forget, retain
_Outputs = tuple[Tensor, Tensor]  # hidden, logits


class _StepBatches(Dataset[_Pair]):
    """Item i is micro-batch i of the whole run, collated: resuming needs no sampler state."""

    def __init__(self, trainer: UnlearnTrainer, micro_batches: int, steps: int) -> None:
        self._trainer = trainer
        self._micro_batches = micro_batches
        self._steps = steps

    def __len__(self) -> int:
        return self._steps * self._micro_batches

    def __getitem__(self, item: int) -> _Pair:
        trainer, method = self._trainer, self._trainer.method
        step, part = divmod(item, self._micro_batches)
        plan = trainer.sampler.plan(step).split(self._micro_batches)[part]
        forget = retain = None
        if plan.forget and trainer.reads("forget"):
            forget = trainer.task.collate(trainer.forget, plan.forget, views=getattr(method, "views", 1))
        if plan.retain and trainer.reads("retain"):
            retain = trainer.task.collate(trainer.retain, plan.retain)
        return forget, retain


class UnlearnTrainer(Trainer):
    """A `Trainer` whose loss is an unlearning method's.

    `args.per_device_train_batch_size` counts forget records; the method's `retain_ratio` times as many retained records
    are drawn. `args.max_steps`, or `args.num_train_epochs` passes over the forget records, end the run; callbacks may
    end it earlier.

    With gradient accumulation the loss is still that of the whole step, since a contrastive term is no mean over
    micro-batches: a first pass without graph collects all outputs, the loss is taken once, and each micro-batch then
    runs again to send its share of the gradient back (gradient caching, Gao et al. 2021, arXiv 2101.06983).

    Args:
        model: The model, changed in place.
        args: Training arguments.
        method: The method.
        task: Collates records.
        forget: Tokenised forget records.
        retain: Tokenised retained records.
        options: Passed on to `Trainer` (callbacks, optimizers ...).

    Raises:
        UsageError: Several processes were started, or the model's head is not linear.
        NonFiniteLossError: A part of the loss became NaN or infinite.

    Attributes:
        history: One dict a step: `step`, `loss`, every part, the method's counts.
        example_passes: Forward-and-backward passes of one record so far; a pass without backward counts a third.
    """

    def __init__(
        self, model: Any, args: TrainingArguments, *, method: Method, task: Any, forget: Encoded, retain: Encoded,
        **options: Any,
    ) -> None:  # fmt: skip
        if args.world_size > 1:
            way_out = "Start it as one process; contrastive terms over several are not right yet."
            raise UsageError(Problem("training", f"{args.world_size} processes were started", way_out))
        args._n_gpu = min(args.n_gpu, 1)  # no torch DataParallel: it would cut a step's partners apart
        args.remove_unused_columns = False
        args.logging_nan_inf_filter = False
        super().__init__(model, args, train_dataset=None, **options)
        self.model_accepts_loss_kwargs = False
        self.method, self.task, self.forget, self.retain = method, task, forget, retain
        self.head: Head = find_head(model, task.collate(forget, [0]).to(args.device))
        self._micro_batches = args.gradient_accumulation_steps
        self.sampler = StepSampler(
            forget.labels,
            retain.labels,
            batch_size=args.per_device_train_batch_size * self._micro_batches,
            retain_ratio=getattr(method, "retain_ratio", 1),
            seed=args.seed,
        )
        if args.max_steps <= 0:
            args.max_steps = max(1, round(args.num_train_epochs * self.sampler.steps_per_pass))
        self.train_dataset = _StepBatches(self, self._micro_batches, args.max_steps)
        self.history: list[dict[str, float]] = []
        self.example_passes = 0.0
        self._cached: list[tuple[Any, list[Tensor | None]]] = []

    def reads(self, group: str) -> bool:
        """Whether the method needs anything of a group."""
        return any(need.startswith(f"{group}.") for need in self.method.needs)

    def get_train_dataloader(self) -> DataLoader[_Pair]:
        loader = DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=_only_item)  # pyright: ignore[reportArgumentType]
        return self.accelerator.prepare_data_loader(loader, device_placement=False)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[_Pair], None]:
        pairs = [pair for _, pair in zip(range(num_batches), epoch_iterator, strict=False)]
        self._cached = self._cache_gradients(pairs) if len(pairs) > 1 else []
        return pairs, None

    def _prepare_inputs(self, inputs: Any) -> Any:
        return tuple(batch.to(self.args.device) if batch is not None else None for batch in inputs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        if not self._cached:
            return self._step_loss([inputs], [self._forward(model, inputs)])
        rng_state, gradients = self._cached.pop(0)
        _set_rng(rng_state)
        flat = [t for outputs in self._forward(model, inputs) if outputs is not None for t in outputs]
        shares = [(t * g).sum() for t, g in zip(flat, gradients, strict=True) if g is not None]
        if not flat:  # fewer records than micro-batches: nothing to send back
            return torch.zeros((), device=self.args.device, requires_grad=True)
        surrogate = torch.stack(shares).sum() if shares else sum(t.sum() * 0.0 for t in flat)
        loss = torch.tensor(self.history[-1]["loss"], device=self.args.device)
        # Trainer divides by the micro-batches; the cached gradients are those of the whole step already.
        return (surrogate - surrogate.detach()) * self.current_gradient_accumulation_steps + loss  # pyright: ignore

    def _cache_gradients(self, pairs: Sequence[_Pair]) -> list[tuple[Any, list[Tensor | None]]]:
        model: Any = self.model_wrapped
        model.train()
        moved = [self._prepare_inputs(pair) for pair in pairs]
        states, leaves = [], []
        for pair in moved:
            states.append(_get_rng())
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = self._forward(model, pair, weight=1 / 3)
            leaves.append([None if o is None else tuple(t.detach().requires_grad_() for t in o) for o in outputs])
        self._step_loss(moved, leaves).backward()
        flat = [[t.grad for outputs in pair if outputs is not None for t in outputs] for pair in leaves]
        return list(zip(states, flat, strict=True))

    def _forward(self, model: Any, pair: _Pair, weight: float = 1.0) -> list[_Outputs | None]:
        """Outputs of both groups: one forward where they fall in one length bucket, else two in one graph."""
        forget, retain = pair
        self.example_passes += weight * sum(len(batch) for batch in pair if batch is not None)
        if forget is not None and retain is not None and forget.length == retain.length:
            both = {name: torch.cat([forget.inputs[name], retain.inputs[name]]) for name in forget.inputs}
            labels = torch.cat([forget.labels, retain.labels])
            hidden, logits = self.head.run(model, Batch(both, labels, labels))
            cut = len(forget)
            return [(hidden[:cut], logits[:cut]), (hidden[cut:], logits[cut:])]
        return [None if batch is None else self.head.run(model, batch) for batch in pair]

    def _step_loss(self, pairs: Sequence[_Pair], outputs: Sequence[Sequence[_Outputs | None]]) -> Tensor:
        number = self.state.global_step
        step = Step(self._scores(0, "forget", pairs, outputs), self._scores(1, "retain", pairs, outputs), number)
        parts = self.method.loss(step)
        loss = torch.stack(list(parts.values())).sum()
        shown = {name: float(part.detach()) for name, part in parts.items()}
        if not torch.isfinite(loss):
            raise NonFiniteLossError(number + 1, shown)
        with torch.no_grad():
            self.history.append({"step": number + 1, "loss": float(loss.detach()), **shown, **self.method.counts(step)})
        return loss

    def _scores(
        self, place: int, group: str, pairs: Sequence[_Pair], outputs: Sequence[Sequence[_Outputs | None]]
    ) -> Scores:
        rows, hidden, logits, labels, offset = [], [], [], [], 0
        for pair, output in zip(pairs, outputs, strict=True):
            batch, out = pair[place], output[place]
            if batch is not None and out is not None:
                rows.append(batch.record_index + offset)
                hidden.append(_at_least_float32(out[0]))
                logits.append(_at_least_float32(out[1]))
                labels.append(batch.labels)
                offset += int(batch.record_index.max()) + 1
        nothing = torch.zeros(0, device=self.args.device)
        whole = [torch.cat(part) if part else nothing for part in (hidden, logits, labels, rows)]
        return Scores(
            hidden=whole[0], logits=whole[1], labels=whole[2], record_index=whole[3],
            allowed=self.method.needs, group=group,
        )  # fmt: skip

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the last step's parts, so that every experiment tracker sees them."""
        last = self.history[-1] if self.history else {}
        super().log({**logs, **{f"part_{k}": v for k, v in last.items() if k not in ("step", "loss")}}, *args, **kwargs)


def _at_least_float32(tensor: Tensor) -> Tensor:
    return tensor.float() if tensor.dtype in (torch.float16, torch.bfloat16) else tensor


def _only_item(items: list[_Pair]) -> _Pair:
    return items[0]


def _get_rng() -> tuple[Tensor, list[Tensor]]:
    return torch.get_rng_state(), torch.cuda.get_rng_state_all() if torch.cuda.is_available() else []


def _set_rng(state: tuple[Tensor, list[Tensor]]) -> None:
    torch.set_rng_state(state[0])
    if state[1]:
        torch.cuda.set_rng_state_all(state[1])
