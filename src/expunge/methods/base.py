"""What a method is: a frozen dataclass of hyperparameters with one pure function."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from expunge.options import Options

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.scoring import Step

__all__ = ["Method", "Procedure", "ProcedureContext"]

_UNITS = frozenset({"forget.hidden", "forget.logits", "retain.hidden", "retain.logits"})


@dataclass(frozen=True, kw_only=True)
class Method(Options):
    """A method that is a training loss.

    A subclass is a frozen dataclass: its fields are the hyperparameters, the TOML keys, the `show` table and the
    report's rows. Two fields, where a subclass has them, shape the step: `views` (dropout views of each forget
    record) and `retain_ratio` (retained records in a step, as a multiple of its batch size).

    Attributes:
        needs: What `loss` reads of a step, of ``forget.hidden``, ``forget.logits``, ``retain.hidden`` and
            ``retain.logits``. A group that is not named is not even forwarded.
    """

    needs: ClassVar[frozenset[str]] = _UNITS

    @classmethod
    def section(cls) -> str:
        return "method"

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
