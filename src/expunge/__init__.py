"""Expunge: make a fine-tuned language model forget the training records you name, and show that it did.

Names are imported when they are first used, so that ``import expunge`` stays quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from expunge.callback import UnlearnCallback
    from expunge.config import AuditConfig, Recipe, RequestConfig, RunConfig, StopConfig, TrainingConfig
    from expunge.erase import Erased, unlearn
    from expunge.errors import ExpungeError, RunError, UsageError
    from expunge.methods.altpo import AltPO
    from expunge.methods.bad_teacher import BadTeacher
    from expunge.methods.base import Method, Procedure
    from expunge.methods.ceu import CEU
    from expunge.methods.contrastive import ContrastiveUnlearning
    from expunge.methods.deepcut import DeepCUT
    from expunge.methods.deepcut_calibrated import CalibratedDeepCUT
    from expunge.methods.deepcut_kernel import KernelDeepCUT
    from expunge.methods.dpo import DPO
    from expunge.methods.finetune import FineTune
    from expunge.methods.gradient_ascent import GradientAscent
    from expunge.methods.gradient_difference import GradientDifference
    from expunge.methods.kga import KGA
    from expunge.methods.leave_out import LeaveOut
    from expunge.methods.npo import NPO
    from expunge.methods.o3 import O3
    from expunge.methods.offset import Offset
    from expunge.methods.pdu import PDU
    from expunge.methods.random_labels import RandomLabels
    from expunge.methods.retrain import Retrain
    from expunge.methods.rewind import Rewind
    from expunge.methods.rmu import RMU
    from expunge.methods.salun import SalUn
    from expunge.methods.satimp import SatImp
    from expunge.methods.scrub import Scrub
    from expunge.methods.simnpo import SimNPO
    from expunge.methods.sisa import Sisa
    from expunge.methods.task_vector import TaskVector
    from expunge.methods.undial import UNDIAL
    from expunge.methods.wga import WGA
    from expunge.offset.black_box import BlackBox
    from expunge.record import RunRecord
    from expunge.report import render
    from expunge.sisa.build import train_sisa
    from expunge.trainer import UnlearnTrainer

_HOME = {
    "AltPO": "methods.altpo",
    "AuditConfig": "config",
    "BadTeacher": "methods.bad_teacher",
    "BlackBox": "offset.black_box",
    "CEU": "methods.ceu",
    "CalibratedDeepCUT": "methods.deepcut_calibrated",
    "ContrastiveUnlearning": "methods.contrastive",
    "DPO": "methods.dpo",
    "DeepCUT": "methods.deepcut",
    "Erased": "erase",
    "ExpungeError": "errors",
    "FineTune": "methods.finetune",
    "GradientAscent": "methods.gradient_ascent",
    "GradientDifference": "methods.gradient_difference",
    "KGA": "methods.kga",
    "KernelDeepCUT": "methods.deepcut_kernel",
    "LeaveOut": "methods.leave_out",
    "Method": "methods.base",
    "NPO": "methods.npo",
    "O3": "methods.o3",
    "Offset": "methods.offset",
    "PDU": "methods.pdu",
    "Procedure": "methods.base",
    "RMU": "methods.rmu",
    "RandomLabels": "methods.random_labels",
    "Recipe": "config",
    "RequestConfig": "config",
    "Retrain": "methods.retrain",
    "Rewind": "methods.rewind",
    "RunConfig": "config",
    "RunError": "errors",
    "RunRecord": "record",
    "SalUn": "methods.salun",
    "SatImp": "methods.satimp",
    "Scrub": "methods.scrub",
    "SimNPO": "methods.simnpo",
    "Sisa": "methods.sisa",
    "StopConfig": "config",
    "TaskVector": "methods.task_vector",
    "TrainingConfig": "config",
    "UNDIAL": "methods.undial",
    "UnlearnCallback": "callback",
    "UnlearnTrainer": "trainer",
    "UsageError": "errors",
    "WGA": "methods.wga",
    "render": "report",
    "train_sisa": "sisa.build",
    "unlearn": "erase",
}

__all__ = [  # noqa: RUF022 - plain alphabetical order, KGA included
    "AltPO",
    "AuditConfig",
    "BadTeacher",
    "BlackBox",
    "CEU",
    "CalibratedDeepCUT",
    "ContrastiveUnlearning",
    "DPO",
    "DeepCUT",
    "Erased",
    "ExpungeError",
    "FineTune",
    "GradientAscent",
    "GradientDifference",
    "KGA",
    "KernelDeepCUT",
    "LeaveOut",
    "Method",
    "NPO",
    "O3",
    "Offset",
    "PDU",
    "Procedure",
    "RMU",
    "RandomLabels",
    "Recipe",
    "RequestConfig",
    "Retrain",
    "Rewind",
    "RunConfig",
    "RunError",
    "RunRecord",
    "SalUn",
    "SatImp",
    "Scrub",
    "SimNPO",
    "Sisa",
    "StopConfig",
    "TaskVector",
    "TrainingConfig",
    "UNDIAL",
    "UnlearnCallback",
    "UnlearnTrainer",
    "UsageError",
    "WGA",
    "render",
    "train_sisa",
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
