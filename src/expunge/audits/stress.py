"""Does forgetting last? Relearning, 8-bit weights and other wordings, against what retrained models make of them."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from expunge.audits.base import Audit, AuditContext, AuditResult, Tables, stressed
from expunge.comparing import Excess, Term, combined_auc, excess
from expunge.metrics import headline
from expunge.record import Finding, Measurement
from expunge.scoring import ScoreTable
from expunge.stats import auc

__all__ = ["Int8", "Relearning", "Reworded"]

Groups = tuple[str, str]


@dataclass(frozen=True, kw_only=True)
class Relearning(Audit):
    """Relearning: do forget records come back more quickly than new ones when the model is trained a little?

    A copy of each model is trained for up to 16 steps on half of the forget records ("part") together with as many
    held-out records ("new"). Two AUCs of margins after each count of steps: part against new (learnt side by side: above
    0.5 the forget records are learnt more quickly), and the other half of the forget records ("rest") against held-out
    records, neither trained on (above 0.5 relearning some brings back others). A retrained model learns forget records
    as it learns any: a finding ("trace") is an AUC above the retrained models', or above 0.5 without any, at a level
    shared among all steps. The relearning attack is that of Hu et al. 2024 (arXiv 2406.13356) for language models.

    Opt-in: 256 example-passes and some scoring a model. It is no proof of absence: more steps may find more.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"relearned"})

    def run(self, context: AuditContext) -> AuditResult:
        models, reason = stressed(context, "relearned", "relearned on half of the forget records")
        if models is None:
            return AuditResult(not_measured=reason)
        first = models.models["unlearned"][0]
        steps = sorted(int(m[1]) for name in first if (m := re.fullmatch(r"part after (\d+) steps", name)))
        sides = {"the half trained on": ("part", "new"), "the other half": ("rest", "evaluation")}
        sides = {name: (a, b) for name, (a, b) in sides.items() if all(f"{g} after 0 steps" in first for g in (a, b))}
        if not sides:
            return AuditResult(not_measured="needs two forget records or more, and held-out records to compare with")
        found: list[Measurement] = []
        judged: list[tuple[Excess, str, int, Groups]] = []
        for name, sets in sides.items():
            for step in steps:
                groups = (f"{sets[0]} after {step} steps", f"{sets[1]} after {step} steps")
                found += _measured(models, "relearning", f"relearning AUC, {name}, {step} steps", groups)
                if step:
                    above = _above(models, groups, figures=len(sides) * (len(steps) - 1))
                    judged.append((above, name, step, groups))
        figure = {
            model: {
                "steps": steps,
                "margins": {
                    group: [_mean(several, f"{group} after {step} steps") for step in steps]
                    for sets in sides.values()
                    for group in sets
                },
            }
            for model, several in models.models.items()
            if several
        }
        findings = []
        if clear := [row for row in judged if row[0].clear]:
            above, name, step, groups = max(clear, key=lambda row: row[0].value)
            before = _of(
                models, "unlearned", (groups[0].replace(f" {step} ", " 0 "), groups[1].replace(f" {step} ", " 0 "))
            )
            sentence = (
                f"After {step} steps of training on half of the forget records and as many new ones, {name} of the "
                f"forget records stands out with AUC {_of(models, 'unlearned', groups):.3f} ({before:.3f} before), "
                f"{_beside(models, groups)}: {_shown(above)}."
            )
            findings = [Finding(audit="relearning", kind="trace", sentence=sentence)]
        return AuditResult(found, figure={"relearning": figure}, findings=findings)


