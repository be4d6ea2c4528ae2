"""Parts of OpenUnlearning and ERASURE, taken as they are from checkouts that the user has: none of their code is here.

Only the files that train or attack are imported, not the packages around them, whose imports (deepspeed, hydra, ...) have
nothing to do with a step. Names of such packages that the files import are stood in for by empty modules where they are not
installed.
"""

from __future__ import annotations

import copy
import importlib
import importlib.machinery
import importlib.util
import json
import logging
import sys
import tempfile
import threading
import types
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import torch
import workloads
from torch import nn
from transformers import PrinterCallback, ProgressCallback, TrainerCallback, TrainingArguments

from expunge.bench.timing import Spent

Pairs = Sequence[tuple[str, str]]


class _StandIn(types.ModuleType):
    """A module that has every name, each an empty class."""

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__"):
            raise AttributeError(name)
        return type(name, (), {})


def _stand_in(*names: str) -> None:
    for name in names:
        if name not in sys.modules and importlib.util.find_spec(name) is None:
            made = _StandIn(name)
            made.__spec__ = importlib.machinery.ModuleSpec(name, None)
            sys.modules[name] = made


def _package(name: str, folder: Path) -> None:
    """A package of which only the files asked for are run, not its own ``__init__``."""
    made = types.ModuleType(name)
    made.__path__ = [str(folder)]
    sys.modules[name] = made


def open_unlearning(checkout: Path) -> None:
    """Make files of OpenUnlearning importable as its own code imports them."""
    source = checkout / "src"
    _stand_in("deepspeed", "omegaconf")
    for name in ("trainer", "trainer.unlearn", "data", "evals", "evals.metrics", "evals.metrics.mia"):
        _package(name, source.joinpath(*name.split(".")))


def erasure(checkout: Path) -> None:
    """Make files of ERASURE importable; what it logs goes nowhere, and the folders it makes into a temporary one."""
    _stand_in("picologging")
    quiet = types.ModuleType("erasure.utils.logger")
    quiet.GLogger = type("GLogger", (), {"getLogger": classmethod(lambda cls: logging.getLogger("erasure"))})  # pyright: ignore
    for name in ("erasure", "erasure.core", "erasure.unlearners", "erasure.utils", "erasure.utils.config", "erasure.data",
                 "erasure.data.datasets", "erasure.data.preprocessing"):  # fmt: skip
        _package(name, checkout.joinpath(*name.split(".")))
    sys.modules["erasure.utils.logger"] = quiet
    _package("erasure.utils.config.global_ctx", checkout)
    sys.modules["erasure.utils.config.global_ctx"].Global = object  # pyright: ignore
    sys.modules["erasure.utils.config.global_ctx"].bcolors = object  # pyright: ignore


def qa_dataset(pairs: Pairs, tokenizer: Any, folder: Path, name: str) -> Any:
    """OpenUnlearning's data set over pairs of question and answer, with the template that ours are encoded with."""
    file = folder / f"{name}.json"
    file.write_text("\n".join(json.dumps({"question": q, "answer": a}) for q, a in pairs), encoding="utf-8")
    template = {"apply_chat_template": False, "user_start_tag": "Question: ", "user_end_tag": "\n",
                "asst_start_tag": "Answer: ", "asst_end_tag": "\n\n"}  # fmt: skip
    found = importlib.import_module("data.qa").QADataset(
        {"path": "json", "data_files": str(file), "split": "train", "cache_dir": str(folder)}, template, tokenizer
    )
    return found


class Stepped:
    """A `Trainer.train()` in a thread of its own, which goes on by one step whenever it is asked to.

    Args:
        start: Called in the thread with the callback that the trainer must be given.
    """

    def __init__(self, start: Callable[[TrainerCallback], None]) -> None:
        self._go, self._done = threading.Semaphore(0), threading.Semaphore(0)
        self.failure: BaseException | None = None
        outer = self

        class Wait(TrainerCallback):
            def on_train_begin(self, *args: Any, **kwargs: Any) -> None:
                outer._go.acquire()

            def on_step_end(self, *args: Any, **kwargs: Any) -> None:
                outer._done.release()
                outer._go.acquire()

        def run() -> None:
            try:
                start(Wait())
            except BaseException as error:
                self.failure = error
            self._done.release()

        self._thread = threading.Thread(target=run, daemon=True)
        self._thread.start()

    def step(self) -> Spent:
        """What the next step takes, from the end of the last one."""
        start = Spent.now()
        self._go.release()
        self._done.acquire()
        if self.failure is not None:
            raise self.failure
        return Spent.now().since(start)

    def end(self) -> None:
        """Let it run to its end."""
        self._go.release(1000)
        self._thread.join()


