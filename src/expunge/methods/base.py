"""What a method is: a frozen dataclass of hyperparameters with one pure function."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, Literal

import numpy as np

from expunge.errors import Problem
from expunge.options import Options

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.paused import PausedRun
    from expunge.step import Step
    from expunge.stopping import Check
    from expunge.tasks.base import Encoded

__all__ = [
    "GROUPS", "NEEDS", "Group", "Method", "MethodContext", "Procedure", "ProcedureContext", "State", "trains_the_model",
]  # fmt: skip

GROUPS = ("forget", "retain", "alternate")
NEEDS = frozenset(
    f"{group}.{what}"
    for group in GROUPS
    for what in ("hidden", "logits", "reference", "reference_logp", "layer", "reference_layer")
)
"""Everything a step can carry."""

Group = Literal["forget", "retain", "alternate"]
State = Mapping[str, "Tensor"]
"""What a method carries over its steps: tensors only. One named ``mask/<parameter>`` multiplies that gradient."""


@dataclass(frozen=True)
class MethodContext:
    """What a method may use before its first step. Every pass through a model made here is counted as cost.

    Attributes:
        model: The original, not to be changed.
        forget: The forget records.
        unseen: As many calibration records, never trained on.
        retain: All retained records.
        calibration: All calibration records.
        ids: Ids of the forget records: what randomness hangs on, so that order does not matter.
        classes: How many classes the model has.
        seed: The run's seed.
        steps_per_pass: Steps in which every forget record is seen once.
        logits: (model, records) -> (U, C) logits in eval mode.
        fresh: seed -> a model of the original's architecture with random weights.
        gradient: Gradient of the mean cross-entropy over the forget units, by parameter name, in eval mode.
        rewound: alpha -> the original with its weights moved back to ``base + alpha * (original - base)``, its head left
            as it is; None where the base is not known.
        embedded: (model, records) -> (U, H) states of its last layer, a text's the mean over its tokens; None where the
            model does not give them.
        states: (model, records) -> (U,) log-probabilities of the labels, in nats, and (U, H) inputs of the output layer; None
            where units are no tokens.
        fit: (records, seed) -> a model fine-tuned from the base on these alone; None without base and recipe.
        known: (N,) log-odds of all calibration records under the original, in nats, where the run has scored them anyway.
        reanswered: Answers, one a forget record -> these records with them in place of their own; None where records have
            no answers, or their texts are not at hand.
        written: (seed, temperature) -> one answer a forget record that the original writes to its prompt; None likewise.
        tokens: Whether units are tokens, and classes a vocabulary.
    """

    model: Any
    forget: Encoded
    unseen: Encoded
    retain: Encoded
    calibration: Encoded
    ids: Sequence[str]
    classes: int
    seed: int
    steps_per_pass: int
    logits: Callable[[Any, Encoded], Tensor]
    fresh: Callable[[int], Any]
    gradient: Callable[[], dict[str, Tensor]]
    rewound: Callable[[float], Any | None]
    embedded: Callable[[Any, Encoded], np.ndarray | None]
    states: Callable[[Any, Encoded], tuple[Tensor, Tensor]] | None = None
    fit: Callable[[Encoded, int], Any] | None = None
    known: np.ndarray | None = None
    reanswered: Callable[[Sequence[str]], Encoded] | None = None
    written: Callable[[int, float], list[str]] | None = None
    tokens: bool = False

    @property
    def erased(self) -> np.ndarray:
        """(C,) bool: classes that are erased whole, so that no retained unit has them."""
        return np.bincount(self.retain.flat_labels, minlength=self.classes) == 0

    def drawn(self, what: Literal["retain", "calibration"], most: int) -> Encoded:
        """At most so many of the retained or calibration records, drawn by the run's seed and the request."""
        records = self.retain if what == "retain" else self.calibration
        return records.take(self.places(what, most))

    def places(self, what: Literal["retain", "calibration"], most: int) -> list[int]:
        """Positions of what `drawn` draws, in order."""
        records = self.retain if what == "retain" else self.calibration
        digest = hashlib.sha256("\n".join([what, *sorted(self.ids)]).encode()).digest()
        rng = np.random.default_rng([self.seed, 8, int.from_bytes(digest[:8])])
        return sorted(rng.choice(len(records), min(most, len(records)), replace=False).tolist())

    def uniform(self, what: str) -> np.ndarray:
        """(U,) numbers in [0, 1), one a forget unit, each a function of `what`, the seed, its record's id and its place."""
        drawn = []
        for record_id, labels in zip(self.ids, self.forget.labels, strict=True):
            digest = hashlib.sha256(f"{what}|{self.seed}|{record_id}".encode()).digest()
            drawn.append(np.random.default_rng(int.from_bytes(digest[:16])).random(len(labels)))
        return np.concatenate(drawn)

    def uniform_by_record(self, what: str) -> np.ndarray:
        """(N,) numbers in [0, 1), one a forget record, drawn as `uniform` draws."""
        drawn = self.uniform(what)
        counts = [len(labels) for labels in self.forget.labels]
        return drawn[np.cumsum([0, *counts[:-1]])]

    def other_classes(self, what: str) -> np.ndarray:
        """(U,) a class for each forget unit, drawn evenly from those that are not its own, as `uniform` draws."""
        shift = 1 + (self.uniform(what) * (self.classes - 1)).astype(int)
        return (np.array(self.forget.flat_labels) + shift) % self.classes