@dataclass(frozen=True, kw_only=True)
class Int8(Audit):
    """Rounding to 8 bits: do forget records come back when the model is quantised?

    Small updates can vanish in rounding, and what they hid shows again (Zhang et al. 2024, arXiv 2410.16454, for 4 bits
    in language models). Margins are taken again with int8 linear layers (`expunge.stress.quantised`); the membership AUC
    is compared with the one before. A finding ("trace"): the AUC rises by more than the retrained models' does, and to
    above theirs (without any: rises, and to above 0.5).

    Opt-in: one scoring pass over forget and evaluation records a model.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"int8"})

    def run(self, context: AuditContext) -> AuditResult:
        models, reason = stressed(context, "int8", "rounded to 8 bits")
        if models is None:
            return AuditResult(not_measured=reason)
        groups = ("forget", "evaluation")
        found = _measured(models, "int8", "membership AUC, int8", groups)
        metric = headline(context.models["original"][0]["evaluation"])
        for group, direction in (("forget", "as retrained"), ("evaluation", "higher")):
            found += models.measure(
                "int8", f"{metric.name}, int8", [group], metric.read, metric.statistic, unit=metric.unit,
                direction=direction,
            )  # fmt: skip
        level, rise = _above(models, groups), _above(models, groups, before=context)
        findings = []
        if rise.clear and level.value > 0:
            sentence = (
                f"Rounded to 8 bits the membership AUC goes from {_of(context, 'unlearned', groups):.3f} to "
                f"{_of(models, 'unlearned', groups):.3f}, {_beside(models, groups)}: a rise "
                f"{'beyond theirs of' if models.models.get('retrained') else 'of'} {_shown(rise, with_word=False)}."
            )
            findings = [Finding(audit="int8", kind="trace", sentence=sentence)]
        return AuditResult(found, findings=findings)


@dataclass(frozen=True, kw_only=True)
class Reworded(Audit):
    """Rewording: are forget records still known when their wording is changed a little?

    Some words are dropped, or neighbours swapped, in forget and evaluation records alike (`expunge.data.rewording`). What
    a model learnt by heart survives that in part; forgetting that was fitted to the exact wording does not reach
    it. A finding ("trace"): the AUC of margins, reworded forget against reworded evaluation records, lies above
    the retrained models' (without any: above 0.5), at a level shared among the rewordings.

    Opt-in: a scoring pass over forget and evaluation records a rewording and model.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"reworded"})

    def run(self, context: AuditContext) -> AuditResult:
        models, reason = stressed(context, "reworded", "scored on reworded records")
        if models is None:
            return AuditResult(not_measured=reason)
        kinds = [name.removeprefix("forget, ") for name in models.models["unlearned"][0] if name.startswith("forget, ")]
        found: list[Measurement] = []
        findings = []
        for how in kinds:
            groups = (f"forget, {how}", f"evaluation, {how}")
            found += _measured(models, "reworded", f"membership AUC, {how}", groups)
            above = _above(models, groups, figures=len(kinds))
            if above.clear:
                sentence = (
                    f"With {how} the forget records stand out with AUC {_of(models, 'unlearned', groups):.3f} "
                    f"({_of(context, 'unlearned', ('forget', 'evaluation')):.3f} as they were), "
                    f"{_beside(models, groups)}: {_shown(above)}."
                )
                findings.append(Finding(audit="reworded", kind="trace", sentence=sentence))
        return AuditResult(found, findings=findings)


def _margins(table: ScoreTable) -> NDArray[Any]:
    return table.record_margins


def _measured(context: AuditContext, audit: str, name: str, groups: Groups) -> list[Measurement]:
    return context.measure(
        audit, name, groups, _margins, auc, unit="AUC", direction="as retrained",
        interval=lambda model: context.auc(model, groups, _margins),
    )  # fmt: skip


def _pair(tables: Tables, groups: Groups) -> tuple[NDArray[Any], NDArray[Any]]:
    return _margins(tables[groups[0]]), _margins(tables[groups[1]])


def _of(context: AuditContext, model: str, groups: Groups) -> float:
    return float(np.mean([auc(*_pair(tables, groups)) for tables in context.models[model]]))


def _above(context: AuditContext, groups: Groups, *, figures: int = 1, before: AuditContext | None = None) -> Excess:
    """The unlearned model's AUC above the retrained models', or 0.5; with `before` its rise since above theirs, or 0."""

    def terms(model: str, place: int, factor: float) -> list[Term]:
        own: list[Term] = [(factor, *_pair(context.models[model][place], groups))]
        if before is not None:
            own.append((-factor, *_pair(before.models[model][place], groups)))
        return own

    count = len(context.models.get("retrained", ()))
    whole = terms("unlearned", 0, 1.0)
    for place in range(count):
        whole += terms("retrained", place, -1.0 / count)
    value, error = combined_auc(whole)
    retrained = [combined_auc(terms("retrained", place, 1.0))[0] for place in range(count)]
    right = 0.0 if count or before is not None else 0.5
    return excess(value - right, error, retrained, confidence=context.confidence, figures=figures)


def _beside(context: AuditContext, groups: Groups) -> str:
    count = len(context.models.get("retrained", ()))
    if not count:
        return "where 0.5 is what held-out records make likely (no retrained model was given)"
    return f"{_of(context, 'retrained', groups):.3f} in {count} model{'s' if count > 1 else ''} retrained without them"


def _shown(found: Excess, with_word: bool = True) -> str:
    return f"{'difference ' if with_word else ''}{found.value:+.3f} [{found.low:+.3f}, {found.high:+.3f}]"


def _mean(several: Sequence[Tables], group: str) -> float:
    """Mean margin over records and models, clipped at +-10 nats."""
    return round(float(np.mean([np.clip(_margins(tables[group]), -10, 10).mean() for tables in several])), 4)
