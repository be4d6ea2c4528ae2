"""What a step of `UnlearnTrainer` stands on, as a snapshot, and put back from it to the bit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from expunge.errors import RunError
from expunge.random_state import every_random_state, restore_every_random_state
from expunge.snapshot import BrokenSnapshotError, Snapshot

if TYPE_CHECKING:
    from expunge.gathering import Gatherer
    from expunge.reference import Reference

__all__ = [
    "model_state",
    "optimizer_state",
    "put_optimizer_state",
    "restore_model",
    "restore_random",
    "restored_optimizer",
    "restored_training",
    "step_state",
    "training_state",
]


def step_state(trainer: Any, *, weights: bool) -> Snapshot:
    """What the next step of any trainer stands on: weights that are trained, optimizer, schedule, random state, its number.

    Raises:
        RunError: The optimizer or schedule has a state that is neither tensors nor plain values.
    """
    made = Snapshot(values={"step": trainer.state.global_step})
    if weights:
        made.add("weights", model_state(trainer.model, trained=True))
    made.add("optimizer", _optimizer_and_schedule(trainer))
    made.add("random", Snapshot(*every_random_state()))
    return made


def training_state(trainer: Any, gatherer: Gatherer, reference: Reference | None, *, weights: bool) -> Snapshot:
    """What the next step of unlearning stands on: the method's state, partners, the original's outputs and log as well.

    No record is in it: the original's outputs and embeddings of partners are kept by the records' positions.

    Raises:
        RunError: The optimizer or schedule has a state that is neither tensors nor plain values.
    """
    made = step_state(trainer, weights=weights)
    made.values |= {"passes": trainer.passes, "history": trainer.history}
    states = trainer.method_state
    where = {name: tensor.device.type for name, tensor in states.items()}
    made.add("method", Snapshot({name: tensor.clone() for name, tensor in states.items()}, where))
    made.add("partners", gatherer.state())
    if reference is not None:
        made.add("reference", reference.state())
    return made


def restored_training(trainer: Any, snapshot: Snapshot, gatherer: Gatherer, reference: Reference | None) -> float:
    """Put back what `training_state` has beside `step_state`; the passes so far."""
    trainer.method_state = kept_method_state(snapshot, trainer.args.device)
    trainer.history[:] = snapshot.values["history"]
    gatherer.restore(snapshot.part("partners"), trainer.args.device)
    if reference is not None:
        reference.restore(snapshot.part("reference"), trainer.args.device)
    return snapshot.values["passes"]


def kept_method_state(snapshot: Snapshot, device: Any) -> dict[str, Tensor]:
    """The method's state, each tensor on the kind of device it was on."""
    kept = snapshot.part("method")
    return {name: t if kept.values[name] == "cpu" else t.to(device) for name, t in kept.tensors.items()}


def model_state(model: Any, *, trained: bool = False) -> Snapshot:
    """A model's weights and buffers; of the weights only those that are trained, where the others are known anyway."""
    return Snapshot({name: tensor for name, tensor in _of_model(model) if not trained or tensor.requires_grad
                     or not isinstance(tensor, torch.nn.Parameter)})  # fmt: skip


@torch.no_grad()
def restore_model(model: Any, snapshot: Snapshot) -> None:
    """Put weights and buffers back into the model that they are of, where they lie.

    Raises:
        BrokenSnapshotError: They are of another model.
    """
    own = dict(_of_model(model))
    if strange := [
        name for name, tensor in snapshot.tensors.items() if name not in own or own[name].shape != tensor.shape
    ]:
        raise BrokenSnapshotError(f'what was kept is of another model: it has no "{strange[0]}" of that size.')
    for name, tensor in snapshot.tensors.items():
        own[name].copy_(tensor)


def _of_model(model: Any) -> Iterator[tuple[str, Tensor]]:
    yield from model.named_parameters()
    lasting = model.state_dict(keep_vars=True)
    yield from ((name, buffer) for name, buffer in model.named_buffers() if name in lasting)


def optimizer_state(optimizer: Any) -> Snapshot:
    """An optimizer's state; what of it is no tensor must be plain, or it cannot be written."""
    state = optimizer.state_dict()
    tensors, values = {}, {}
    for number, entries in state["state"].items():
        for name, value in entries.items():
            if isinstance(value, Tensor):
                tensors[f"{number}/{name}"] = value
            else:
                values.setdefault(str(number), {})[name] = value
    return Snapshot(tensors, {"groups": state["param_groups"], "values": values})


def put_optimizer_state(optimizer: Any, kept: Snapshot) -> None:
    """Put back what `optimizer_state` gave."""
    state: dict[int, dict[str, Any]] = {int(number): dict(entries) for number, entries in kept.values["values"].items()}
    for key, tensor in kept.tensors.items():
        number, _, name = key.partition("/")
        state.setdefault(int(number), {})[name] = tensor
    optimizer.load_state_dict({"state": state, "param_groups": kept.values["groups"]})


def _optimizer_and_schedule(trainer: Any) -> Snapshot:
    if trainer.optimizer is None:
        return Snapshot()
    made = optimizer_state(trainer.optimizer)
    made.values["scheduler"] = trainer.lr_scheduler.state_dict()
    try:
        json.dumps(made.values)
    except TypeError as error:
        raise RunError(f"the state of this optimizer or schedule cannot be kept ({error}).") from error
    return made


def restored_optimizer(trainer: Any, snapshot: Snapshot) -> None:
    """Put back optimizer and schedule, once the trainer has made them."""
    kept = snapshot.part("optimizer")
    if kept.values:
        put_optimizer_state(trainer.optimizer, kept)
        trainer.lr_scheduler.load_state_dict(kept.values["scheduler"])


def restore_random(snapshot: Snapshot) -> None:
    """Put back the random state."""
    kept = snapshot.part("random")
    restore_every_random_state(kept.tensors, kept.values)