def their_trainer(
    kind: str, model: Any, tokenizer: Any, forget: Any, retain: Any, *, batch: int, steps: int, options: dict[str, Any],
    folder: str,
) -> Any:  # fmt: skip
    """One of OpenUnlearning's trainers with its own data set and collator, and our optimizer.

    Transformers 5 hands `compute_loss` one argument more than its code takes; that is the only thing changed.
    """
    module = importlib.import_module(f"trainer.unlearn.{'grad_diff' if kind == 'GradDiff' else kind.lower()}")
    theirs = getattr(module, kind)

    class Fitted(theirs):  # pyright: ignore
        def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
            return super().compute_loss(model, inputs, return_outputs=return_outputs)

    args = TrainingArguments(
        output_dir=folder, per_device_train_batch_size=batch, max_steps=steps, learning_rate=workloads.RATE,
        optim="adamw_torch_fused", lr_scheduler_type="constant", report_to="none", use_cpu=True, disable_tqdm=True,
        remove_unused_columns=False, save_strategy="no", eval_strategy="no", logging_strategy="no", seed=0,
        dataloader_pin_memory=False,
    )  # fmt: skip
    both = importlib.import_module("data.unlearn").ForgetRetainDataset(forget, retain)
    collator = importlib.import_module("data.collators").DataCollatorForSupervisedDataset(tokenizer)
    made = Fitted(model=model, args=args, train_dataset=both, data_collator=collator, **options)
    for callback in (PrinterCallback, ProgressCallback):
        made.remove_callback(callback)
    return made


def their_attacks(
    model: Any, reference: Any, tokenizer: Any, forget: Any, holdout: Any, *, batch: int, names: Sequence[str]
) -> dict[str, float]:
    """AUC of OpenUnlearning's membership attacks, each over its own passes, as its metrics run them."""
    collator = importlib.import_module("data.collators").DataCollatorForSupervisedDataset(tokenizer, index="index")
    classes = {
        "loss": ("loss", "LOSSAttack", {}),
        "zlib": ("zlib", "ZLIBAttack", {"tokenizer": tokenizer}),
        "min_k": ("min_k", "MinKProbAttack", {"k": 0.2}),
        "min_k++": ("min_k_plus_plus", "MinKPlusPlusAttack", {"k": 0.2}),
        "reference": ("reference", "ReferenceAttack", {"reference_model": reference}),
        "gradnorm": ("gradnorm", "GradNormAttack", {"p": 2}),
    }
    package = importlib.import_module("evals.metrics.mia.all_attacks")
    package.tqdm = lambda items, **_: items  # pyright: ignore
    from sklearn.metrics import roc_auc_score

    found = {}
    for name in names:
        file, cls, more = classes[name]
        attack = getattr(importlib.import_module(f"evals.metrics.mia.{file}"), cls)
        size = 1 if name == "gradnorm" else batch  # more fails there: the graph is gone after the first record
        values = [
            [
                row["score"]
                for row in attack(data=data, model=model, collator=collator, batch_size=size, **more)
                .attack()["value_by_index"]
                .values()
            ]
            for data in (forget, holdout)
        ]
        found[name] = float(roc_auc_score([0] * len(values[0]) + [1] * len(values[1]), np.concatenate(values)))
    return found


class _Adapted(nn.Module):
    """A transformers classifier with the interface of ERASURE's: token ids and mask in one tensor, two outputs."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model = model

    def forward(self, packed: torch.Tensor) -> tuple[None, torch.Tensor]:
        return None, self.model(input_ids=packed[:, 0].long(), attention_mask=packed[:, 1].long()).logits


def their_unlearner(
    kind: str,
    model: Any,
    tokenizer: Any,
    texts: dict[str, list[tuple[str, int]]],
    *,
    batch: int,
    width: int,
    epochs: int,
) -> Callable[[], Any]:
    """ERASURE's ``AdvancedNegGrad`` or ``Scrub`` over texts, padded to `width` as its data sources do, with our optimizer.

    SCRUB's teacher is a shallow copy there, so that it is the student; here it is a deep one.
    """
    module = importlib.import_module(f"erasure.unlearners.{kind}")
    if kind == "Scrub":
        module.copy = copy.deepcopy  # pyright: ignore
    tokenize = importlib.import_module("erasure.data.preprocessing.tokenize_text").TokenizeX
    wrapper = importlib.import_module("erasure.data.datasets.Dataset").DatasetWrapper
    cut = object.__new__(tokenize)
    cut.tokenizer = lambda text: tokenizer(
        text, max_length=width, padding="max_length", truncation=True, return_tensors="pt"
    )

    def loader(name: str, _: Fraction) -> tuple[Any, None]:
        data = wrapper(texts[name], [cut])
        return torch.utils.data.DataLoader(data, batch_size=batch, shuffle=False, drop_last=True), None

    adapted = _Adapted(model)
    unlearner = object.__new__(getattr(module, kind))
    unlearner.predictor = types.SimpleNamespace(
        model=adapted, loss_fn=nn.CrossEntropyLoss(), lr_scheduler=types.SimpleNamespace(step=lambda: None),
        optimizer=torch.optim.AdamW(adapted.parameters(), lr=workloads.RATE, fused=True),
    )  # fmt: skip
    unlearner.dataset = types.SimpleNamespace(get_loader_for=loader)
    unlearner.device, unlearner.epochs = "cpu", epochs
    unlearner.ref_data_retain, unlearner.ref_data_forget, unlearner.T = "retain", "forget", 4.0
    if kind == "Scrub":
        unlearner.criterion_div = module.DistillKL(4.0)  # pyright: ignore
    return unlearner.__unlearn__


def temporary() -> Any:
    """A folder for what peers write."""
    return tempfile.TemporaryDirectory(prefix="expunge-peers-", ignore_cleanup_errors=True)
