"""Model families: the head is found and reproduces the logits; unusable folders are refused before weights load."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from expunge.adapter import merged, with_adapter
from expunge.errors import UsageError
from expunge.head import find_head
from expunge.models import cast, inspect_folder, load_model, weights_sha256
from expunge.scoring import margins, score
from expunge.tasks.text_classification import TextClassification
from expunge.testing import FAMILIES, tiny_causal, tiny_classifier, tiny_tokenizer, toy_records

NAMES = ("water", "machine", "music")
TASK = TextClassification(tiny_tokenizer(), 48, NAMES)
ROWS = toy_records(9, seed=4)
DATA = TASK.encode_texts([(r["text"],) for r in ROWS], [NAMES.index(r["label"]) for r in ROWS])


@pytest.mark.parametrize("family", FAMILIES)
def test_hidden_is_the_input_of_the_last_linear_layer(family: str) -> None:
    model = tiny_classifier(family).eval()
    head = find_head(model, TASK.collate(DATA, [0]))
    batch = TASK.collate(DATA, list(range(9)))
    hidden, logits = head.run(model, batch)
    assert hidden.shape == (9, 32)
    torch.testing.assert_close(head.module(hidden), logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(logits, model(**batch.inputs).logits)


@pytest.mark.parametrize("family", FAMILIES)
def test_scores_do_not_depend_on_batch_or_order(family: str) -> None:
    model = tiny_classifier(family)
    head = find_head(model, TASK.collate(DATA, [0]))
    model.train()
    whole = score(model, head, DATA, TASK, batch_size=64)
    assert model.training, "the mode is put back"
    single = score(model, head, DATA, TASK, batch_size=1)
    torch.testing.assert_close(torch.tensor(whole.margins), torch.tensor(single.margins), rtol=1e-4, atol=1e-5)
    assert whole.labels.tolist() == DATA.flat_labels
    backwards = score(model, head, DATA.take(range(8, -1, -1)), TASK)
    torch.testing.assert_close(
        torch.tensor(whole.losses), torch.tensor(backwards.losses[::-1].copy()), rtol=1e-4, atol=1e-5
    )


@pytest.mark.filterwarnings("ignore:fan_in_fan_out")  # peft says how it treats GPT-2's layers
@pytest.mark.parametrize("family", FAMILIES)
def test_low_rank_updates_leave_the_head_as_it_is(family: str) -> None:
    """Else its logits would come from two layers; merged, the model is one of its family again, and the same so far."""
    model = tiny_classifier(family).eval()
    before = find_head(model, TASK.collate(DATA, [0]))
    batch = TASK.collate(DATA, list(range(9)))
    logits = model(**batch.inputs).logits
    adapted = with_adapter(model, 4, 0, before.module).eval()
    after = find_head(adapted, TASK.collate(DATA, [0]))
    assert after.module is before.module
    trained = [name for name, parameter in adapted.named_parameters() if parameter.requires_grad]
    assert trained
    assert all(".lora_" in name for name in trained)
    assert not before.module.weight.requires_grad
    torch.testing.assert_close(merged(adapted)(**batch.inputs).logits, logits)


def test_margin_by_hand() -> None:
    # p = (0.5, 0.3, 0.2): margin of class 0 is log(0.5 / 0.5) = 0, of class 1 log(0.3 / 0.7) = -0.847298.
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.2], [0.5, 0.3, 0.2]], dtype=torch.float64))
    assert margins(logits, torch.tensor([0, 1])).tolist() == [
        pytest.approx(0, abs=1e-12),
        pytest.approx(-0.847298, abs=1e-6),
    ]


def test_margin_of_a_certain_model_stays_finite() -> None:
    logits = torch.tensor([[800.0, 0.0, -800.0]], dtype=torch.float64)
    assert margins(logits, torch.tensor([0])).item() == pytest.approx(800.0)
    assert margins(logits, torch.tensor([2])).item() == pytest.approx(-1600.0)


def test_a_head_that_is_not_linear_is_refused() -> None:
    model = tiny_classifier()
    with torch.no_grad():
        model.classifier.weight *= 100  # far from where tanh is nearly linear
    model.classifier = torch.nn.Sequential(model.classifier, torch.nn.Tanh())
    with pytest.raises(UsageError, match="no linear layer with 3 outputs that makes its logits"):
        find_head(model, TASK.collate(DATA, [0]))


def test_pairs_are_encoded_as_pairs() -> None:
    task = TextClassification(tiny_tokenizer(segments=True), 48, NAMES)
    encoded = task.encode_texts([("w1 w2", "river w3")])
    assert encoded.token_types == [[0, 0, 0, 0, 1, 1, 1]]
    batch = task.collate(encoded, [0], views=2)
    assert batch.length == 8
    assert batch.inputs["token_type_ids"].tolist() == [[0, 0, 0, 0, 1, 1, 1, 0]] * 2
    logits = tiny_classifier()(**batch.inputs).logits
    assert logits.shape == (2, 3)


def test_rotary_frequencies_go_through_no_half_precision() -> None:
    """A model loaded from a bfloat16 folder has exact ones, and so must the one that a run gives back."""
    model = tiny_causal()
    before = {name: buffer.clone() for name, buffer in model.named_buffers() if "inv_freq" in name}
    weights = weights_sha256(model, torch.bfloat16)
    cast(cast(model, torch.bfloat16), torch.float32)
    assert before
    assert all(torch.equal(buffer, before[name]) for name, buffer in model.named_buffers() if name in before)
    assert weights_sha256(model, torch.bfloat16) == weights
    assert {p.dtype for p in model.parameters()} == {torch.float32}


def test_hash_of_weights_sees_one_changed_number() -> None:
    model = tiny_classifier()
    before = weights_sha256(model)
    assert before == weights_sha256(tiny_classifier())
    with torch.no_grad():
        model.classifier.bias[0] += 1e-7
    assert weights_sha256(model) != before


def folder_with(tmp_path: Path, *names: str) -> str:
    for name in names:
        (tmp_path / name).write_text(json.dumps({"model_type": "bert"}), encoding="utf-8")
    return str(tmp_path)


@pytest.mark.parametrize(
    ("names", "word"),
    [
        (["config.json"], "holds no weights"),
        (["config.json", "pytorch_model.bin"], r"pickled weights only \(pytorch_model.bin\)"),
        (["model.safetensors"], "no config.json"),
        (["config.json", "adapter_config.json"], "merge_and_unload"),
    ],
)
def test_folders_are_judged_by_their_file_names(tmp_path: Path, names: list[str], word: str) -> None:
    import re

    (problem,) = inspect_folder(folder_with(tmp_path, *names), where="model.path")
    assert re.search(word, str(problem))


def test_a_truncated_safetensors_file_is_refused(tmp_path: Path) -> None:
    model = tiny_classifier()
    model.save_pretrained(tmp_path)
    file = tmp_path / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UsageError, match="cannot be loaded"):
        load_model(str(tmp_path), "AutoModelForSequenceClassification", where="model.path")


def test_nan_weights_are_refused(tmp_path: Path) -> None:
    model = tiny_classifier()
    with torch.no_grad():
        model.classifier.bias[0] = float("nan")
    model.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"NaN or infinite weights \(classifier.bias\)"):
        load_model(str(tmp_path), "AutoModelForSequenceClassification", where="model.path")


def test_a_base_model_without_a_head_is_refused_as_fine_tuned(tmp_path: Path) -> None:
    tiny_classifier().bert.save_pretrained(tmp_path)
    with pytest.raises(UsageError, match=r"lacks weights: classifier.bias, classifier.weight"):
        load_model(str(tmp_path), "AutoModelForSequenceClassification", where="model.path")
