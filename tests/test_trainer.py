"""One step is the same step however it is cut up; nothing non-finite passes; parts are logged."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from transformers import PrinterCallback

from expunge import ContrastiveUnlearning, DeepCUT, FineTune, GradientDifference
from expunge.config import TrainingConfig
from expunge.errors import NonFiniteLossError
from expunge.fit import arguments
from expunge.head import find_head
from expunge.methods.base import Method
from expunge.tasks.base import Encoded
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_classifier, tiny_tokenizer, toy_records
from expunge.trainer import UnlearnTrainer

NAMES = ("water", "machine", "music")
TASK = TextClassification(tiny_tokenizer(), 48, NAMES)


def encoded(count: int, seed: int) -> Encoded:
    rows = toy_records(count, seed=seed)
    return TASK.encode_texts([(r["text"],) for r in rows], [NAMES.index(r["label"]) for r in rows])


def model_without_dropout():
    model = tiny_classifier().double()
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def train(tmp_path: Path, method: Method, *, batch: int, accumulation: int, model=None, steps: int = 3, **changes):
    model = model or model_without_dropout()
    args = arguments(
        str(tmp_path), 7, TrainingConfig(learning_rate=0.05), per_device_train_batch_size=batch,
        gradient_accumulation_steps=accumulation, max_steps=steps, **changes,
    )  # fmt: skip
    args.optim = "sgd"
    trainer = UnlearnTrainer(model, args, method=method, task=TASK, forget=encoded(11, 1), retain=encoded(60, 2))
    trainer.remove_callback(PrinterCallback)
    trainer.train()
    return model, trainer


@pytest.mark.parametrize(
    "method",
    [
        DeepCUT(gamma=1.0, temperature=0.5, views=2),
        DeepCUT(partners="both", mixed_negatives=2),
        ContrastiveUnlearning(),
        GradientDifference(),
        FineTune(),
    ],
    ids=lambda method: type(method).__name__,
)
def test_gradient_accumulation_is_the_plain_step(tmp_path: Path, method: Method) -> None:
    """8 x 1 = 4 x 2 = 2 x 4, although a contrastive loss is no mean over its micro-batches (DESIGN.md, section 9)."""
    plain, one = train(tmp_path, method, batch=8, accumulation=1)
    for batch, accumulation in ((4, 2), (2, 4)):
        cut, many = train(tmp_path, method, batch=batch, accumulation=accumulation)
        for (name, mine), theirs in zip(plain.named_parameters(), cut.parameters(), strict=True):
            torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-12, msg=name)
        for mine, theirs in zip(one.history, many.history, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-6)
        # What it costs: one more forward pass, a third of an example-pass each.
        assert many.example_passes == pytest.approx(one.example_passes * 4 / 3)


def test_the_accumulated_pass_replays_its_dropout(tmp_path: Path) -> None:
    """The gradient sent back belongs to the outputs the loss was taken on: with dropout on, step by step."""
    torch.manual_seed(0)
    model = tiny_classifier().double()
    _, trainer = train(tmp_path, DeepCUT(), batch=2, accumulation=2, model=model, steps=1)
    forward, seen = trainer._forward, []

    def recording(model, pair, weight=1.0):
        outputs = forward(model, pair, weight)
        seen.append([t.detach().clone() for o in outputs if o is not None for t in o])
        return outputs

    trainer._forward = recording
    batches = [trainer.train_dataset[0], trainer.train_dataset[1]]
    trainer.current_gradient_accumulation_steps = 2
    trainer.get_batch_samples(iter(batches), 2, None)
    for pair in batches:
        trainer.compute_loss(trainer.model, pair)
    for first, second in zip(seen[:2], seen[2:], strict=True):
        for mine, theirs in zip(first, second, strict=True):
            assert torch.equal(mine, theirs)


def test_one_forward_and_two_forwards_agree(tmp_path: Path) -> None:
    """Forget and retained units in one batch score as they do apart: padding and neighbours do not matter."""
    model = model_without_dropout().eval()
    data = encoded(12, 3)
    head = find_head(model, TASK.collate(data, [0]))
    together = head.run(model, TASK.collate(data, list(range(12))))
    longer = head.run(model, TASK.collate(data, list(range(12)), length=40))
    for mine, theirs in zip(together, longer, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-9, atol=1e-10)
    for i in range(12):
        alone = head.run(model, TASK.collate(data, [i]))
        torch.testing.assert_close(alone[1][0], together[1][i], rtol=1e-9, atol=1e-10)


def test_example_passes_count_every_view_and_partner(tmp_path: Path) -> None:
    _, trainer = train(tmp_path, DeepCUT(views=2, retain_ratio=2), batch=4, accumulation=1, steps=2)
    assert trainer.example_passes == 2 * (4 * 2 + 8)
    _, trainer = train(tmp_path, FineTune(retain_ratio=2), batch=4, accumulation=1, steps=2)
    assert trainer.example_passes == 2 * 8, "a group the method does not read is not forwarded"


def test_history_holds_every_part(tmp_path: Path) -> None:
    _, trainer = train(tmp_path, DeepCUT(), batch=4, accumulation=1, steps=2)
    for number, row in enumerate(trainer.history, start=1):
        assert row["step"] == number
        assert row["loss"] == pytest.approx(row["retain"] + row["forget"])
        assert row["anchors_without_other_class"] == 0
        assert row["anchors_without_same_class"] == 0


@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_loss_that_is_not_finite_stops_the_run(tmp_path: Path, accumulation: int) -> None:
    model = model_without_dropout()
    with torch.no_grad():
        model.classifier.weight.fill_(float("nan"))
    head = model.classifier
    from unittest.mock import patch

    from expunge.head import Head

    with (
        patch("expunge.trainer.head_of", return_value=Head(head, 0)),
        pytest.raises(NonFiniteLossError, match=r"step 1 \(retain = nan, forget = .*learning_rate"),
    ):
        train(tmp_path, DeepCUT(), batch=4, accumulation=accumulation, model=model)


def test_the_trainer_leaves_no_files(tmp_path: Path) -> None:
    train(tmp_path / "out", FineTune(), batch=4, accumulation=1, steps=1)
    assert not list(tmp_path.rglob("*.*"))
