"""Ten steps of a method on a tiny job in float64, in this process or as one of several: losses, gradients, weights."""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from transformers import PrinterCallback, TrainerCallback

import expunge
from expunge import processes
from expunge.agreeing import agreeing
from expunge.collectives import everywhere, of_all
from expunge.config import TrainingConfig
from expunge.conformance_stage import given
from expunge.errors import ExpungeError, RunError
from expunge.fit import arguments
from expunge.head import head_of
from expunge.scoring import score
from expunge.tiny_jobs import answer_job, tag_job, text_job
from expunge.trainer import UnlearnTrainer

STEPS = 10
CASES: dict[str, tuple[Any, Any]] = {
    "deepcut": (expunge.DeepCUT(views=2), text_job),
    "deepcut, tags": (expunge.DeepCUT(), tag_job),  # tags outnumber records: partners come from the queue as well
    "deepcut, tokens": (expunge.DeepCUT(), answer_job),
    "contrastive": (expunge.ContrastiveUnlearning(), text_job),
    "calibrated": (expunge.CalibratedDeepCUT(), text_job),
    "npo": (expunge.NPO(), answer_job),
    "rmu": (expunge.RMU(layer=1), answer_job),
}
FSDP = ("deepcut", "calibrated", "npo")


class Gradients(TrainerCallback):
    """Keeps the whole gradient before every step."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] = []

    def on_pre_optimizer_step(self, *args: Any, optimizer: Any, **kwargs: Any) -> None:
        rows = []
        for parameter in optimizer.param_groups[0]["params"] + optimizer.param_groups[1]["params"]:
            gradient = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            rows.append(getattr(gradient, "full_tensor", lambda own=gradient: own)().flatten())
        self.kept.append(torch.cat(rows))


def trained(name: str, accumulation: int = 1, batch: int = 3) -> dict[str, torch.Tensor]:
    """Seven forget records, three a step: the third step of a pass has one, and a second process none.

    NPO begins three tenths of the way back to a base.
    """
    method, make = CASES[name]
    job = make()
    model = job.model(0)
    before = _flat(model)
    gradients = Gradients()
    with tempfile.TemporaryDirectory() as folder:
        args = arguments(
            folder, 5, TrainingConfig(learning_rate=0.05), per_device_train_batch_size=1,
            gradient_accumulation_steps=accumulation, max_steps=STEPS, max_grad_norm=1.0,
        )  # fmt: skip
        args.optim = "sgd"  # under AdamW rounding noise in a gradient of 0 becomes a step
        trainer = UnlearnTrainer(
            model, args, method=method, task=job.task, forget=job.forget, retain=job.retain,
            given=given(method, job, range(len(job.forget))), batch_size=batch, callbacks=[gradients],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        if name == "npo":
            trainer.move_back(dict(job.model(1).named_parameters()), 0.3)
        trainer.train()
    table = score(model, head_of(model, job.task, job.unseen), job.unseen, job.task, batch_size=4)
    return {
        "losses": torch.tensor([row["loss"] for row in trainer.history], dtype=torch.float64),
        "gradients": torch.stack(gradients.kept),
        "moved": _flat(model) - before,
        "passes": torch.tensor(trainer.example_passes),
        "margins": torch.from_numpy(table.margins),
        "hidden": torch.from_numpy(table.hidden),
    }


def passes_of_steps(name: str) -> float:
    """Example-passes of ten steps: passes of 3, 3 and 1 forget records, each with its views, and with partners a record."""
    method, _ = CASES[name]
    forget = 3 * 7 + 3
    return forget * getattr(method, "views", 1) + STEPS * 3 * getattr(method, "retain_ratio", 1)


def _flat(model: Any) -> torch.Tensor:
    return torch.cat([p.detach().flatten() for p in model.parameters()]).clone()


def main(folder: Path) -> None:
    torch.set_num_threads(1)
    found = {f"{name}/plain": trained(name) for name in CASES}
    found["deepcut/accumulated"] = trained("deepcut", accumulation=2)
    found["npo/accumulated"] = trained("npo", accumulation=2)
    os.environ["EXPUNGE_FSDP"] = "true"
    for name in FSDP:
        found[f"{name}/fsdp"] = trained(name)
    found["npo/fsdp, accumulated"] = trained("npo", accumulation=2)
    flat = {f"{case}/{key}": value.contiguous() for case, values in found.items() for key, value in values.items()}
    for key, value in sorted(flat.items()):
        assert len(set(of_all(float(value.double().sum())))) == 1, f"{key} is not the same in both processes"
    if processes.first():
        save_file(flat, folder / "found.safetensors")
    (folder / f"said{processes.number()}.json").write_text(json.dumps(failures()), encoding="utf-8")


def failures() -> dict[str, Any]:
    """What a process learns of another one's failures: one that it tells, and one where it is gone."""
    found: dict[str, Any] = {}
    try:
        with agreeing():
            if processes.number() == 1:
                raise RunError("the second process's disk is full.")
    except ExpungeError as error:
        found["agreed"] = {"code": error.exit_code, "told": error.told, "message": str(error)}
    if processes.number() == 1:
        return found
    time.sleep(1)  # the other one has nothing left to do but write, and goes
    try:
        everywhere(torch.ones(2))
    except RunError as error:
        found["gone"] = str(error)
    return found


if __name__ == "__main__":
    main(Path(sys.argv[1]))
