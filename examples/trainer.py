"""Unlearning inside one's own training code: `UnlearnTrainer` is a `transformers.Trainer` whose loss is a method's."""

from __future__ import annotations

import tempfile

from transformers import TrainingArguments

from expunge import DeepCUT, UnlearnTrainer
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_classifier, tiny_tokenizer, toy_records

NAMES = ("water", "machine", "music")


def main() -> None:
    """Ten steps on a tiny random model: put your own model, tokenizer and records in its place."""
    model, tokenizer = tiny_classifier(labels=NAMES), tiny_tokenizer()
    task = TextClassification(tokenizer, max_length=48, label_names=NAMES)
    rows = toy_records(120)
    encoded = task.encode_texts([(row["text"],) for row in rows], [NAMES.index(row["label"]) for row in rows])
    with tempfile.TemporaryDirectory() as folder:
        args = TrainingArguments(
            folder,
            per_device_train_batch_size=8,  # counts records to forget; retained partners come on top
            max_steps=10,
            learning_rate=1e-4,
            report_to="none",  # or any tracker: parts of the loss are logged as part_...
            save_strategy="no",
            disable_tqdm=True,
        )
        trainer = UnlearnTrainer(
            model, args, method=DeepCUT(), task=task, forget=encoded.take(range(8)), retain=encoded.take(range(8, 120))
        )
        trainer.train()
    for row in trainer.history[::3]:
        print({name: round(value, 3) for name, value in row.items()})


if __name__ == "__main__":
    main()
