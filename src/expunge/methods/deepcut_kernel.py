"""Calibrated DeepCUT as a kernel problem: put each forget record where it belongs by the smallest change of weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from expunge.errors import Problem, UsageError
from expunge.methods.base import Procedure, ProcedureContext
from expunge.options import NonNegativeInt, Positive, PositiveInt, Probability, option
from expunge.stopping import best, distance

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.record_targets import RecordTargets
    from expunge.tasks.base import Encoded

__all__ = ["KernelDeepCUT"]

_DAMPING = (0.3, 0.1, 0.03)
_PATIENT = (0.5, 0.3, 0.1, 0.05)
_SHARE = 0.14
_CLIP = 3.0
"""Nats a record is moved in one step at most: beyond, the first order says little."""
_NEAR = 0.1
"""Mean distance to the targets, in nats, at which there is nothing left to do."""
_NOISE = 0.1
"""How much worse than the best step a later one may look and still be kept: checks are of small samples, and each step is
nearer to the targets, which know more."""


@dataclass(frozen=True)
class Way:
    """The steps of a run.

    Attributes:
        damping: Of the forget records' equations, one a step.
        partners: Retained, and calibration, partners of each block of forget records in a step.
    """

    damping: tuple[float, ...]
    partners: int


@dataclass(frozen=True, kw_only=True)
class KernelDeepCUT(Procedure):
    """Put each forget record where a model that never saw it would have it, by the smallest change of the encoder's weights.

    Targets are those of calibrated DeepCUT, for whole records (a tagger's: of a sentence's mean loss): the log-odds of the
    true class that the original gives never-seen records at the place that the forget record has among retained ones under
    a rewound model (blended, where `clean_weight` is set, with that among never-seen ones under a classifier on the base
    encoder), drawn in a little, since it is known but roughly. The way there is not gradient steps on a loss but a few
    Gauss-Newton steps, each a linear system with one unknown a record. Formula::

        theta <- theta + J^T alpha,   (K + D) alpha = r,   K = J J^T

    with a row of J the gradient of a record's log-odds m, over the weights of all linear layers but the head; r = t - m for
    forget records (3 nats at most), and for as many retained and as many calibration partners, drawn anew each step, what
    they have moved since the original; D the damping, in multiples of K's mean diagonal. Of all changes that move the forget
    records and leave the partners where they are, this is the smallest. The head stays as it is: outputs change only
    because the latent space does, and retained and never-seen neighbours hold their places in it. A step takes one forward and
    backward pass over each record; the kernel comes from sketches (`expunge.kernel_step`).

    Source: targets after DeepCUT (He et al. 2025, arXiv 2503.14900) turned from "away" to "where it belongs"; the rewound
    model is WiSE-FT's interpolation (arXiv 2109.01903); the step is damped Gauss-Newton with the empirical tangent kernel
    (Jacot et al. 2018, arXiv 1806.07572).

    Ours: the use of all of these for unlearning. What was tried, and what helped, is in docs/calibrated.md.

    Failure signs: fewer than about 100 calibration records make the targets coarse; a request that is unlike the rest of the
    training data makes places among them say less; a model whose weights are nearly all embeddings has little to move.

    Example:
        >>> KernelDeepCUT(damping=(0.3, 0.1)).rewind
        0.7
    """

    damping: tuple[Positive, ...] = option(
        (),
        "of the forget records' equations, one a step: how little their targets are insisted on; left out: .3, .1, .03, or "
        "where retraining is dear .5, .3, .1, .05",
    )
    hold: Positive = option(0.05, "damping of the partners' equations")
    partners: NonNegativeInt = option(
        0,
        "retained, and calibration, partners of a step; 0: as many as its forget records, 24 to 256, and a third of the "
        "classes; more where retraining is dear",
    )
    block: PositiveInt = option(256, "forget records solved for together")
    rewind: Probability = option(
        0.7, "share of the way from the base to the original at which the rewound model stands"
    )
    clean_weight: Probability = option(0.0, "weight of the base encoder's classifier in a place")
    spread: Probability = option(0.9, "share of the places' spread that targets keep")
    sample: NonNegativeInt = option(
        0,
        "retained, and calibration, records that places are read among; 0: three a forget record, two a class, 96 to 1024",
    )

    units: ClassVar[frozenset[str]] = frozenset({"classes"})

    def expected(
        self, forget: int, retain: int, calibration: int, classes: int, retraining: float | None = None
    ) -> tuple[float, int]:
        way = self.way(forget, retain, calibration, classes, retraining)
        return self._cost(forget, retain, calibration, classes, way), len(way.damping)

    def way(self, forget: int, retain: int, calibration: int, classes: int, retraining: float | None) -> Way:
        """The steps to take; `retraining` is its example-passes, where they are known.

        Partners beyond the least and a fourth step keep more of the rest in place. They are taken where all comes to no more
        than `_SHARE` of retraining, and than five times the request's share of the training data.
        """
        least = min(256, max(24, *self._blocks(forget))) + classes // 3
        own = Way(self.damping or _DAMPING, self.partners or least)
        if retraining is None or self.damping or self.partners:
            return own
        allowed = retraining * min(_SHARE, 5 * forget / max(1, forget + retain))
        found = own
        for partners in range(own.partners, 257):
            wider = Way(_PATIENT, partners)
            if self._cost(forget, retain, calibration, classes, wider) > allowed:
                break
            found = wider
        return found

    def _cost(self, forget: int, retain: int, calibration: int, classes: int, way: Way) -> float:
        steps, blocks = len(way.damping), self._blocks(forget)
        held, unseen = min(way.partners, retain), min(way.partners, calibration)
        passes = steps * sum(size + held + unseen for size in blocks) + (steps * len(blocks) - 1) * held / 3
        targets = forget + sum(min(self._sample(forget, classes), there) for there in (retain, calibration))
        return passes + (1 + (self.clean_weight > 0)) * targets / 3

    def _blocks(self, forget: int) -> list[int]:
        return [len(part) for part in np.array_split(np.arange(forget), -(-forget // self.block))]

    def _sample(self, forget: int, classes: int) -> int:
        return self.sample or min(1024, max(96, 3 * forget, 2 * classes))

    def run(self, context: ProcedureContext) -> Any:
        from expunge.record_targets import record_targets

        given = context.prepared()
        if not len(given.calibration):
            way_out = "Give held-out records (data.held_out): half of them are calibration records."
            raise UsageError(Problem("method", "deepcut-kernel needs records that were never trained on", way_out))
        size = self._sample(len(context.forget), context.classes)
        targets = record_targets(
            given, rewind=self.rewind, sample=size, clean_weight=self.clean_weight, spread=self.spread
        )
        solver = _Solver(self, context, targets, given.calibration)
        checks = [context.check(context.model, 0)]
        kept: dict[str, Tensor] = {}
        for step, damping in enumerate(solver.way.damping, start=1):
            away = solver.step(step, damping)
            checks.append(context.check(context.model, step))
            if distance(checks[-1], checks[0]) <= distance(best(checks), checks[0]) + _NOISE:
                kept = {name: part.detach().clone() for name, part in context.model.named_parameters()}
                context.keep(step)
            if away <= _NEAR:
                break
        solver.put(kept)
        return context.model


class _Solver:
    """Takes the steps."""

    def __init__(
        self, method: KernelDeepCUT, context: ProcedureContext, targets: RecordTargets, calibration: Encoded
    ) -> None:
        from expunge.head import head_of

        self._method, self._context, self._targets, self._calibration = method, context, targets, calibration
        self._head = head_of(context.model, context.task, context.forget)
        self._rng = np.random.default_rng([context.seed, 11])
        self._blocks = np.array_split(
            self._rng.permutation(len(context.forget)), len(method._blocks(len(context.forget)))
        )
        self.way = method.way(
            len(context.forget), len(context.retain), len(calibration), context.classes, context.retraining
        )
        steps = len(self.way.damping) * len(self._blocks)
        count = min(self.way.partners, len(context.retain))
        self._held = [self._drawn(len(context.retain), count) for _ in range(steps)]
        self._reference = self._scored([place for held in self._held[1:] for place in held])

    def _drawn(self, available: int, count: int) -> list[int]:
        return sorted(self._rng.choice(available, count, replace=False).tolist())

    def _scored(self, positions: Sequence[int]) -> dict[int, float]:
        """Log-odds of retained records under the original, by position; those of the first step need no pass."""
        from expunge.scoring import score

        wanted = sorted(set(positions) - set(self._held[0]))
        if not wanted:
            return {}
        context = self._context
        context.spend(len(wanted) / 3)
        records = context.retain.take(wanted)
        table = score(context.model, self._head, records, context.task, keep_hidden=False)
        return dict(zip(wanted, table.record_margins.tolist(), strict=True))

    def step(self, number: int, damping: float) -> float:
        """One step over all forget records; the mean distance to their targets before it, in nats."""
        away = [self._solve(number, place, block, damping) for place, block in enumerate(self._blocks)]
        mean = float(np.concatenate([a for a, _ in away]).mean())
        drift = float(np.mean([d for _, d in away]))
        self._context.note({"step": number, "margin_to_target": round(mean, 4), "partners_moved": round(drift, 4)})
        return mean

    def _solve(self, number: int, place: int, block: np.ndarray, damping: float) -> tuple[np.ndarray, float]:
        import torch

        from expunge.kernel_step import rows_of

        context, targets = self._context, self._targets
        held = self._held[(number - 1) * len(self._blocks) + place]
        few = min(self.way.partners, len(targets.unseen))
        unseen = sorted(self._rng.choice(len(targets.unseen), few, replace=False).tolist())
        rows = rows_of(
            context.model, self._head, context.task,
            [
                context.forget.take(block.tolist()), context.retain.take(held),
                self._calibration.take([targets.unseen[i] for i in unseen]),
            ], seed=number,
        )  # fmt: skip
        context.spend(rows.passes)
        now = rows.margins
        if not self._reference.keys() >= set(held):  # only before anything has moved
            own = now[len(block) : len(block) + len(held)].tolist()
            self._reference.update(zip(held, own, strict=True))
        wanted = torch.tensor(
            [*targets.forget[block], *(self._reference[i] for i in held), *targets.known[unseen]],
            dtype=now.dtype, device=now.device,
        )  # fmt: skip
        insisted = torch.full_like(now, self._method.hold)
        insisted[: len(block)] = damping
        missing = wanted - now
        rows.apply(rows.solve(missing.clamp(-_CLIP, _CLIP), insisted))
        return missing[: len(block)].abs().cpu().numpy(), float(missing[len(block) :].abs().mean())

    def put(self, weights: dict[str, Tensor]) -> None:
        """Put weights back."""
        import torch

        with torch.no_grad():
            for name, part in self._context.model.named_parameters():
                if name in weights:
                    part.copy_(weights[name])
