"""The conformance kit passes every registered method and audit, and catches what it is there to catch."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from expunge import registry
from expunge.audits.base import Audit, AuditContext, AuditResult
from expunge.audits.membership import Membership
from expunge.methods.base import Method, MethodContext, Procedure, State
from expunge.record import Measurement
from expunge.step import Step
from expunge.testing import check_audit, check_method
from expunge.tiny_jobs import answer_job, text_job

pytestmark = pytest.mark.usefixtures("quick_collection")


@pytest.mark.parametrize("name", registry.names("methods"))
def test_every_method_conforms(name: str) -> None:
    method = registry.find("methods", name)
    known_to_both = name in (
        "npo",
        "simnpo",
        "undial",
        "ceu",
        "wga",
        "satimp",
        "pdu",
    )  # made for tokens: tags add nothing
    method = method(layer=1) if name == "rmu" else method  # the tiny model has two layers
    check_method(method, tasks=[answer_job(), text_job()] if known_to_both else None)


def test_methods_say_where_they_push_forget_units() -> None:
    found = {n: getattr(registry.find("methods", n), "pushes", None) for n in registry.names("methods")}
    assert {name for name, where in found.items() if where == "elsewhere"} == {
        "altpo",
        "deepcut-calibrated",
        "dpo",
        "kga",
        "leave-out",
        "pdu",
        "rmu",
        "scrub",
        "undial",
    }
    assert {name for name, where in found.items() if where == "nowhere"} == {"finetune"}
    assert {name for name, where in found.items() if where is None} == {
        "deepcut-kernel",
        "o3",
        "retrain",
        "rewind",
        "sisa",
        "task-vector",
    }


@pytest.mark.parametrize("name", registry.names("audits"))
def test_every_audit_conforms(name: str) -> None:
    check_audit(registry.find("audits", name))


def test_settings_other_than_the_defaults_can_be_checked() -> None:
    from expunge import ContrastiveUnlearning, DeepCUT

    check_method(DeepCUT(views=2, partners="both", mixed_negatives=3), tasks=[text_job()])
    check_method(ContrastiveUnlearning(form="class"), tasks=[text_job()])


@dataclass(frozen=True, kw_only=True)
class Sound(Method):
    """A method without fault, for the faulty ones to differ from in one thing.

    Formula: ``L = CE(retain) - CE(forget)``. Source: none. Ours: all. Failure signs: none.

    Formula: Source: Ours: Failure signs: Example:
    """

    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits", "retain.logits"})

    def loss(self, step: Step) -> dict[str, Any]:
        return {"retain": step.retain.cross_entropy(), "forget": -step.forget.cross_entropy()}


class NotFrozen(Sound):
    pass


@dataclass(frozen=True, kw_only=True)
class NeedsAnArgument(Sound):
    weight: float


@dataclass(frozen=True, kw_only=True)
class ReadsMore(Sound):
    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})


@dataclass(frozen=True, kw_only=True)
class NeedsMore(Sound):
    needs: ClassVar[frozenset[str]] = Sound.needs | {"retain.reference"}


@dataclass(frozen=True, kw_only=True)
class MindsTheOrder(Sound):
    """The first unit counts twice."""

    def loss(self, step: Step) -> dict[str, Any]:
        return {"retain": step.retain.cross_entropy(), "forget": step.forget.logits[0].sum()}


@dataclass(frozen=True, kw_only=True)
class LabelsByPlace(Sound):
    """Random labels that hang on a record's place in the file."""

    def prepare(self, context: MethodContext) -> State:
        count = len(context.forget.flat_labels)
        return {"labels": torch.from_numpy(np.random.default_rng(0).integers(context.classes, size=count))}

    def loss(self, step: Step) -> dict[str, Any]:
        wrong = step.state["labels"][step.forget.unit_index]
        return {"retain": step.retain.cross_entropy(), "forget": step.forget.cross_entropy(wrong)}


_LAST: list[torch.Tensor] = []


