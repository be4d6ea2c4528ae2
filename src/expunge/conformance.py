"""What every method owes its users, checked on a tiny model: `expunge.testing.check_method`."""

from __future__ import annotations

import dataclasses
import inspect
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor
from transformers import PrinterCallback

from expunge import losses
from expunge.config import TrainingConfig
from expunge.conformance_stage import BATCH, Stage, given, require
from expunge.errors import UndeclaredNeedError
from expunge.fit import arguments
from expunge.methods.base import GROUPS, NEEDS, Method, Procedure
from expunge.options import Options
from expunge.tiny_jobs import TinyJob, answer_job, tag_job, text_job
from expunge.token_head import TokenHead
from expunge.trainer import UnlearnTrainer

__all__ = ["check_method", "check_options", "require", "rule"]

_SECTIONS = ("Formula:", "Source:", "Ours:", "Failure signs:", "Example:")


def check_method(method: Any, *, tasks: Sequence[TinyJob] | None = None) -> None:
    """Check that a method keeps the rules every method must keep; for plug-in authors' own tests.

    A method or procedure can be built without arguments, is frozen, round-trips through plain values, and its docstring
    has the sections `expunge show` promises. A method's loss, moreover, is a dict of the same finite scalars at every
    step, in float32 and bfloat16 and on batches of one class; it does not depend on padding, on the order of records or
    on how a step is cut into micro-batches; it answers the same twice and leaves the step as it was; it reads what
    `needs` names, all of it and nothing else; `prepare` leaves the model as it was.

    Args:
        method: A subclass of `Method` or `Procedure`, or an instance whose settings are to be checked.
        tasks: What to check it on; left out: a tiny text classifier and a tiny tagger where it knows `classes`, a tiny language
            model where it knows `tokens`.

    Raises:
        AssertionError: A rule is broken; the message names the method, the rule and the task.
    """
    cls = method if isinstance(method, type) else type(method)
    check_options(cls, Method if not issubclass(cls, Procedure) else Procedure)
    with rule(cls, "its docstring has the sections of `expunge show`"):
        lacking = [section for section in _SECTIONS if section not in (inspect.getdoc(cls) or "")]
        require(not lacking, f"lacking: {', '.join(lacking)}")
    if issubclass(cls, Procedure):
        return
    built = method if isinstance(method, Method) else cls()
    with rule(cls, "`needs` names things a step can carry"):
        require(built.needs <= NEEDS, f"unknown: {sorted(built.needs - NEEDS)}; known: {sorted(NEEDS)}")
    own = {"classes": (text_job, tag_job), "tokens": (answer_job,)}
    for job in tasks if tasks is not None else [job() for kind in sorted(built.units) for job in own[kind]]:
        with torch.random.fork_rng():
            for checked, statement in _RULES:
                with rule(cls, f"{statement} ({job.name})"):
                    checked(built, job)


def check_options(cls: type, base: type[Options]) -> None:
    """The rules for anything users fill in: built without arguments, frozen, equal to itself after a round trip.

    Raises:
        AssertionError: A rule is broken.
    """
    with rule(cls, f"it is a {base.__name__} that can be built without arguments"):
        require(issubclass(cls, base), f"it is none: its bases are {[b.__name__ for b in cls.__bases__]}")
        built = cls()
    with rule(cls, "it is frozen"):
        for name in [*(field.name for field in dataclasses.fields(built)), "something_new"]:
            try:
                setattr(built, name, getattr(built, name, 0))
            except dataclasses.FrozenInstanceError:
                continue
            raise AssertionError(f"{name} can be set; decorate it with @dataclass(frozen=True, kw_only=True)")
    with rule(cls, "it round-trips through values() and build()"):
        require(cls.build(built.values()) == built, f"{built.values()} builds something else")


