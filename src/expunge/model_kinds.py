"""Models other than plain ones, which method each of them takes, and what these methods want beside it."""

from __future__ import annotations

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, NamedTuple

from expunge.adapter import PEFT
from expunge.config import RunConfig
from expunge.errors import Problem, UsageError
from expunge.methods.o3 import O3
from expunge.methods.offset import Offset
from expunge.methods.sisa import Sisa
from expunge.o3 import encoder as o3_encoder
from expunge.o3.detector import too_few
from expunge.o3.folder import is_o3, manifest_of
from expunge.o3.model import O3Model
from expunge.offset import fits as offset_fits
from expunge.offset.black_box import BlackBox
from expunge.offset.ensemble import OffsetModel
from expunge.offset.folder import is_offset
from expunge.sisa.ensemble import Ensemble
from expunge.sisa.folder import is_sisa
from expunge.tasks.kinds import Task

__all__ = ["architecture_of", "beside", "detectable", "enough", "unfit_kind"]


class _Kind(NamedTuple):
    """A kind of model that one method alone makes and goes on with."""

    what: str
    model: type
    folder: Callable[[Any], bool]
    method: type
    way_out: str


_KINDS = (
    _Kind(
        "a SISA ensemble", Ensemble, is_sisa, Sisa, "Use the method sisa, or give a plain fine-tuned model."
    ),
    _Kind(
        "one with an offset", OffsetModel, is_offset, Offset, "Use the method offset, or give a plain fine-tuned model."
    ),
    _Kind(
        "one with O3's adapters and detectors", O3Model, is_o3, O3,
        "Use the method o3, or give a plain fine-tuned model, such as the one in the folder's original/.",
    ),
    _Kind(
        "a black box", BlackBox, lambda _: False, Offset, "Use the method offset, or give a plain fine-tuned model."
    ),
)  # fmt: skip


def architecture_of(model: Any) -> str:
    """The transformers class behind a model in memory, whatever is around it."""
    return (
        model.config.architectures[0]
        if isinstance(model, tuple(kind.model for kind in _KINDS))
        else type(model).__name__
    )


def unfit_kind(method: Any, model: Any, path: str = "") -> list[Problem]:
    """What a method made, it alone goes on with; and SISA erases from ensembles that were trained as such.

    Args:
        method: The method.
        model: A model in memory, or None for the one at `path`.
        path: Its folder or hub id.
    """
    found, ensemble = [], False
    for kind in _KINDS:
        own = isinstance(model, kind.model) if model is not None else bool(path) and kind.folder(path)
        ensemble = ensemble or (own and kind.method is Sisa)
        if own and not isinstance(method, kind.method):
            found.append(Problem("method.name", f"the model is {kind.what}; no other method fits it", kind.way_out))
    if not ensemble and isinstance(method, Sisa) and (model is not None or path):
        way_out = "Train an ensemble with `expunge train-sisa`, or use another method, such as deepcut."
        found.append(Problem("method.name", "sisa needs a SISA folder, and this is a plain model", way_out))
    return found


def beside(config: RunConfig, model: Any, model_config: Any, tokenizer: Any, task: type[Task] | None) -> list[Problem]:
    """Whether the small model that a run names fits the model to erase from, where its method wants one."""
    if not isinstance(config.method, Offset) or model_config is None or task is None:
        return []
    path, trust = config.model.path, config.model.trust_remote_code
    found = offset_fits.misfits(config.method, path, model, model_config, tokenizer, task, trust)
    if config.training.lora_rank:
        way_out = "Leave it out: the small model is trained whole, and is small."
        found.append(Problem("training.lora_rank", "offset trains no low-rank updates", way_out))
    return found


def detectable(config: RunConfig, model: Any, model_config: Any, task: type[Task] | None) -> list[Problem]:
    """What keeps O3 from training adapters and a detector here."""
    method = config.method
    if not isinstance(method, O3):
        return []
    found = [] if find_spec("peft") else [Problem("method", "o3 needs peft, which is not installed", PEFT)]
    if not method.answers:
        found.append(Problem("method.answers", "there is none", "Give one or more: a record needs another answer."))
    try:
        manifest = manifest_of(config.model.path, model)
    except UsageError:
        return found  # told by who looks at the folder
    if manifest is None and model_config is not None and task is not None:
        return [*found, *o3_encoder.misfits(method.encoder, model_config, task.of_tokens)]
    if manifest is not None and method.encoder not in (None, manifest.encoder):
        what = f'it is "{method.encoder}", and the detectors of earlier requests read with "{manifest.encoder}"'
        found.append(Problem("method.encoder", what, "Leave it out: every request of a folder has the same."))
    if manifest is not None and method.load != manifest.load:
        what = f'it is "{method.load}", and the adapters of earlier requests are loaded as "{manifest.load}"'
        found.append(Problem("method.load", what, f"Give the same: --set method.load={manifest.load}."))
    return found


def enough(config: RunConfig, request: Any) -> list[Problem]:
    """Requests with too few records for the method."""
    return too_few(len(request.forget)) if isinstance(config.method, O3) and request is not None else []
