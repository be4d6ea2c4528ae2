"""A training loop of one's own: `UnlearnCallback` looks on, logs, and ends it when forgetting can no longer be told."""

from __future__ import annotations

import tempfile
from typing import Any

import torch
from transformers import Trainer, TrainingArguments

from expunge import UnlearnCallback
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_classifier, tiny_tokenizer, toy_records

NAMES = ("water", "machine", "music")


class Sentences(torch.utils.data.Dataset):
    """Rows as any `Trainer` takes them; `sign` is -1 for a record to forget and 1 for a retained one."""

    def __init__(self, encoded: Any, signs: list[float]) -> None:
        self.encoded, self.signs = encoded, signs

    def __len__(self) -> int:
        return len(self.signs)

    def __getitem__(self, place: int) -> dict[str, Any]:
        return {
            "input_ids": self.encoded.input_ids[place],
            "labels": self.encoded.labels[place][0],
            "sign": self.signs[place],
        }


class OwnTrainer(Trainer):
    """Your own loss: here the loss of retained records less that of records to forget."""

    def compute_loss(self, model: Any, inputs: Any, return_outputs: bool = False, **_: Any) -> Any:
        signs, labels = inputs.pop("sign"), inputs.pop("labels")
        outputs = model(**inputs)
        loss = (signs * torch.nn.functional.cross_entropy(outputs.logits, labels, reduction="none")).mean()
        return (loss, outputs) if return_outputs else loss


def trainer_of(model: Any, tokenizer: Any, data: Sentences, folder: str, **settings: Any) -> OwnTrainer:
    args = TrainingArguments(
        folder,
        per_device_train_batch_size=16,
        remove_unused_columns=False,
        save_strategy="no",
        report_to="none",  # or "tensorboard", "wandb" ...: what the callback sees goes there as unlearn_...
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
        **settings,
    )

    def collate(rows: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        batch = tokenizer.pad({"input_ids": [row["input_ids"] for row in rows]}, return_tensors="pt")
        return {**batch, **{name: torch.tensor([row[name] for row in rows]) for name in ("labels", "sign")}}

    return OwnTrainer(model, args, train_dataset=data, data_collator=collate)


def main() -> UnlearnCallback:
    """A tiny model learns 120 records by heart and forgets 30 of them: put your own model and records in their place."""
    tokenizer = tiny_tokenizer()
    task = TextClassification(tokenizer, max_length=48, label_names=NAMES)

    def encoded(count: int, seed: int) -> Any:
        rows = toy_records(count, seed=seed)
        return task.encode_texts([(row["text"],) for row in rows], [NAMES.index(row["label"]) for row in rows])

    train, calibration = encoded(120, 1), encoded(120, 2)  # calibration: never trained on
    forget, retain = train.take(range(30)), train.take(range(30, 120))
    model = tiny_classifier(labels=NAMES)
    with tempfile.TemporaryDirectory() as folder:
        learning = Sentences(train, [1.0] * 120)
        trainer_of(model, tokenizer, learning, folder, num_train_epochs=40, learning_rate=3e-3).train()

        both = Sentences(train, [-1.0] * 30 + [1.0] * 90)
        trainer = trainer_of(
            model,
            tokenizer,
            both,
            folder,
            max_steps=200,
            learning_rate=3e-3,
            logging_steps=20,
            lr_scheduler_type="constant",
        )
        callback = UnlearnCallback(trainer, task=task, forget=forget, calibration=calibration, retain=retain, every=5)
        trainer.add_callback(callback)
        trainer.train()
    print(callback.reason)
    print(f"weights of step {callback.kept}; {callback.passes:.0f} example-passes of looking")
    return callback


if __name__ == "__main__":
    main()