@dataclass(frozen=True, kw_only=True)
class CountsPadding(Sound):
    """Adds the mean over all positions of what the embeddings give out, padded ones included."""

    def prepare(self, context: MethodContext) -> State:
        def keep(_: Any, inputs: Any, output: torch.Tensor) -> None:
            _LAST[:] = [output]

        context.model.get_input_embeddings().register_forward_hook(keep)
        return {}

    def loss(self, step: Step) -> dict[str, Any]:
        return {**super().loss(step), "size": _LAST[0].square().mean().float()}


@dataclass(frozen=True, kw_only=True)
class SeesTheLastMicroBatch(CountsPadding):
    """As above at the first position alone, which is never padded: right, but for a step in several micro-batches."""

    def loss(self, step: Step) -> dict[str, Any]:
        return {**Sound().loss(step), "size": _LAST[0][:, 0].square().mean().float() * _LAST[0].shape[0]}


@dataclass(frozen=True, kw_only=True)
class ChangesTheStep(Sound):
    def loss(self, step: Step) -> dict[str, Any]:
        parts = super().loss(step)
        step.forget.labels.fill_(0)
        return parts


@dataclass(frozen=True, kw_only=True)
class ChangesTheState(Sound):
    def prepare(self, context: MethodContext) -> State:
        return {"seen": torch.zeros(())}

    def loss(self, step: Step) -> dict[str, Any]:
        step.state["seen"].add_(1)
        return super().loss(step)


@dataclass(frozen=True, kw_only=True)
class ChangesTheModel(Sound):
    def prepare(self, context: MethodContext) -> State:
        with torch.no_grad():
            next(context.model.parameters()).mul_(2)
        return {}


@dataclass(frozen=True, kw_only=True)
class Draws(Sound):
    def loss(self, step: Step) -> dict[str, Any]:
        return {"retain": step.retain.cross_entropy() * torch.rand(()), "forget": step.forget.cross_entropy()}


@dataclass(frozen=True, kw_only=True)
class BreaksInBfloat16(Sound):
    """1.001 is 1 in bfloat16, so the guard against log 0 is none there."""

    def loss(self, step: Step) -> dict[str, Any]:
        sure = step.forget.logits.softmax(dim=-1).amax(dim=-1)
        return {"retain": step.retain.cross_entropy(), "forget": (1.001 - sure).log().sum() / max(1, len(sure))}


@dataclass(frozen=True, kw_only=True)
class ChangesItsParts(Sound):
    def loss(self, step: Step) -> dict[str, Any]:
        parts = super().loss(step)
        return {f"{name} {step.number}": part for name, part in parts.items()}


@dataclass(frozen=True, kw_only=True)
class GivesVectors(Sound):
    def loss(self, step: Step) -> dict[str, Any]:
        return {"all": step.forget.logits.sum(dim=0) + step.retain.cross_entropy()}


@dataclass(frozen=True, kw_only=True)
class FitsUnasked(Sound):
    """Trains a model in `prepare` without saying so in `needs_base`."""

    def prepare(self, context: MethodContext) -> State:
        context.fit(context.forget, 0)  # pyright: ignore
        return {}


@dataclass(frozen=True, kw_only=True)
class Undocumented(Procedure):
    """Formula: none."""

    def run(self, context: Any) -> Any:
        return context.model


@dataclass(frozen=True, kw_only=True)
class ComesNearer(Sound):
    pushes: ClassVar[Any] = "away"

    def loss(self, step: Step) -> dict[str, Any]:
        return {"retain": step.retain.cross_entropy(), "forget": step.forget.cross_entropy()}


@dataclass(frozen=True, kw_only=True)
class MovesAfterAll(Sound):
    pushes: ClassVar[Any] = "nowhere"


