"""Expunge: make a fine-tuned language model forget the training records you name, and show that it did.

Names are imported when they are first used, so that ``import expunge`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.config import AuditConfig, Recipe, RunConfig, StopConfig, TrainingConfig
    from expunge.erase import Erased, unlearn
    from expunge.errors import ExpungeError, RunError, UsageError
    from expunge.methods.base import Method, Procedure
    from expunge.methods.contrastive import ContrastiveUnlearning
    from expunge.methods.deepcut import DeepCUT
    from expunge.methods.finetune import FineTune
    from expunge.methods.gradient_difference import GradientDifference
    from expunge.methods.retrain import Retrain
    from expunge.record import RunRecord
    from expunge.report import render
    from expunge.trainer import UnlearnTrainer

_HOME = {
    "AuditConfig": "config",
    "ContrastiveUnlearning": "methods.contrastive",
    "DeepCUT": "methods.deepcut",
    "Erased": "erase",
    "ExpungeError": "errors",
    "FineTune": "methods.finetune",
    "GradientDifference": "methods.gradient_difference",
    "Method": "methods.base",
    "Procedure": "methods.base",
    "Recipe": "config",
    "Retrain": "methods.retrain",
    "RunConfig": "config",
    "RunError": "errors",
    "RunRecord": "record",
    "StopConfig": "config",
    "TrainingConfig": "config",
    "UnlearnTrainer": "trainer",
    "UsageError": "errors",
    "render": "report",
    "unlearn": "erase",
}

__all__ = [
    "AuditConfig",
    "ContrastiveUnlearning",
    "DeepCUT",
    "Erased",
    "ExpungeError",
    "FineTune",
    "GradientDifference",
    "Method",
    "Procedure",
    "Recipe",
    "Retrain",
    "RunConfig",
    "RunError",
    "RunRecord",
    "StopConfig",
    "TrainingConfig",
    "UnlearnTrainer",
    "UsageError",
    "render",
    "unlearn",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'expunge' has no attribute {name!r}")
    module = import_module(f"expunge.{_HOME[name]}")
    value = getattr(module, name)
    globals()[name] = value  # also when a submodule of that name was imported meanwhile
    return value


def __dir__() -> list[str]:
    return __all__
