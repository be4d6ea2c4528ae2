"""An adapter alone is opened as its base with the adapter merged; a model card is kept, with a line for each request."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from conftest import Job
from expunge import GradientDifference, TrainingConfig, unlearn
from expunge.adapter_folder import base_of, is_adapter
from expunge.card import card
from expunge.errors import UsageError
from expunge.models import inspect_folder, load_config, load_model, load_tokenizer
from expunge.testing import byte_tokenizer, tiny_causal, tiny_tokenizer


def adapter_of(model: Any, folder: Path, base: Path, **settings: Any) -> Any:
    """A model with a LoRA adapter that changes it, saved as adapter alone."""
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(3)
    found = get_peft_model(model, LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **settings))
    found.peft_config["default"].base_model_name_or_path = str(base)
    found.save_pretrained(folder)
    return found.eval()


@pytest.fixture(scope="module")
def classifier(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    """An adapter with a head for three classes, on a base that has none; and the model peft makes of both."""
    folder = tmp_path_factory.mktemp("adapters") / "classifier"
    names = {"num_labels": 3}
    whole = load_model(str(job.base), "AutoModelForSequenceClassification", where="x", new_head=names)
    return folder, adapter_of(whole, folder, job.base, task_type="SEQ_CLS", modules_to_save=["classifier"])


INPUTS = {"input_ids": torch.tensor([[4, 9, 7, 5]]), "attention_mask": torch.ones(1, 4, dtype=torch.long)}


def test_a_classifier_has_its_base_its_updates_and_its_head(classifier: tuple[Path, Any]) -> None:
    folder, peft = classifier
    assert is_adapter(str(folder))
    assert inspect_folder(str(folder), where="x") == []
    config = load_config(str(folder), where="x")
    assert (config.num_labels, config.architectures) == (3, ["BertForSequenceClassification"])
    model = load_model(str(folder), "AutoModelForSequenceClassification", where="x").eval()
    assert type(model).__name__ == "BertForSequenceClassification"
    with torch.inference_mode():
        torch.testing.assert_close(model(**INPUTS).logits, peft(**INPUTS).logits, rtol=1e-4, atol=1e-5)
    assert load_tokenizer(str(folder), where="x").vocab_size == tiny_tokenizer().vocab_size, "its base's"


def test_a_language_model_has_its_own_tokenizer(tmp_path: Path) -> None:
    tiny_causal().save_pretrained(tmp_path / "base")
    model = load_model(str(tmp_path / "base"), "AutoModelForCausalLM", where="x")
    peft = adapter_of(model, tmp_path / "adapter", tmp_path / "base", task_type="CAUSAL_LM")
    byte_tokenizer().save_pretrained(tmp_path / "adapter")
    found = load_model(str(tmp_path / "adapter"), "AutoModelForCausalLM", where="x").eval()
    with torch.inference_mode():
        torch.testing.assert_close(found(**INPUTS).logits, peft(**INPUTS).logits, rtol=1e-4, atol=1e-5)
    assert len(load_tokenizer(str(tmp_path / "adapter"), where="x")) == 259


def test_records_are_erased_from_it_and_a_whole_model_is_written(
    classifier: tuple[Path, Any], job: Job, tmp_path: Path
) -> None:
    folder, _ = classifier

    def hashes() -> dict[str, str]:
        return {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in folder.iterdir()}

    before = hashes()
    (tmp_path / "out").mkdir()
    erased = unlearn(
        str(folder), str(job.train), GradientDifference(), forget=job.ids, held_out=str(job.held_out), id="id",
        labels=["water", "machine", "music"], training=TrainingConfig(epochs=1.0, min_steps=1), salt_file=str(job.salt),
    )  # fmt: skip
    erased.save(tmp_path / "out" / "erased")
    assert hashes() == before
    assert not is_adapter(str(tmp_path / "out" / "erased"))
    assert inspect_folder(str(tmp_path / "out" / "erased"), where="x") == []


def changed(**values: Any) -> Any:
    def change(folder: Path) -> None:
        file = folder / "adapter_config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **values}), encoding="utf-8")

    return change


def truncated(folder: Path) -> None:
    file = folder / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:200])


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (changed(base_model_name_or_path=None), ["does not name its base", "base_model_name_or_path"]),
        (changed(base_model_name_or_path="/no/such/base"), ['"/no/such/base" is no folder']),
        (changed(peft_type="LOHA"), ["of the kind LOHA", "merge_and_unload"]),
        (changed(task_type="SEQ_2_SEQ_LM"), ["for the task SEQ_2_SEQ_LM", "task_type"]),
        (lambda f: (f / "adapter_config.json").write_text("[]"), ["is no JSON of an adapter's settings"]),
        (lambda f: (f / "adapter_model.safetensors").unlink(), ["has no adapter_model.safetensors", "save_pretrained"]),
        (truncated, ["cannot be put on its base"]),
    ],
)
def test_what_cannot_be_merged_is_refused(
    classifier: tuple[Path, Any], tmp_path: Path, change: Any, words: list[str]
) -> None:
    import shutil

    folder = tmp_path / "adapter"
    shutil.copytree(classifier[0], folder)
    change(folder)
    found = inspect_folder(str(folder), where="model.path")
    if not found:
        with pytest.raises(UsageError) as caught:
            load_model(str(folder), "AutoModelForSequenceClassification", where="model.path")
        found = caught.value.problems
    text = "\n".join(map(str, found))
    assert all(word in text for word in words), text


def test_a_head_that_nobody_has_is_not_made_up(job: Job, tmp_path: Path) -> None:
    whole = load_model(str(job.base), "AutoModelForSequenceClassification", where="x", new_head={"num_labels": 3})
    adapter_of(whole, tmp_path / "adapter", job.base, task_type="FEATURE_EXTRACTION")
    changed(task_type="SEQ_CLS")(tmp_path / "adapter")
    with pytest.raises(UsageError, match=r"neither the adapter in .* nor its base has classifier.bias"):
        load_model(str(tmp_path / "adapter"), "AutoModelForSequenceClassification", where="x")


def test_a_base_that_is_an_adapter_is_refused(classifier: tuple[Path, Any], tmp_path: Path) -> None:
    tmp_path.joinpath("adapter_config.json").write_text(
        json.dumps({"base_model_name_or_path": str(classifier[0]), "peft_type": "LORA", "task_type": "SEQ_CLS"})
    )
    assert base_of(str(tmp_path)) == str(classifier[0])
    assert any("is an adapter itself" in str(one) for one in inspect_folder(str(tmp_path), where="x"))


# Model cards


def test_a_card_keeps_text_and_metadata() -> None:
    before = "---\nlicense: mit\ntags: [x]\n---\n\n# Mine\n\nIt says what it says.\n"
    once = card(before, ["- Request 1"], None)
    assert once == f"{before}\n## Records erased from this model\n\n- Request 1\n"
    assert card(once, ["- Request 1", "- Request 2"], None) == f"{once}- Request 2\n"


def test_lines_go_before_what_follows() -> None:
    before = "# Mine\n\n## Records erased from this model\n\n- Request 1\n\n## Licence\n\nMIT\n"
    wanted = "# Mine\n\n## Records erased from this model\n\n- Request 1\n- Request 2\n\n## Licence\n\nMIT\n"
    assert card(before, ["- Request 2"], None) == wanted


def test_a_new_card_names_a_hub_id_and_no_folder() -> None:
    assert card(None, ["- Request 1"], "me/mine").startswith("---\nbase_model: me/mine\n---\n")
    assert card(None, ["- Request 1"], None).startswith("# Model card\n")


def test_the_card_of_the_original_is_kept_and_names_every_request(job: Job, tmp_path: Path) -> None:
    import shutil

    shutil.copytree(job.model, tmp_path / "model")
    (tmp_path / "model" / "README.md").write_text("---\nlicense: mit\n---\n\n# Mine\n", encoding="utf-8")
    ids = job.ids.read_text(encoding="utf-8").split()
    first = unlearn(
        str(tmp_path / "model"), str(job.train), GradientDifference(), forget=ids[:4], held_out=str(job.held_out), id="id",
        training=TrainingConfig(epochs=1.0, min_steps=1), salt_file=str(job.salt),
    )  # fmt: skip
    second = first.forget_next(ids[4:8])
    second.save(tmp_path / "erased")
    text = (tmp_path / "erased" / "README.md").read_text(encoding="utf-8")
    assert text.startswith("---\nlicense: mit\n---\n\n# Mine\n\n## Records erased from this model\n\n- Request 1, 2")
    assert text.count("4 records, method gradient-difference") == 2
    assert not any(i in text for i in ids)
    assert str(tmp_path) not in text


# Tied weights


def test_tied_weights_are_written_once_and_stay_tied(tmp_path: Path) -> None:
    from safetensors import safe_open

    from expunge.testing import toy_answers

    model = tiny_causal()
    model.config.tie_word_embeddings = True
    model.tie_weights()
    model.save_pretrained(tmp_path / "tied")
    byte_tokenizer().save_pretrained(tmp_path / "tied")
    rows = toy_answers(40)
    erased = unlearn(
        str(tmp_path / "tied"), rows[:20], "npo", forget=[row["id"] for row in rows[:4]], held_out=rows[20:], id="id",
        training=TrainingConfig(epochs=1.0, min_steps=1),
    )  # fmt: skip
    erased.save(tmp_path / "erased")
    with safe_open(tmp_path / "erased" / "model.safetensors", framework="pt") as stored:
        assert "lm_head.weight" not in set(stored.keys())
    again = load_model(str(tmp_path / "erased"), "AutoModelForCausalLM", where="x")
    assert again.lm_head.weight is again.model.embed_tokens.weight
    assert torch.equal(again.lm_head.weight, erased.model.lm_head.weight)
