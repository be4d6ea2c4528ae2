"""The front door: unlearn, measure, and hand back an `Erased`."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch

from expunge import models as model_loading
from expunge.checks import Inputs, Prepared, check
from expunge.config import (
    AuditConfig,
    DataConfig,
    ModelConfig,
    PrivacyConfig,
    RequestConfig,
    RetrainConfig,
    RunConfig,
    StopConfig,
    TrainingConfig,
    build_method,
)
from expunge.execution import Run
from expunge.progress import Progress
from expunge.record import RunRecord

__all__ = ["Erased", "execute", "unlearn"]


@dataclass
class Erased:
    """What unlearning leaves: a model that can be used, saved, and asked to forget more.

    Attributes:
        model: The unlearned model, in eval mode.
        tokenizer: Its tokenizer.
        record: What was done and measured.
        prepared: The run's data and settings.
    """

    model: Any
    tokenizer: Any
    record: RunRecord
    prepared: Prepared

    def score(self, texts: Sequence[str | tuple[str, ...]]) -> np.ndarray:
        """(N, C) class probabilities of texts (or pairs)."""
        rows = tuple((text,) if isinstance(text, str) else tuple(text) for text in texts)
        encoded = self.prepared.task.encode_texts(rows)
        head = model_loading.find_head(self.model, self.prepared.task.collate(encoded, [0]))
        found = []
        with torch.inference_mode():
            for start in range(0, len(encoded), 64):
                chosen = list(range(start, min(start + 64, len(encoded))))
                batch = self.prepared.task.collate(encoded, chosen).to(next(self.model.parameters()).device)
                found.append(head.run(self.model, batch)[1].float().softmax(dim=-1).cpu())
        return torch.cat(found).numpy()

    def save(self, folder: str) -> None:
        """Write model, tokenizer, record.json and report.html: the folder appears whole or not at all.

        Raises:
            UsageError: The folder exists, or its place cannot be written.
            RunError: Writing failed.
        """
        from expunge.folders import whole_folder
        from expunge.report import render

        with whole_folder(folder) as place:
            self.model.save_pretrained(place)
            self.tokenizer.save_pretrained(place)
            (place / "record.json").write_text(self.record.to_json(), encoding="utf-8")
            (place / "report.html").write_text(render(self.record), encoding="utf-8")

    def forget_next(self, ids: Sequence[str], progress: Progress | None = None) -> Erased:
        """Forget further records of the same training data; those forgotten before stay out of retain.

        Raises:
            UsageError: An id is unknown or was forgotten before, or nothing would be left to retain.
        """
        from expunge.data.request import resolve

        before = self.prepared
        left = before.train.take(before.request.retain)
        config = replace(
            before.config, request=replace(before.config.request, file=None, ids=tuple(ids), fraction=None)
        )
        request = resolve(left, list(ids), config.request)
        following = replace(before, config=config, train=left, request=request, model=self.model)
        return execute(following, progress)


def unlearn(
    model: Any,
    data: Any,
    method: Any = "deepcut",
    *,
    forget: Any,
    held_out: Any,
    calibration: Any = None,
    tokenizer: Any = None,
    text: str | Sequence[str] = "text",
    label: str = "label",
    id: str | None = None,  # noqa: A002 - the word of the config
    labels: Sequence[str] = (),
    with_duplicates: bool = False,
    allow_missing: bool = False,
    overlap: str = "refuse",
    base: str | None = None,
    recipe: str | None = None,
    retrain_seeds: Sequence[int] = (),
    retrained: Sequence[str] = (),
    training: TrainingConfig | None = None,
    stop: StopConfig | None = None,
    audit: AuditConfig | None = None,
    show_ids: bool = False,
    seed: int = 0,
    progress: Progress | None = None,
) -> Erased:
    """Make a fine-tuned text classifier forget records, and measure how well it did.

    Args:
        model: A model folder, a hub id, or a loaded model with its `tokenizer`. It is never changed.
        data: The training data: a path, hub id, `datasets.Dataset`, `pandas.DataFrame` or list of dicts.
        method: A method (`DeepCUT(gamma=0.1)`) or a name from `expunge list`.
        forget: Ids to forget; a share in (0, 1) draws records at random.
        held_out: Data never trained on, split by hash into calibration and evaluation halves.
        calibration: Data for the stop rule alone; `held_out` is then used for audits only.
        tokenizer: The tokenizer of a loaded model.
        text: Text column, or two for a pair.
        label: Label column.
        id: Id column; left out, ids are content hashes.
        labels: Class names in the model's order, where the model has none.
        with_duplicates: Forget identical rows too.
        allow_missing: Go on when some ids are not in the data.
        overlap: ``"refuse"`` or ``"drop"`` held-out records that are also in training.
        base: The model the original was fine-tuned from; with `recipe` (a TOML file), retrained models are made.
        recipe: How the original was fine-tuned.
        retrain_seeds: One retrained model a seed.
        retrained: Folders of models retrained already.
        training: Learning rate, batch size and so on.
        stop: When unlearning ends.
        audit: What is measured.
        show_ids: Put raw ids into the record.
        seed: Seed of order, dropout and sampling.
        progress: Shows progress, e.g. `expunge.progress.ConsoleProgress()`.

    Raises:
        UsageError: Everything that is wrong with these arguments, at once, before weights load.
        RunError: Training failed; the model given is unchanged.

    Example:
        >>> erased = unlearn(
        ...     "my-model", "train.csv", DeepCUT(), forget=["u17"], held_out="test.csv", id="key"
        ... )  # doctest: +SKIP
        >>> erased.save("erased")  # doctest: +SKIP
    """
    loaded = None if isinstance(model, str) or hasattr(model, "__fspath__") else model
    share, ids = (forget, None) if isinstance(forget, float) else (None, forget)
    config = RunConfig(
        method=build_method({"name": method}) if isinstance(method, str) else method,
        seed=seed,
        model=ModelConfig(path="" if loaded is not None else str(model)),
        data=DataConfig(
            train=data if isinstance(data, str) else "",
            held_out=held_out if isinstance(held_out, str) else "",
            calibration=calibration if isinstance(calibration, str) else None,
            text=(text,) if isinstance(text, str) else tuple(text),
            label=label,
            labels=tuple(labels),
            id=id,
            overlap=overlap,  # pyright: ignore[reportArgumentType]
        ),
        request=RequestConfig(fraction=share, with_duplicates=with_duplicates, allow_missing=allow_missing, seed=seed),
        training=training or TrainingConfig(),
        stop=stop or StopConfig(),
        retrain=RetrainConfig(
            enabled=base is not None and recipe is not None,
            base=base,
            recipe=recipe,
            seeds=tuple(retrain_seeds),
            models=tuple(retrained),
        ),
        audit=audit or AuditConfig(),
        privacy=PrivacyConfig(show_ids=show_ids),
    )
    inputs = Inputs(
        model=loaded,
        tokenizer=tokenizer,
        train=None if isinstance(data, str) else data,
        held_out=None if isinstance(held_out, str) else held_out,
        calibration=None if isinstance(calibration, str) else calibration,
        forget=[ids] if isinstance(ids, str) else ids,
    )
    return execute(check(config, inputs), progress)


def execute(prepared: Prepared, progress: Progress | None = None) -> Erased:
    """Carry out a checked run: score the original, unlearn, score again, retrain where asked, audit.

    Raises:
        UsageError: The model's weights cannot be used.
        RunError: Training failed.
    """
    model, record = Run(prepared, progress or Progress()).carry_out()
    return Erased(model, prepared.task.tokenizer, record, prepared)