@contextmanager
def rule(cls: type, statement: str) -> Iterator[None]:
    """Whatever goes wrong inside is told as a breach of this rule."""
    try:
        yield
    except Exception as error:  # plug-ins raise what they like; all of it is chained
        detail = str(error) if isinstance(error, AssertionError) else f"{type(error).__name__}: {error}"
        raise AssertionError(f"{cls.__name__} breaks the rule that {statement}: {detail}") from error


def _total(parts: Mapping[str, Tensor]) -> Tensor:
    return torch.stack(list(parts.values())).sum()


def _close(mine: Mapping[str, float], theirs: Mapping[str, float], when: str) -> None:
    for name, value in mine.items():
        require(
            abs(value - theirs[name]) <= 1e-9 * max(1.0, abs(value)), f"{name} is {value} and {theirs[name]} {when}"
        )


def _parts_are_scalars(method: Method, job: TinyJob) -> None:
    stage = Stage(method, job)
    require(all(isinstance(t, Tensor) for t in stage.state.values()), "the state holds something that is no tensor")
    shapes = {f"mask/{name}": p.shape for name, p in stage.model.named_parameters()}
    for name, tensor in stage.state.items():
        fits = not name.startswith("mask/") or tensor.shape == shapes.get(name)
        require(fits, f"the state's {name} is no mask of a parameter of the model")
    names = None
    for number in stage.numbers():
        read = method.groups(number, stage.a_pass)
        require(bool(read) and read <= set(GROUPS), f"step {number} reads {sorted(read)}, allowed: {', '.join(GROUPS)}")
        parts = method.loss(stage.step(number))
        scalars = parts and all(isinstance(p, Tensor) and p.dim() == 0 for p in parts.values())
        require(bool(scalars), f"at step {number} the loss is {parts}")
        require(
            names in (None, set(parts)), f"at step {number} its parts are {sorted(parts)}, before {sorted(names or ())}"
        )
        require(_total(parts).requires_grad, f"at step {number} it has no gradient")
        names = set(parts)
        for name, value in method.counts(stage.step(number)).items():
            require(isinstance(value, float), f"the count {name} is {value!r}, no float")


def _finite(method: Method, job: TinyJob) -> None:
    stage = Stage(method, job)
    for dtype in (torch.float32, torch.bfloat16):
        for scale in (1.0, 200.0):  # 200: as sure of itself as a model that knows its records by heart
            for labels in (None, (0, 0), (0, 1)):
                for number in stage.numbers():
                    leaves: list[Tensor] = []

                    def leaf(_: str, tensor: Tensor, leaves: list[Tensor] = leaves, dtype=dtype, by=scale) -> Tensor:
                        leaves.append((tensor.detach() * by).to(dtype).requires_grad_())
                        return leaves[-1]

                    loss = _total(method.loss(stage.step(number, change=leaf, labels=labels)))
                    loss.backward()
                    found = [loss, *(t.grad for t in leaves if t.grad is not None)]
                    where = f"{dtype}, step {number}, outputs times {scale:g}, labels {labels or 'as they are'}"
                    require(all(bool(torch.isfinite(t).all()) for t in found), f"not finite in {where}")


def _padding(method: Method, job: TinyJob) -> None:
    stage = Stage(method, job)
    seen: list[Tensor] = []
    embeddings = stage.model.get_input_embeddings()

    def keep(_: Any, inputs: Any, output: Tensor) -> None:
        output.retain_grad()
        seen.append(output)

    longest = max(len(ids) for encoded in stage.records.values() for ids in encoded.input_ids)
    for number in stage.numbers():
        short = stage.parts(stage.step(number))
        hook = embeddings.register_forward_hook(keep)
        step = stage.step(number, length=longest + 9)
        hook.remove()
        parts = method.loss(step)
        _close(short, {name: float(part.detach()) for name, part in parts.items()}, "with more padding")
        _total(parts).backward()
        read = [group for group in GROUPS if group in method.groups(number, stage.a_pass)]
        for group, embedded in zip(read, seen, strict=True):
            places = range(9) if group == "retain" else [stage.order.index(i) for i in range(4)]
            views = getattr(method, "views", 1) if group == "forget" else 1
            batch = job.task.collate(stage.records[group], places, views=views, length=longest + 9)
            padded = batch.inputs["attention_mask"] == 0
            got = embedded.grad is not None and bool(embedded.grad[padded].any())
            require(not got, f"padded positions of {group} records get a gradient at step {number}")
        seen.clear()


