"""`transformers.Trainer` for unlearning: forget views and retained partners in one pass, or in two turns; parts logged."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from transformers import TrainingArguments

from expunge import processes
from expunge.collectives import of_all
from expunge.errors import NonFiniteLossError
from expunge.gathering import Gatherer, Outputs, leaves, sent_back, tensors
from expunge.halfway import end_of_pass, hold_all_but, states_behind
from expunge.head import head_of
from expunge.in_turns import in_turns, turns_of
from expunge.length_groups import by_length
from expunge.methods.base import GROUPS, Method
from expunge.preparation import Preparation, prepared_state
from expunge.random_state import random_state, restore_random_state
from expunge.referring import Kept, referred
from expunge.resumable_unlearning import ResumableUnlearning
from expunge.sampling import StepSampler
from expunge.shared_trainer import SharedTrainer
from expunge.step import Scores, Step
from expunge.step_batches import Parts, StepBatches
from expunge.tasks.base import Batch, Encoded

__all__ = ["UnlearnTrainer"]


class UnlearnTrainer(ResumableUnlearning, SharedTrainer):
    """A `Trainer` whose loss is an unlearning method's.

    `args.per_device_train_batch_size` counts forget records; the method's `retain_ratio` times as many retained records
    are drawn. `args.max_steps`, or `args.num_train_epochs` passes over the forget records, end the run; callbacks may
    end it earlier.

    With gradient accumulation the loss is still that of the whole step, since a contrastive term is no mean over
    micro-batches: a first pass without graph collects all outputs, the loss is taken once, and each micro-batch then
    runs again to send its share of the gradient back (gradient caching, Gao et al. 2021, arXiv 2101.06983).

    Of several processes (`torchrun`, `accelerate launch`) each runs its part of the step's records; outputs are gathered, so
    that every process takes the loss of the whole step, and its gradient comes back to each one's own records.
    Of a language model a loss of two parts that never meet is taken in two turns, forget records first (`expunge.in_turns`).

    Args:
        model: The model, changed in place.
        args: Training arguments.
        method: The method.
        task: Collates records.
        forget: Tokenised forget records.
        retain: Tokenised retained records.
        given: What the method may use before its first step; left out: ids are positions, nothing can be fitted.
        cache: Folder that keeps the original's outputs for retained tokens; left out: they are made anew.
        batch_size: Forget records a step, over all micro-batches and processes; left out: as many as `args` says.
        options: Passed on to `Trainer` (callbacks, optimizers ...).

    Raises:
        UsageError: The model's head is not linear, or the method cannot work on weights that are cut up.
        NonFiniteLossError: A part of the loss became NaN or infinite.

    Attributes:
        history: One dict a step: `step`, `loss`, every part, the method's counts.
        method_state: What the method carries over its steps.
        watch: Called with each step's forget scores, where set.
    """

    def __init__(
        self, model: Any, args: TrainingArguments, *, method: Method, task: Any, forget: Encoded, retain: Encoded,
        given: Preparation | None = None, cache: Path | Kept | None = None, batch_size: int | None = None, **options: Any,
    ) -> None:  # fmt: skip
        args._n_gpu = min(args.n_gpu, 1)  # no torch DataParallel: it would cut a step's partners apart
        args.remove_unused_columns = False
        args.logging_nan_inf_filter = False
        super().__init__(model, args, train_dataset=None, **options)
        self.model_accepts_loss_kwargs = False
        self.method, self.task, self.forget, self.retain = method, task, forget, retain
        self.head = head_of(model, task, forget)
        self._micro_batches = args.gradient_accumulation_steps
        self.sampler = StepSampler(
            *(
                [()] * len(r) if task.of_tokens else r.labels for r in (forget, retain)
            ),  # a token's partners are no draws
            batch_size=batch_size or args.per_device_train_batch_size * self._micro_batches * processes.count(),
            retain_ratio=getattr(method, "retain_ratio", 1),
            seed=args.seed,
        )
        if args.max_steps <= 0:
            args.max_steps = max(1, round(args.num_train_epochs * self.sampler.steps_per_pass))
        self.method_state, alternate, self._passes = prepared_state(
            method, self.model, task, forget, retain, given or Preparation(),
            seed=args.seed, steps_per_pass=self.sampler.steps_per_pass,
        )  # fmt: skip
        self.train_dataset = StepBatches(
            method, task, forget, retain, self.sampler, micro_batches=self._micro_batches, steps=args.max_steps,
            alternate=alternate, lockstep=processes.sharded(),
        )  # fmt: skip
        self.history: list[dict[str, float]] = []
        self._cached: list[tuple[Any, list[Tensor | None]]] = []
        self._turns = turns_of(method, of_tokens=task.of_tokens, whole=self.alone and self._micro_batches == 1)
        records = {"forget": forget, "retain": retain, **({} if alternate is None else {"alternate": alternate})}
        self._layer, self._share = end_of_pass(method, model)
        self._reference = referred(
            method, model, self.head, task, records, [self.sampler.plan(step) for step in range(args.max_steps)],
            layer=self._layer, cache=cache, batch_size=args.per_device_train_batch_size,
        )  # fmt: skip
        self._held = hold_all_but(method.trained(model), model)
        masks = {name.removeprefix("mask/"): mask for name, mask in self.method_state.items() if "mask/" in name}
        self._masks = [p.register_hook(masks[n].to(p.device).mul) for n, p in model.named_parameters() if n in masks]
        if processes.sharded():
            self.head = self.cut_up(self.head, whole=bool(self._masks) or self._layer is not None)
        self._gatherer = Gatherer(
            method, self.head, self._reference, several_units=forget.units is not None, device=args.device,
            halfway=self._layer is not None,
        )  # fmt: skip
        self.watch: Callable[[Scores], None] | None = None

    @property
    def example_passes(self) -> float:
        """Forward-and-backward passes of one record so far, preparation included; one without backward counts a third."""
        return self._passes + (self._reference.passes if self._reference else 0.0)

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`; the model is given back without the method's gradient masks."""
        before = self._passes
        try:
            found = super().train(*args, **kwargs)
            self._passes = before + sum(of_all(self._passes - before))
            return found
        finally:
            for handle in self._masks:
                handle.remove()
            for parameter in self._held:
                parameter.requires_grad_(True)

    def get_batch_samples(self, epoch_iterator: Any, num_batches: int, device: Any) -> tuple[list[Parts], None]:
        pairs = [pair for _, pair in zip(range(num_batches), epoch_iterator, strict=False)]
        self.restore_random_if_due()  # not where the trainer does it: gradient caching draws before that
        self._cached = self._cache_gradients(pairs) if len(pairs) > 1 else []
        return pairs, None

    def _prepare_inputs(self, inputs: Any) -> Any:
        return tuple(batch.to(self.args.device) if batch is not None else None for batch in inputs)

    def compute_loss(
        self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> Any:
        (model := self.running).train(getattr(self.method, "dropout", True))
        if self._turns is not None:
            run, step_of = partial(self._forward, model), lambda outputs: self._step([inputs], [outputs])
            return self._loss(in_turns(self._turns, inputs, run, step_of, self.accelerator.backward, self.watch), {})
        if not self._cached:
            return self._step_loss([inputs], [self._forward(model, inputs)])
        rng_state, gradients = self._cached.pop(0)
        restore_random_state(rng_state)
        if (surrogate := sent_back(self._forward(model, inputs), gradients)) is None:
            return torch.zeros((), device=self.args.device, requires_grad=True)
        loss = torch.tensor(self.history[-1]["loss"], device=self.args.device)
        # Trainer divides by the micro-batches; the cached gradients are those of the whole step already.
        return (surrogate - surrogate.detach()) * self.current_gradient_accumulation_steps + loss  # pyright: ignore

    def _cache_gradients(self, pairs: Sequence[Parts]) -> list[tuple[Any, list[Tensor | None]]]:
        model = self.running
        model.train(getattr(self.method, "dropout", True))
        moved = [self._prepare_inputs(pair) for pair in pairs]
        states, cut = [], []
        for pair in moved:
            states.append(random_state())
            with torch.no_grad(), self.compute_loss_context_manager():
                outputs = self._forward(model, pair, weight=1 / 3)
            cut.append([None if o is None else leaves(o) for o in outputs])
        self._step_loss(moved, cut).backward()
        return list(zip(states, [[t.grad for t in tensors(pair)] for pair in cut], strict=True))

    def _forward(self, model: Any, parts: Parts, weight: float = 1.0) -> list[Outputs | None]:
        """Outputs of all groups: rows of forget and retained records run together, by length, in one graph."""
        count = sum(len(batch) for batch in parts if batch is not None and len(batch.labels))
        self._passes += self._share * weight * count
        if self._cut is None:
            return [out for some in (parts[:2], parts[2:]) for out in by_length(lambda b: self._run(model, b), some)]
        return [None if batch is None else self._run(model, batch) for batch in parts]

    def _run(self, model: Any, batch: Batch) -> Outputs:
        if self._layer is not None:
            return states_behind(model, self._layer, batch), None
        hidden, logits = self.head.run(model, batch)
        units = len(batch.labels)  # fewer than rows where a process only keeps step with the others
        return hidden[:units], None if logits is None else logits[:units]

    def _step(self, pairs: Sequence[Parts], outputs: Sequence[Sequence[Outputs | None]]) -> Step:
        forget, retain, alternate = (self._gatherer.scores(group, pairs, outputs) for group in GROUPS)
        return Step(forget, retain, self.state.global_step, self.method_state, alternate)

    def _step_loss(self, pairs: Sequence[Parts], outputs: Sequence[Sequence[Outputs | None]]) -> Tensor:
        step = self._step(pairs, outputs)
        parts = self.method.loss(step)
        if self.watch and self._layer is None:
            self.watch(step.forget)
        return self._loss(parts, self.method.counts(step))

    def _loss(self, parts: dict[str, Tensor], counts: dict[str, float]) -> Tensor:
        """The sum of the parts, once they are found finite and put into the log."""
        loss, number = torch.stack(list(parts.values())).sum(), self.state.global_step
        shown = {name: float(part.detach()) for name, part in parts.items()}
        if not torch.isfinite(loss):
            raise NonFiniteLossError(number + 1, shown)
        with torch.no_grad():
            self.method_state = self.method.after_step(self.method_state, shown)
            self.history.append({"step": number + 1, "loss": float(loss.detach()), **shown, **counts})
        return loss if loss.requires_grad else loss.requires_grad_()  # this process may have no record of the step

    def log(self, logs: dict[str, float], *args: Any, **kwargs: Any) -> None:
        """Adds the last step's parts, so that every experiment tracker sees them."""
        last = self.history[-1] if self.history else {}
        super().log({**logs, **{f"part_{k}": v for k, v in last.items() if k not in ("step", "loss")}}, *args, **kwargs)
