"""Plain fine-tuning from a base model by a recipe: how an original is made, and every model retrained without records."""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from typing import Any

import torch

from expunge.config import Recipe, TrainingConfig
from expunge.fit_checkpoints import FitCheckpoints
from expunge.head import head_of
from expunge.kept_models import keep_model, kept_model
from expunge.models import head_sizes, load_model
from expunge.paused import PausedRun
from expunge.progress import Progress, trainer_stage
from expunge.resumable import ResumableTrainer
from expunge.tasks.base import Batch, Encoded
from expunge.token_sums import cross_entropy

__all__ = ["arguments", "device", "fit", "plain", "train"]


def arguments(folder: str, seed: int, settings: Recipe | TrainingConfig, **options: Any) -> Any:
    """`TrainingArguments` that leave no files, no reports and no console output.

    Args:
        folder: A folder transformers may claim as its own; nothing is written there.
        seed: Seed of order and dropout.
        settings: Learning rate, weight decay, warm-up, scheduler and precision.
        options: Passed on.
    """
    from transformers import TrainingArguments

    warm = settings.scheduler == "constant" and settings.warmup > 0  # plain "constant" leaves the warm-up out
    args = TrainingArguments(
        output_dir=folder,
        seed=seed,
        learning_rate=settings.learning_rate,
        weight_decay=settings.weight_decay,
        warmup_steps=min(settings.warmup, 0.999999),  # a share; 1 and more would be read as steps
        lr_scheduler_type="constant_with_warmup" if warm else settings.scheduler,
        bf16=settings.precision == "bfloat16",
        use_cpu=torch.accelerator.current_accelerator() is None,  # lets bfloat16 run there
        optim="adamw_torch_fused",
        save_strategy="no",
        eval_strategy="no",
        report_to="none",
        disable_tqdm=True,
        dataloader_pin_memory=False,
        logging_strategy="no",
        log_level_replica="passive",  # what the first process leaves alone, the others do
        **options,
    )
    args._n_gpu = min(args.n_gpu, 1)  # one process, one device: no torch DataParallel
    return args


def fit(
    base: str,
    task: Any,
    encoded: Encoded,
    recipe: Recipe,
    *,
    seed: int,
    label_names: Sequence[str],
    progress: Progress | None = None,
    name: str = "training",
    trust_remote_code: bool = False,
    paused: PausedRun | None = None,
    stage: str = "fitted",
) -> Any:
    """Fine-tune a fresh copy of the base model.

    Args:
        base: Folder or hub id of the base model.
        task: Collates records.
        encoded: Tokenised training records.
        recipe: Epochs, learning rate and so on; its own seed is not used.
        seed: Seed of head initialisation, order and dropout.
        label_names: Class names in order.
        progress: Where progress is shown.
        name: What it is called there.
        trust_remote_code: As in transformers.
        paused: Where checkpoints and the finished model are kept and found, if anywhere.
        stage: What the model is called there.

    Returns:
        The trained model, in eval mode.
    """
    from transformers import set_seed

    def fresh() -> Any:
        new_head = None if task.of_tokens else head_sizes(label_names)
        where, trust = "retrain.base", trust_remote_code
        return load_model(base, task.auto_class, where=where, new_head=new_head, trust_remote_code=trust).to(device())

    set_seed(seed)
    if (model := kept_model(paused, stage, fresh)) is not None:
        return model
    return train(fresh(), task, encoded, recipe, seed=seed, progress=progress, name=name, paused=paused, stage=stage)


def train(
    model: Any,
    task: Any,
    encoded: Encoded,
    recipe: Recipe,
    *,
    seed: int,
    progress: Progress | None = None,
    name: str = "training",
    paused: PausedRun | None = None,
    stage: str = "fitted",
) -> Any:
    """Train a model in place on records by a recipe (its own seed is not used); gives it back in eval mode.

    `paused` and `stage` are as in `fit`.
    """
    head = head_of(model, task, encoded) if task.of_tokens else None

    class TokenTrainer(ResumableTrainer):
        def compute_loss(
            self, model: Any, inputs: Any, return_outputs: bool = False, num_items_in_batch: Any = None
        ) -> Any:
            batch: Batch = inputs["batch"]  # the mean over units, as in models' own losses; no other logits are made
            return cross_entropy(head, head.run(model, batch), batch.labels)  # pyright: ignore[reportOptionalMemberAccess]

        def _prepare_inputs(self, inputs: Any) -> Any:
            return {"batch": inputs["batch"].to(self.args.device)}

    def collate(items: list[dict[str, Any]]) -> dict[str, Any]:
        batch = task.collate(encoded, [item["position"] for item in items])
        if head is not None:
            return {"batch": batch}
        return {**batch.inputs, "labels": batch.targets()}

    records = [{"input_ids": ids, "position": i} for i, ids in enumerate(encoded.input_ids)]  # ids for their length

    with tempfile.TemporaryDirectory(prefix="expunge-") as folder:
        args = arguments(
            folder,
            seed,
            recipe,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            train_sampling_strategy="group_by_length" if recipe.group_by_length else "random",
            remove_unused_columns=False,
        )
        kind = ResumableTrainer if head is None else TokenTrainer
        trainer = kind(model, args, data_collator=collate, train_dataset=records)  # pyright: ignore[reportArgumentType]
        trainer.model_accepts_loss_kwargs = False
        checkpoints = None if paused is None else FitCheckpoints(paused, stage, trainer)
        with trainer_stage(trainer, progress, name):
            trainer.train(resume_from_checkpoint=None if checkpoints is None else checkpoints.begin())
    model = plain(model).eval()
    if checkpoints is not None and keep_model(paused, stage, model):
        checkpoints.done()
    return model


def plain(model: Any) -> Any:
    """The model without the autocast wrapper that training may have put around its forward pass."""
    from accelerate.utils import extract_model_from_parallel

    return extract_model_from_parallel(model, keep_fp32_wrapper=False)


def device() -> torch.device:
    """Where the trainer will train: scoring happens there too."""
    from accelerate import PartialState

    found = PartialState().device
    assert found is not None  # set when the state is made
    return found
