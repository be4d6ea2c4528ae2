"""What a method is: a frozen dataclass of hyperparameters with one pure function."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from expunge.options import Options

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.scoring import Step

__all__ = ["Method", "MethodContext", "Procedure", "ProcedureContext", "State"]

_UNITS = frozenset({"forget.hidden", "forget.logits", "retain.hidden", "retain.logits"})

State = Mapping[str, "Tensor"]
"""What a method carries over steps: tensors by name. Names that begin with ``mask/`` mask gradients of parameters."""


@dataclass(frozen=True)
class MethodContext:
    """What a method may use before the first step.

    Attributes:
        labels: (N,) classes of the forget records.
        keys: A number for each forget record that depends on its id alone: randomness keyed by it does not depend on
            order or on the other records.
        classes: How many classes the model has.
        seed: The run's seed.
        steps_per_pass: Steps in which every forget record is seen once.
        untrained_logits: seed -> (N, C) outputs of a randomly initialised model of the same shape on the forget records.
        gradient: () -> gradient of the mean cross-entropy of the forget records, by parameter name.
    """

    labels: Tensor
    keys: Sequence[int]
    classes: int
    seed: int
    steps_per_pass: int
    untrained_logits: Callable[[int], Tensor]
    gradient: Callable[[], Mapping[str, Tensor]]


@dataclass(frozen=True, kw_only=True)
class Method(Options):
    """A method that is a training loss.

    A subclass is a frozen dataclass: its fields are the hyperparameters, the TOML keys, the `show` table and the
    report's rows. Two fields, where a subclass has them, shape the step: `views` (dropout views of each forget
    record) and `retain_ratio` (retained records in a step, as a multiple of its batch size).

    Attributes:
        needs: What `loss` reads of a step, of ``forget.hidden``, ``forget.logits``, ``retain.hidden`` and
            ``retain.logits``, and of the untouched original's ``forget.reference`` and ``retain.reference`` (logits). A
            group that is not named is not even forwarded.
    """

    needs: ClassVar[frozenset[str]] = _UNITS

    @classmethod
    def section(cls) -> str:
        return "method"

    def prepare(self, context: MethodContext) -> State:
        """What the method carries over its steps; `loss` finds it in `step.state`."""
        del context
        return {}

    @abstractmethod
    def loss(self, step: Step) -> dict[str, Tensor]:
        """Named parts, each a scalar in nats; their sum is minimised."""

    def counts(self, step: Step) -> dict[str, float]:
        """Figures to log beside the parts, such as anchors left out. Not part of the loss."""
        del step
        return {}


@dataclass(frozen=True)
class ProcedureContext:
    """What a procedure may use.

    Attributes:
        fit: Train a fresh model from the base on the retained records: seed -> model. None without base and recipe.
        seed: The run's seed.
    """

    fit: Callable[[int], Any] | None
    seed: int


@dataclass(frozen=True, kw_only=True)
class Procedure(Options):
    """A method that is no training loss, such as retraining."""

    @classmethod
    def section(cls) -> str:
        return "method"

    @abstractmethod
    def run(self, context: ProcedureContext) -> Any:
        """The unlearned model."""
