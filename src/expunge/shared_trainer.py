"""A `Trainer` that is one of several processes: gradients are summed, weights may be cut up (FSDP2)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer, TrainerCallback, TrainingArguments

from expunge import collectives, processes
from expunge.errors import Problem, UsageError
from expunge.models import move_back
from expunge.random_state import random_state, restore_random_state
from expunge.sharding import cut_copy, gather_into, spread_from

__all__ = ["SharedTrainer"]


class SharedTrainer(Trainer):
    """What of a `Trainer` is another where several processes share a step; with one it is a `Trainer`.

    Every process must make the loss of the whole step, whose gradient reaches weights by its own records alone; see
    `expunge.collectives.everywhere`. The training data must be its own part already.
    """

    def __init__(self, model: Any, args: TrainingArguments, **options: Any) -> None:
        self._cut: Any = None
        if processes.sharded():
            options["callbacks"] = [_Whole(self), *options.get("callbacks", ())]
        super().__init__(model, args, **options)
        self.given: Any = self.model

    def cut_up(self, head: Any, *, whole: bool) -> Any:
        """Go on with a copy of the model that is cut up; gives its head in exchange for the model's.

        Raises:
            UsageError: The method needs a `whole` model.
        """
        if whole:
            what = "weights cannot be cut up (FSDP) for a method that masks gradients or stops halfway"
            raise UsageError(Problem("method.name", what, "Start the processes without FSDP."))
        self.model, head = cut_copy(self.given, head, self.args.device)
        self._cut = self.model_wrapped = self.model
        return head

    @contextmanager
    def gathered(self) -> Iterator[None]:
        """Within, the model given has the weights as they are now; one that is not cut up has them always."""
        if self._cut is None:
            yield
            return
        gather_into(self.given.to(self.args.device), self._cut)
        yield
        self.given.to("cpu")  # between two looks the device holds the parts alone

    def move_back(self, base: Mapping[str, Tensor], share: float) -> None:
        """Move the weights that are trained this share of the way back to those of a base; see `expunge.models.move_back`."""
        move_back(self.given, base, share)
        if self._cut is not None:
            spread_from(self.given, self._cut)

    @property
    def alone(self) -> bool:
        """Whether this is the one process, whose backward passes take gradients and no more (DeepSpeed's make a step)."""
        return processes.count() == 1 and self.accelerator.distributed_type == "NO"

    @property
    def running(self) -> Any:
        """The model whose forward pass a step calls."""
        return self.model_wrapped if processes.count() == 1 else self.model

    def train(self, *args: Any, **kwargs: Any) -> Any:
        """As `Trainer.train`, from the first process's weights."""
        if processes.count() == 1:
            return super().train(*args, **kwargs)
        if self._cut is None:
            collectives.same_weights(self.given)
        state = random_state()
        torch.manual_seed(self.args.seed + 1_000_003 * processes.number())  # else all would drop out alike
        try:
            return super().train(*args, **kwargs)
        finally:
            restore_random_state(state)  # what comes behind is alike in all again

    def get_train_dataloader(self) -> DataLoader[Any]:
        """The items of the training data, one after the other: every process has its own already."""
        loader = DataLoader(self.train_dataset, batch_size=1, shuffle=False, collate_fn=_only_item)  # pyright: ignore[reportArgumentType]
        return loader if processes.count() > 1 else self.accelerator.prepare_data_loader(loader, device_placement=False)

    def training_step(self, *args: Any, **kwargs: Any) -> Tensor:
        """As `Trainer.training_step`; behind a step's last micro-batch gradients are summed over the processes."""
        loss = super().training_step(*args, **kwargs)
        if processes.count() > 1 and self._cut is None and self.accelerator.sync_gradients:
            collectives.sum_gradients(self.model.parameters())
        return loss

    def _wrap_model(self, model: Any, training: bool = True, dataloader: Any = None) -> Any:
        """Of several processes no `DistributedDataParallel`.

        It reduces gradients as one backward pass of one forward pass fills them. A step here has a forward pass for each
        length of records, reads inputs of the last layer in between, and has none at all in a process without records.
        """
        if processes.count() == 1:
            return super()._wrap_model(model, training, dataloader)
        own = self.accelerator.prepare_model(model, evaluation_mode=True)  # autocast, and nothing else
        return torch.nn.ModuleDict({"model": own})  # another module than the model: `Trainer` wraps it no more


class _Whole(TrainerCallback):
    """Shows the callbacks behind it the model given, not its cut copy, and leaves it with the last step's weights."""

    def __init__(self, trainer: SharedTrainer) -> None:
        self._trainer = trainer

    def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
        self._trainer.callback_handler.model = self._trainer.given

    def on_train_end(self, *args: Any, **kwargs: Any) -> None:
        with self._trainer.gathered():
            pass
        self._trainer.given.to(self._trainer.args.device)


def _only_item(items: list[Any]) -> Any:
    return items[0]