def _order(method: Method, job: TinyJob) -> None:
    stage = Stage(method, job)
    other = Stage(method, job, order=list(reversed(range(len(job.forget)))))
    for number in stage.numbers():
        plain = stage.parts(stage.step(number))
        turned = stage.step(number, (2, 0, 3, 1), (4, 8, 1, 0, 6, 2, 7, 3, 5))
        _close(plain, stage.parts(turned), "with the step's records in another order")
        _close(plain, other.parts(other.step(number)), "with the forget records in another order in the data")


def _pure(method: Method, job: TinyJob) -> None:
    stage = Stage(method, job)
    for number in stage.numbers():
        step = stage.step(number)
        groups = {g: getattr(step, g) for g in GROUPS if getattr(step, g) is not None}
        given = {f"{g}.{n}": t for g, own in groups.items() for n, t in vars(own).items() if isinstance(t, Tensor)}
        given |= {f"state.{name}": tensor for name, tensor in step.state.items()}
        before = {name: tensor.detach().clone() for name, tensor in given.items()}
        settings, names = method.values(), set(step.state)
        first = stage.parts(step)
        method.counts(step)
        changed = [name for name, tensor in given.items() if not torch.equal(tensor, before[name])]
        require(not changed, f"step {number} was changed: {', '.join(changed)}")
        require(set(step.state) == names, f"step {number}: the state was changed")
        require(method.values() == settings, "the method's own settings were changed")
        require(stage.parts(step) == first, f"step {number} has another loss when it is taken again")


def _needs(method: Method, job: TinyJob) -> None:
    stage = Stage(method, job)
    for number in stage.numbers():
        method.loss(stage.step(number))  # raises where it reads what it does not name
        method.counts(stage.step(number))
    for need in sorted(method.reads):
        used = False
        for number in stage.numbers():
            try:
                method.loss(stage.step(number, allowed=method.reads - {need}))
            except UndeclaredNeedError:
                used = True
        require(used, f'it names "{need}" and never reads it')


def _micro_batches(method: Method, job: TinyJob) -> None:
    trained = []
    for accumulation in (1, BATCH):
        model = job.model(0)
        with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
            args = arguments(
                folder, 5, TrainingConfig(learning_rate=0.05), per_device_train_batch_size=BATCH // accumulation,
                gradient_accumulation_steps=accumulation, max_steps=5,
            )  # fmt: skip
            args.optim = "sgd"  # under AdamW rounding noise in a gradient of 0 becomes a step
            trainer = UnlearnTrainer(
                model, args, method=method, task=job.task, forget=job.forget, retain=job.retain,
                given=given(method, job, range(len(job.forget))),
            )  # fmt: skip
            trainer.remove_callback(PrinterCallback)  # it writes to the console
            trainer.train()
        trained.append(dict(model.named_parameters()))
    for name, one in trained[0].items():
        same = torch.allclose(one, trained[1][name], rtol=1e-8, atol=1e-11)
        require(same, f"{name} differs by {float((one - trained[1][name]).abs().max().detach()):.1e} after five steps")