def test_a_sound_method_passes() -> None:
    check_method(Sound)


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (NotFrozen, "frozen"),
        (NeedsAnArgument, "without arguments"),
        (Undocumented, "lacking: Source:, Ours:, Failure signs:, Example:"),
        (ReadsMore, "retain.logits"),
        (NeedsMore, 'names "retain.reference" and never reads it'),
        (MindsTheOrder, "order of records does not matter .*another order"),
        (LabelsByPlace, "another order in the data"),
        (CountsPadding, "padding changes nothing"),
        (SeesTheLastMicroBatch, "micro-batches is the same step"),
        (ChangesTheStep, r"was changed: forget\.labels"),
        (ChangesTheState, r"was changed: state\.seen"),
        (ChangesTheModel, "changed the model"),
        (Draws, "another loss when it is taken again"),
        (BreaksInBfloat16, r"not finite in torch\.bfloat16"),
        (ChangesItsParts, "same scalar parts at every step"),
        (GivesVectors, "same scalar parts at every step"),
        (FitsUnasked, "TypeError"),
        (ComesNearer, "come nearer to their class"),
        (MovesAfterAll, "forget units are moved"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_kit_names_the_method_and_the_rule(faulty: type, words: str) -> None:
    if faulty.__doc__ is None or "Formula" not in faulty.__doc__:
        faulty.__doc__ = Sound.__doc__
    with pytest.raises(AssertionError, match=words) as error:
        check_method(faulty, tasks=[text_job()])
    assert str(error.value).startswith(f"{faulty.__name__} breaks the rule that ")


def test_a_class_that_is_no_method_is_told_so() -> None:
    with pytest.raises(AssertionError, match="it is none"):
        check_method(Membership)


@dataclass(frozen=True, kw_only=True)
class Mean(Audit):
    """Mean margin on the forget records."""

    def run(self, context: AuditContext) -> AuditResult:
        found = context.measure(
            "mean", "mean margin", ["forget"], lambda table: table.record_margins, np.mean, unit="nats",
            direction="as retrained",
        )  # fmt: skip
        return AuditResult(self.changed(found, context))

    def changed(self, found: list[Measurement], context: AuditContext) -> list[Measurement]:
        """Where a faulty one does otherwise."""
        del context
        return found


class Unfrozen(Mean):
    pass


@dataclass(frozen=True, kw_only=True)
class NoUnit(Mean):
    def changed(self, found, context):
        return [replace(m, unit=" ") for m in found]


@dataclass(frozen=True, kw_only=True)
class NoDirection(Mean):
    def changed(self, found, context):
        return [replace(m, direction="better") for m in found]


@dataclass(frozen=True, kw_only=True)
class NoNumber(Mean):
    def changed(self, found, context):
        return [replace(m, value=math.nan) for m in found]


@dataclass(frozen=True, kw_only=True)
class Guesses(Mean):
    def changed(self, found, context):
        return [replace(m, value=float(np.random.default_rng().random())) for m in found]


@dataclass(frozen=True, kw_only=True)
class SortsInPlace(Mean):
    def changed(self, found, context):
        context.models["original"][0]["forget"].margins.sort()
        return found


@dataclass(frozen=True, kw_only=True)
class FallsOver(Mean):
    def changed(self, found, context):
        if min(len(tables["forget"]) for tables in context.models["original"]) < 2:
            raise ValueError("too few")
        return found


@dataclass(frozen=True, kw_only=True)
class Silent(Mean):
    def changed(self, found, context):
        return []


@dataclass(frozen=True, kw_only=True)
class Pretends(Mean):
    needs = frozenset({"int8"})


def test_a_sound_audit_passes() -> None:
    check_audit(Mean)


@pytest.mark.parametrize(
    ("faulty", "words"),
    [
        (Unfrozen, "frozen"),
        (NoUnit, "unit is empty"),
        (NoDirection, "direction is 'better'"),
        (NoNumber, "not finite"),
        (Guesses, "two answers differ"),
        (SortsInPlace, "scores were changed"),
        (FallsOver, r"one record a group\): ValueError: too few"),
        (Silent, "neither a figure nor a reason"),
        (Pretends, r"nothing of its needs: \['int8'\]"),
    ],
    ids=lambda value: value.__name__ if isinstance(value, type) else "",
)
def test_the_kit_names_the_audit_and_the_rule(faulty: type, words: str) -> None:
    with pytest.raises(AssertionError, match=words) as error:
        check_audit(faulty)
    assert str(error.value).startswith(f"{faulty.__name__} breaks the rule that ")
