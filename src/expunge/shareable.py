"""What several processes cannot share, said before weights load."""

from __future__ import annotations

from expunge import processes, registry
from expunge.config import RunConfig
from expunge.errors import Problem
from expunge.methods.base import trains_the_model

__all__ = ["unshareable"]


def unshareable(config: RunConfig) -> list[Problem]:
    """What keeps a run from being shared among the processes that were started; nothing where there is one."""
    if processes.count() == 1:
        return []
    method, problems = config.method, []
    name = registry.name_of("methods", type(method))
    if not trains_the_model(method) or method.needs_base:
        what = f"{name} cannot be shared among {processes.count()} processes: it trains models of its own"
        way_out = "Start it as one process, without torchrun or accelerate launch; methods with a loss can be shared."
        problems.append(Problem("method.name", what, way_out))
    elif processes.sharded() and method.halfway:
        what = f"{name} ends forward passes halfway, which FSDP cannot"
        way_out = "Start the processes without FSDP: torchrun alone, or accelerate launch --multi_gpu."
        problems.append(Problem("method.name", what, way_out))
    if config.retrain.enabled:
        what = f"retraining cannot be shared among {processes.count()} processes"
        way_out = "Retrain as one process, and name the folders of the retrained models: --retrained FOLDER."
        problems.append(Problem("retrain", what, way_out))
    return problems