def _direction(method: Method, job: TinyJob) -> None:
    """One small step down the loss, on outputs of a model that is sure of the right classes."""
    stage = Stage(method, job)
    if isinstance(stage.head, TokenHead):
        return _tokens_move(method, stage, stage.head)
    for number in stage.numbers():
        if method.pushes == "elsewhere" or "forget" not in method.groups(number, stage.a_pass):
            continue
        labels = stage.step(number).forget.labels
        leaves: dict[str, list[Tensor]] = {group: [] for group in GROUPS}

        def leaf(
            group: str, tensor: Tensor, leaves: dict[str, list[Tensor]] = leaves, labels: Tensor = labels
        ) -> Tensor:
            sure = tensor.detach().clone()
            if group == "forget" and leaves[group]:  # hidden came first, these are the logits
                sure = 4.0 * torch.nn.functional.one_hot(labels, tensor.shape[-1]).to(tensor.dtype)
            leaves[group].append(sure.requires_grad_())
            return leaves[group][-1]

        step = stage.step(number, change=leaf)
        hidden, logits = leaves["forget"]
        grads = torch.autograd.grad(_total(method.loss(step)), [hidden, logits], allow_unused=True)
        moved = [g is not None and bool(g.any()) for g in grads]
        if method.pushes == "nowhere":
            require(not any(moved), f"forget units are moved at step {number}")
            continue
        require(any(moved), f"forget units are not moved at step {number}")
        nearness = (partial(_contrast, partners=leaves["retain"][0], of=step.retain.labels), _log_probability)
        for of, at, gradient, moves in zip(nearness, (hidden, logits), grads, moved, strict=True):
            if moves:
                change = of(at - 1e-4 * gradient, labels) - of(at, labels)
                require(bool(change < 0), f"forget units come nearer to their class at step {number}, by {change:.1e}")


def _tokens_move(method: Method, stage: Stage, head: TokenHead) -> None:
    """The same for tokens, whose logits hang on what comes before the output layer."""
    for number in stage.numbers():
        if method.pushes == "elsewhere" or "forget" not in method.groups(number, stage.a_pass):
            continue
        kept: list[Tensor] = []

        def leaf(group: str, tensor: Tensor, kept: list[Tensor] = kept) -> Tensor:
            made = tensor.detach().clone().requires_grad_()
            if group == "forget":
                kept.append(made)
            return made

        step = stage.step(number, change=leaf)
        (gradient,) = torch.autograd.grad(_total(method.loss(step)), kept, allow_unused=True)
        moved = gradient is not None and bool(gradient.any())
        require(moved == (method.pushes == "away"), f"forget units are {'' if moved else 'not '}moved at step {number}")
        if moved and "forget.hidden" not in method.reads:  # a contrast of directions is none of log-probabilities
            gradient = gradient / gradient.norm()  # a method may weigh what is unlikely next to nothing
            with torch.no_grad():
                before, after = (
                    _log_probability(head.logits(h), step.forget.labels) for h in (kept[0], kept[0] - 1e-3 * gradient)
                )
            require(bool(after < before), f"forget units come nearer to their tokens at step {number}")


def _log_probability(logits: Tensor, labels: Tensor) -> Tensor:
    return -torch.nn.functional.cross_entropy(logits, labels)


def _contrast(hidden: Tensor, labels: Tensor, *, partners: Tensor, of: Tensor) -> Tensor:
    """Mean cosine with partners of the same class less that with others, over units that have both."""
    similarity, same = losses.cosine(hidden, partners), labels[:, None] == of[None, :]
    both = same.any(dim=1) & ~same.all(dim=1)
    near = (similarity * same).sum(dim=1)[both] / same.sum(dim=1)[both]
    far = (similarity * ~same).sum(dim=1)[both] / (~same).sum(dim=1)[both]
    return (near - far).mean()


_RULES: list[tuple[Callable[[Method, TinyJob], None], str]] = [
    (_needs, "`needs` names what the loss reads, all of it and nothing else"),
    (_parts_are_scalars, "the loss is the same scalar parts at every step"),
    (_pure, "the loss is pure: same answer twice, step and settings left as they were"),
    (_finite, "loss and gradients are finite in float32 and bfloat16"),
    (_padding, "padding changes nothing and gets no gradient"),
    (_direction, "forget units move as it `pushes` them"),
    (_order, "the order of records does not matter"),
    (_micro_batches, "a step cut into micro-batches is the same step"),
]
