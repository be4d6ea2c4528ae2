"""Which audits a run has, and whether they have what they need."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from expunge import registry
from expunge.config import AuditConfig, RunConfig
from expunge.data.records import Records
from expunge.errors import Collector, Problem

__all__ = ["chosen_audits", "lacking"]


def chosen_audits(settings: AuditConfig, task: Any, method: Any = None) -> dict[str, Any]:
    """Name -> audit: those named, else the task's own and the method's, and whatever is asked for beside them.

    Raises:
        UsageError: Every name that is unknown.
    """
    found = Collector()
    own = (*(task.audits if task is not None else ()), *getattr(method, "audits", ()))
    named = (*(settings.audits or own), *settings.more)
    audits = {name: found.run(registry.find, "audits", name) for name in dict.fromkeys(named)}
    found.finish()
    return {name: audit() for name, audit in audits.items()}


def lacking(config: RunConfig, audits: Mapping[str, Any], train: Records | None) -> list[Problem]:
    """Audits that somebody asks for, and that have not what they need."""
    problems = []
    for name, audit in audits.items():
        if "alternatives" in audit.needs and train is not None and not train.alternatives:
            way_out = "Name the column of false answers: data.perturbed (left out: perturbed_answers)."
            problems.append(Problem("audit", f"{name} needs false answers, and the training data have none", way_out))
        if "facts" in audit.needs:
            problems += _of_facts(name, config)
        if "reference" in audit.needs and config.retrain.base is None:
            way_out = "Name the model the original was fine-tuned from: --base PATH."
            problems.append(Problem("audit", f"{name} needs the base model, and none is named", way_out))
    return problems


def _of_facts(name: str, config: RunConfig) -> list[Problem]:
    """What keeps an audit from asking a model facts."""
    if config.data.facts is None:
        way_out = "Name a file: --set data.facts=facts.csv --set data.rules=rules.csv."
        return [Problem("data.facts", f"{name} needs facts, and none are named", way_out)]
    from expunge.deep.reading import read_knowledge

    found = Collector()
    read = found.run(read_knowledge, config.data.facts, config.data.rules)
    if read is not None and not all(read.questions):
        way_out = "Give every fact a question and an answer: a model is asked them."
        found.problems.append(Problem("data.facts", "some facts come without a question", way_out))
    return found.problems