@dataclass(frozen=True, kw_only=True)
class Method(Options):
    """A method that is a training loss.

    A subclass is a frozen dataclass: its fields are the hyperparameters, the TOML keys, the `show` table and the
    report's rows. Three fields, where a subclass has them, shape the step: `views` (dropout views of each forget
    record), `retain_ratio` (retained records in a step, as a multiple of its batch size) and `dropout` (whether the
    model drops out during steps; else it runs as when it is used). A fourth, `retain`, adds to what it reads (`reads`).

    Attributes:
        needs: What `loss` reads of a step: ``hidden``, ``logits``, ``reference`` (the original's logits), ``reference_logp``
            (its log-probabilities of the labels), ``layer`` (states behind the layer that the field `layer` names, and no
            further) and ``reference_layer`` (the original's), each of ``forget``, ``retain`` or ``alternate``, such as
            ``forget.hidden``. A group that is not named is not even forwarded.
        units: What it can forget: ``classes`` (of classifiers and taggers), ``tokens`` (of causal language models).
        pushes: Where a step moves forget units: ``away`` from their class, ``nowhere``, or ``elsewhere`` (such as away from
            the original's answer), which only the method's own tests can check.
        needs_base: Whether `prepare` trains models from the base: the run then needs `retrain.base` and `retrain.recipe`.
        rewinds: Whether `prepare` rewinds the original toward its base: the run then needs `retrain.base`.
    """

    needs: ClassVar[frozenset[str]] = NEEDS
    units: ClassVar[frozenset[str]] = frozenset({"classes", "tokens"})
    pushes: ClassVar[Literal["away", "nowhere", "elsewhere"]] = "elsewhere"
    needs_base: ClassVar[bool] = False
    rewinds: ClassVar[bool] = False

    @classmethod
    def section(cls) -> str:
        return "method"

    @property
    def reads(self) -> frozenset[str]:
        """What `needs` names, and what the field `retain` adds where a method has one: ``none``, ``nll`` or ``kl``."""
        more = {"nll": {"retain.logits"}, "kl": {"retain.logits", "retain.reference"}}
        return self.needs | more.get(getattr(self, "retain", "none"), set())

    @property
    def halfway(self) -> bool:
        """Whether its forward passes end behind the layer that the field `layer` names."""
        return any(need.endswith(".layer") for need in self.reads)

    def misfits(self, model_config: Any) -> list[Problem]:
        """What keeps these settings from being used with a model, told before its weights load."""
        del model_config
        return []

    def equipped(self, model: Any, task: Any, *, trust_remote_code: bool = False) -> Any:
        """The model that is unlearned, where it is more than the one given: made once, before all else."""
        del task, trust_remote_code
        return model

    def prepare(self, context: MethodContext) -> State:
        """What the method carries over its steps, made once before the first of them."""
        del context
        return {}

    def alternates(self, context: MethodContext) -> Encoded | None:
        """The forget records with other answers, which a step then carries beside their own; made once, after `prepare`."""
        del context
        return None

    def after_step(self, state: State, parts: Mapping[str, float]) -> State:
        """What is carried on, once a step's loss is known by its parts."""
        del parts
        return state

    def trained(self, model: Any) -> list[str] | None:
        """Names of the parameters that steps may change; None: all."""
        del model
        return None

    def groups(self, number: int, steps_per_pass: int) -> frozenset[Group]:
        """Groups that step `number`, counted from 0, reads: all that it reads, unless a method has phases."""
        del number, steps_per_pass
        return frozenset(group for group in GROUPS if any(n.startswith(f"{group}.") for n in self.reads))

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
        model: A copy of the original, the procedure's to change.
        task: Encodes and collates records.
        forget: The forget records.
        retain: The retained records.
        forget_ids: Their ids.
        retain_ids: Ids of the retained records.
        classes: How many classes a record can have; 1 where it has several units, each with its own.
        seed: The run's seed.
        fit: (records, seed) -> a model fine-tuned from the base on these; None without base and recipe. Counted as cost.
        tune: (model, records, epochs, learning rate) -> None; trains that model in place. Counted as cost.
        check: (model, number) -> how forget and calibration records look to it, for choices between models. Counted.
        spend: Counts example-passes that the procedure makes on its own.
        prepared: -> what a method may use before its first step, of which the targets are made. Counted.
        note: Takes a row of figures for the log, such as a step's parts.
        keep: Takes the number of the check whose model is given back, where that is not the one nearest to what is wanted.
        retraining: Example-passes of one retraining, where the recipe is known.
        paused: Where a procedure that trains on its own keeps what another process could go on from, and finds it.
    """

    model: Any
    task: Any
    forget: Encoded
    retain: Encoded
    forget_ids: Sequence[str]
    retain_ids: Sequence[str]
    classes: int
    seed: int
    fit: Callable[[Encoded, int], Any] | None
    tune: Callable[[Any, Encoded, float, float], None]
    check: Callable[[Any, int], Check]
    spend: Callable[[float], None]
    prepared: Callable[[], MethodContext]
    note: Callable[[dict[str, float]], None]
    keep: Callable[[int], None]
    retraining: float | None = None
    paused: PausedRun | None = None


@dataclass(frozen=True, kw_only=True)
class Procedure(Options):
    """A method that is no training loss, such as retraining.

    Attributes:
        needs_base: Whether it trains from the base model: the run then needs `retrain.base` and `retrain.recipe`.
        units: What it can forget, as `Method.units`.
        audits: Audits that a run of it has beside the task's.
    """

    needs_base: ClassVar[bool] = False
    units: ClassVar[frozenset[str]] = frozenset({"classes", "tokens"})
    audits: ClassVar[tuple[str, ...]] = ()

    @classmethod
    def section(cls) -> str:
        return "method"

    def expected(
        self, forget: int, retain: int, calibration: int, classes: int, retraining: float | None = None
    ) -> tuple[float, int] | None:
        """Example-passes at most and candidates it will have checked, where that is known from the sizes of the groups.

        `classes` and `retraining` are as in `ProcedureContext`. Checks then take samples such that they cost no more than a
        tenth of this.
        """
        del forget, retain, calibration, classes, retraining
        return None

    @abstractmethod
    def run(self, context: ProcedureContext) -> Any:
        """The unlearned model."""


def trains_the_model(method: Any) -> bool:
    """Whether a method takes steps on the model it is given, and has none of its own in its place."""
    return isinstance(method, Method) and type(method).equipped is Method.equipped
