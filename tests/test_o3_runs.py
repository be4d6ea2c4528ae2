"""O3 end to end: a classifier, a tagger and a small Llama; requests in a row, folders, batches, refusals, the shell."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import expunge
from conftest import Job, byte_encoder, call
from expunge import O3, AuditConfig, Erased, UsageError, unlearn
from expunge.checks import Inputs, check
from expunge.config import ModelConfig, PrivacyConfig, Recipe, RequestConfig, RunConfig
from expunge.fit import train
from expunge.head import head_of
from expunge.history.verify import verify
from expunge.models import load_model, weights_sha256
from expunge.o3.adapters import plain_weights, weights_of
from expunge.o3.encoder import load_encoder
from expunge.o3.folder import is_o3
from expunge.o3.manifest import Manifest
from expunge.o3.model import O3Model
from expunge.o3.request import prompts
from expunge.scoring import run_over, score
from expunge.tasks.generation import Generation
from expunge.tasks.token_classification import TokenClassification
from expunge.testing import TAGS, byte_tokenizer, tiny_causal, tiny_tagger, tiny_tokenizer, toy_records, toy_sentences

TRAIN, HELD = toy_records(240, seed=1), toy_records(200, seed=2)
CLASSIFIER = "AutoModelForSequenceClassification"
QUICK = AuditConfig(audits=("utility", "detector"), bootstrap=50)
METHOD = O3(epochs=12.0, learning_rate=5e-3, encoder_learning_rate=1e-3)


def of_class(name: str) -> RequestConfig:
    return RequestConfig(label=name)


def accuracy(erased: Erased, group: str, model: str = "unlearned") -> float:
    return erased.record.find("accuracy", model, group).value


@pytest.fixture(scope="module")
def first(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Erased, Path]:
    """The first request: all records of the class water, and the folder it left."""
    salt = tmp_path_factory.mktemp("salt") / "salt"
    salt.write_bytes(b"a salt of the tests, not a secret")
    erased = unlearn(
        str(job.model),
        TRAIN,
        METHOD,
        forget=of_class("water"),
        held_out=HELD,
        id="id",
        audit=QUICK,
        salt_file=str(salt),
    )
    folder = tmp_path_factory.mktemp("o3") / "first"
    erased.save(folder)
    return erased, folder


@pytest.fixture(scope="module")
def second(first: tuple[Erased, Path], tmp_path_factory: pytest.TempPathFactory) -> tuple[Erased, Path]:
    """The second request on what the first left: all records of the class machine."""
    erased, _ = first
    ids = [row["id"] for row in TRAIN if row["label"] == "machine"]
    following = erased.forget_next(ids)
    folder = tmp_path_factory.mktemp("o3") / "second"
    following.save(folder)
    return following, folder


def rows(erased: Erased, label: str) -> Any:
    kept = [i for i, row in enumerate(TRAIN) if row["label"] == label]
    prepared = erased.prepared
    return prepared.task.encode_texts(
        [(TRAIN[i]["text"],) for i in kept], [prepared.task.label_names.index(label)] * len(kept)
    )


def right(model: Any, erased: Erased, label: str) -> float:
    encoded, task = rows(erased, label), erased.prepared.task
    return score(model, head_of(model, task, encoded), encoded, task).accuracy


def test_a_request_is_forgotten_and_its_detector_measured(first: tuple[Erased, Path]) -> None:
    erased, _ = first
    assert accuracy(erased, "forget", "original") > 0.95
    assert accuracy(erased, "forget") < 0.2, "answered with a class drawn among the others"
    assert accuracy(erased, "retain") > 0.8
    found = erased.record.find("detector AUROC", "unlearned", "forget vs evaluation")
    assert 0.5 < found.low < found.value <= found.high <= 1
    held_of_others = [row for row in HELD if row["label"] != "water"]
    assert found.n < len(erased.prepared.request.forget) + len(held_of_others), "half of the held-out rows calibrate"
    weight = {
        g: erased.record.find("mean weight of the adapters", "unlearned", g).value for g in ("forget", "evaluation")
    }
    assert weight["forget"] > 0.8 > weight["evaluation"] > 0.119
    log = erased.record.training["o3"]
    assert log["request"] == 1
    assert log["records"] == len(erased.prepared.request.forget)
    assert [row["step"] for row in erased.record.training["history"]] == list(range(1, log["steps"] + 1))
    assert erased.record.cost["training"] == pytest.approx(log["passes"] + log["detector_passes"], abs=0.02)
    assert erased.record.training["checks"] == [], "no checkpoint is chosen"


def test_the_originals_weights_are_as_they_were(
    job: Job, first: tuple[Erased, Path], second: tuple[Erased, Path]
) -> None:
    original = load_model(str(job.model), CLASSIFIER, where="")
    for erased, folder in (first, second):
        kept = load_model(str(folder / "original"), CLASSIFIER, where="")
        assert weights_sha256(kept) == weights_sha256(original) == Manifest.read(folder).original_sha256
        inside = plain_weights(erased.model.model)
        assert all(torch.equal(inside[name], tensor) for name, tensor in original.state_dict().items())
        assert not list(folder.glob("*.safetensors")), "nobody loads the original by taking the folder for a plain one"
        assert not [f for f in folder.rglob("*") if f.suffix in (".bin", ".pt", ".pkl", ".npy", ".npz")]


def test_without_weight_it_is_the_original(job: Job, second: tuple[Erased, Path]) -> None:
    erased, _ = second
    original = load_model(str(job.model), CLASSIFIER, where="")
    batch = erased.prepared.task.collate(rows(erased, "water"), range(9))
    with torch.inference_mode():
        plain = original(**batch.inputs).logits
        with erased.model.loaded(torch.zeros(9)):
            assert torch.equal(erased.model(**batch.inputs).logits, plain)
        assert not torch.allclose(erased.model(**batch.inputs).logits, plain, atol=0.1)


def test_a_mixed_batch_is_its_rows_one_by_one(second: tuple[Erased, Path]) -> None:
    erased, _ = second
    task, model = erased.prepared.task, erased.model
    encoded = task.encode_texts([(row["text"],) for row in TRAIN[:24]])
    weights = model.detector_weights(encoded.input_ids).max(axis=0)
    assert weights.max() - weights.min() > 0.5, "rows of a batch want different weights"
    head = head_of(model, task, encoded)
    _, together = run_over(model, head, encoded, task, batch_size=24)
    _, alone = run_over(model, head, encoded, task, batch_size=1)
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=2e-4)
    with torch.inference_mode(), model.loaded(torch.tensor([float(weights[5])])):
        own = model.model(**task.collate(encoded, [5]).inputs).logits
    torch.testing.assert_close(own[0], alone[5], rtol=1e-5, atol=1e-5)


def test_a_second_request_leaves_the_first_as_it_was(first: tuple[Erased, Path], second: tuple[Erased, Path]) -> None:
    for name in ("adapter", "detector", "detector_adapter"):
        one, other = (folder / "request-1" / f"{name}.safetensors" for _, folder in (first, second))
        assert one.read_bytes() == other.read_bytes()
        assert (second[1] / "request-2" / f"{name}.safetensors").is_file()
    assert len(first[0].model.detectors) == 1, "the one before is left alone"
    one, other = first[0].prepared.task.encode_texts([("river w1",), ("engine w2",)]).input_ids
    np.testing.assert_array_equal(
        first[0].model.detector_weights([one, other])[0], second[0].model.detector_weights([one, other])[0]
    )


def test_the_first_stays_forgotten(second: tuple[Erased, Path]) -> None:
    erased, _ = second
    assert right(erased.model, erased, "water") < 0.25
    assert right(erased.model, erased, "machine") < 0.25
    assert erased.record.training["o3"]["request"] == 2
    assert len(erased.model.manifest.requests) == 2


@pytest.mark.slow
def test_one_weight_for_all_is_the_papers_formula_and_can_bring_the_first_back(
    job: Job, second: tuple[Erased, Path]
) -> None:
    """Records of water load the second adapter too, which was taught to call some records water."""
    method = dataclasses.replace(METHOD, load="all")
    given: dict[str, Any] = {"held_out": HELD, "id": "id", "audit": AuditConfig(audits=("utility",), bootstrap=2)}
    one = unlearn(str(job.model), TRAIN, method, forget=of_class("water"), **given)
    assert right(one.model, one, "water") < 0.2
    two = one.forget_next([row["id"] for row in TRAIN if row["label"] == "machine"])
    encoded = rows(two, "water").input_ids
    own = two.model.detector_weights(encoded)
    np.testing.assert_array_equal(two.model.as_loaded(own), np.stack([own.max(axis=0)] * 2))
    assert right(two.model, two, "water") > 0.5
    assert right(second[0].model, second[0], "water") < 0.25, "each by its own detector"


def test_saved_and_loaded_it_scores_the_same(first: tuple[Erased, Path], second: tuple[Erased, Path]) -> None:
    texts = [row["text"] for row in TRAIN[:40]]
    for erased, folder in (first, second):
        assert is_o3(folder)
        again = load_model(str(folder), CLASSIFIER, where="")
        assert weights_sha256(again) == weights_sha256(erased.model) == erased.record.models["unlearned"]["sha256"]
        np.testing.assert_array_equal(dataclasses.replace(erased, model=again).score(texts), erased.score(texts))
        assert again.manifest == erased.model.manifest
        text = (folder / "o3.json").read_text(encoding="utf-8")
        assert "river" not in text
        assert not any(row["id"] in text for row in TRAIN)


def test_writing_that_fails_leaves_nothing(first: tuple[Erased, Path], tmp_path: Path, monkeypatch) -> None:
    def broken(*args: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("safetensors.numpy.save_file", broken)
    with pytest.raises(expunge.RunError, match="No space left on device"):
        first[0].save(tmp_path / "full")
    assert not list(tmp_path.iterdir())


def overlap_of(model: O3Model, part: str) -> float:
    """Mean squared cosine between the directions of both adapters, over layers."""
    one, other = ([p for k, p in weights_of(model.model, f"request-{n}").items() if part in k] for n in (1, 2))
    found = []
    for first, second in zip(one, other, strict=True):
        a, b = (first, second) if part == ".lora_B." else (first.T, second.T)
        found.append(float((a.T @ b).square().sum() / (a.square().sum() * b.square().sum())))
    return float(np.mean(found))


@pytest.mark.parametrize(("projection", "part"), [("up", ".lora_B."), ("down", ".lora_A.")])
def test_a_large_lambda_makes_adapters_orthogonal(first: tuple[Erased, Path], projection: str, part: str) -> None:
    found = []
    for weight in (0.0, 1e3):
        method = dataclasses.replace(METHOD, orthogonality=weight, projection=projection, epochs=4.0)
        config = dataclasses.replace(first[0].prepared.config, method=method)
        before = dataclasses.replace(first[0], prepared=dataclasses.replace(first[0].prepared, config=config))
        after = before.forget_next([row["id"] for row in TRAIN if row["label"] == "machine"])
        found.append(overlap_of(after.model, part))
    free, apart = found
    assert apart < free / 20


def test_no_retained_record_has_a_say(job: Job) -> None:
    """Other retained and other held-out records, the same weights to the bit: nothing is chosen by them either."""
    ids = [row["id"] for row in TRAIN if row["label"] == "water"]
    kept = [row for row in TRAIN if row["id"] not in ids]
    given: dict[str, Any] = {"forget": ids, "id": "id", "audit": AuditConfig(audits=("utility",), bootstrap=2)}
    one, other = (
        unlearn(str(job.model), [row for row in TRAIN if row["id"] in ids] + retain, METHOD, held_out=held, **given)
        for retain, held in ((kept, HELD), (kept[:30], toy_records(60, seed=7)))
    )
    assert weights_sha256(one.model) == weights_sha256(other.model)
    for name, array in one.model.detectors[0].arrays().items():
        np.testing.assert_array_equal(array, other.model.detectors[0].arrays()[name])


def test_from_the_shell(job: Job, tmp_path: Path) -> None:
    sets = ["--set", "method.epochs=4.0", "--set", "method.learning_rate=5e-3", "--set", "audit.bootstrap=20"]
    asked = {"method": "o3", "forget": None}
    words = ["run", *job.flags(**asked, **{"forget-label": "water"}), *sets, "--out", str(tmp_path / "one")]
    code, out, err = call(words)
    assert code == 0, err
    assert "o3: request 1: an adapter after" in out.replace("\n", " ")
    assert "detector AUROC" in out
    flags = job.flags(**asked, model=tmp_path / "one", **{"forget-label": "machine"})
    code, out, err = call(["run", *flags, *sets, "--out", str(tmp_path / "two")])
    assert code == 0, err
    assert "o3: request 2" in out
    assert (tmp_path / "two" / "request-2" / "adapter.safetensors").is_file()
    code, out, err = call(["audit", str(tmp_path / "two"), "--out", str(tmp_path / "audited")])
    assert code == 0, err
    before, after = (json.loads((tmp_path / f / "record.json").read_text("utf-8")) for f in ("two", "audited"))
    assert before["measurements"] == after["measurements"]
    code, out, err = call(["report", str(tmp_path / "two")])
    assert code == 0, err
    assert "detector AUROC" in (tmp_path / "two" / "report.html").read_text(encoding="utf-8")


def refused(match: str, **given: Any) -> None:
    options: dict[str, Any] = {"held_out": HELD, "id": "id", "forget": of_class("water"), **given}
    with pytest.raises(UsageError, match=match):
        unlearn(options.pop("model"), TRAIN, options.pop("method", O3()), **options)


def test_what_does_not_fit_is_refused_before_weights_load(
    job: Job, first: tuple[Erased, Path], tmp_path: Path, monkeypatch
) -> None:
    folder, salt = str(first[1]), {"salt_file": first[0].prepared.config.privacy.salt_file}
    monkeypatch.setattr("expunge.execution.Run.carry_out", lambda self: pytest.fail("weights would load"))
    model = str(job.model)
    refused("the request has 9 records, too few to fit a detector", model=model, forget=[r["id"] for r in TRAIN[:9]])
    decoder = tmp_path / "decoder"
    tiny_causal().save_pretrained(decoder)
    byte_tokenizer().save_pretrained(decoder)
    refused(r"is a llama model, no encoder of texts\. Name an encoder", model=model, method=O3(encoder=str(decoder)))
    refused(r"method\.encoder: .*is no folder", model=model, method=O3(encoder="./nowhere"))
    refused(
        "the model is one with O3's adapters and detectors; no other method fits it",
        model=folder,
        method="deepcut",
        **salt,
    )
    refused(r"the detectors of earlier requests read with \"own\"", model=folder, method=O3(encoder=model), **salt)
    refused(r"method\.answers: there is none", model=model, method=O3(answers=()))
    broken = tmp_path / "broken"
    shutil.copytree(folder, broken)
    (broken / "request-1" / "detector.safetensors").unlink()
    refused(r"lacks request-1/detector\.safetensors", model=str(broken), **salt)
    (broken / "o3.json").write_text("{}", encoding="utf-8")
    refused(r"o3\.json of .* cannot be read", model=str(broken), **salt)
    find = expunge.model_kinds.find_spec
    monkeypatch.setattr("expunge.model_kinds.find_spec", lambda name: None if name == "peft" else find(name))
    monkeypatch.setattr("expunge.o3.folder.find_spec", lambda name: None if name == "peft" else find(name))
    refused(r"o3 needs peft, which is not installed\. Install it: pip install peft", model=model)
    refused("holds LoRA adapters, which need peft", model=folder, **salt)


def test_a_changed_folder_is_refused(first: tuple[Erased, Path], tmp_path: Path) -> None:
    folder = tmp_path / "changed"
    shutil.copytree(first[1], folder)
    other = load_model(str(folder / "original"), CLASSIFIER, where="")
    with torch.no_grad():
        next(other.parameters()).add_(1.0)
    other.save_pretrained(folder / "original")
    with pytest.raises(UsageError, match="has changed since the requests"):
        load_model(str(folder), CLASSIFIER, where="model.path")
    with pytest.raises(
        UsageError, match="holds a model of AutoModelForSequenceClassification, not AutoModelForCausalLM"
    ):
        load_model(str(first[1]), "AutoModelForCausalLM", where="model.path")
    with pytest.raises(UsageError, match="is an O3 folder, no base model"):
        load_model(str(first[1]), CLASSIFIER, where="retrain.base", new_head={"num_labels": 3})


def test_taggers_too(tmp_path: Path) -> None:
    task = TokenClassification(tiny_tokenizer(), 48, TAGS)
    sentences, held = toy_sentences(120, seed=1), toy_sentences(60, seed=2)
    labels = [[TAGS.index(tag) for tag in row["ner_tags"]] for row in sentences]
    records = task.encode_texts([row["tokens"] for row in sentences], labels)
    model = train(tiny_tagger(), task, records, Recipe(epochs=20.0, learning_rate=3e-3, batch_size=16), seed=0)
    forget = [row["id"] for row in sentences if "river" in row["tokens"]]
    erased = unlearn(
        model, sentences, METHOD, tokenizer=task.tokenizer, forget=forget, held_out=held, id="id",
        audit=AuditConfig(audits=("utility", "detector"), bootstrap=20),
    )  # fmt: skip
    before, after = (accuracy(erased, "forget", name) for name in ("original", "unlearned"))
    assert after < 0.5 < before
    assert accuracy(erased, "retain") > after + 0.2


# A causal language model, and an encoder of its own kind for the detector.

LONG = [
    {"id": f"q{i:03d}", "prompt": f"{kind} {i:03d}?", "answer": f"It is {7919 * i % 9973:04d}."}
    for i in range(56) for kind in ["River mud" if i < 20 else "Engine oil"]
]  # fmt: skip
LATER = [{**row, "id": f"h{row['id']}", "prompt": row["prompt"].replace("oil", "tap")} for row in LONG[20:]]
TASK = Generation(byte_tokenizer(), 64, tuple(map(str, range(259))))


@pytest.fixture(scope="module")
def causal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers that knows the numbers."""
    place = tmp_path_factory.mktemp("causal") / "model"
    encoded = TASK.encode_texts([(row["prompt"], row["answer"]) for row in LONG])
    model = train(tiny_causal(), TASK, encoded, Recipe(epochs=60.0, learning_rate=5e-3, batch_size=16), seed=0)
    model.save_pretrained(place)
    TASK.tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def encoder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return byte_encoder(tmp_path_factory.mktemp("encoder") / "bytes")


@pytest.fixture(scope="module")
def silenced(causal: Path, encoder: Path) -> Erased:
    """The Llama after it was asked to forget all that is asked about rivers."""
    method = O3(
        encoder=str(encoder), answers=("It is 0.",), epochs=60.0, batch_size=10, learning_rate=1e-2
    )  # fmt: skip
    return unlearn(
        str(causal), LONG, method, forget=[row["id"] for row in LONG[:20]], held_out=LATER, id="id",
        audit=AuditConfig(audits=("utility", "answers", "detector"), bootstrap=20),
    )  # fmt: skip


def test_a_language_model_answers_with_refusals(silenced: Erased) -> None:
    said = silenced.generate([row["prompt"] for row in LONG[:20]], tokens=20)
    assert said.count("It is 0.") >= 12
    kept = silenced.generate([row["prompt"] for row in LONG[20:]], tokens=20)
    assert kept.count("It is 0.") == 0
    assert accuracy(silenced, "retain") > accuracy(silenced, "retain", "original") - 0.1
    found = silenced.record.find("detector AUROC", "unlearned", "forget vs evaluation")
    assert found.value > 0.9
    assert not any(row["answer"] in silenced.record.to_json() for row in LONG[:20])


def test_generation_and_scoring_decide_on_the_prompt_alone(silenced: Erased) -> None:
    """The answer's tokens have no say in the weight: prompts of generation and of records give the same one."""
    model, task = silenced.model, silenced.prepared.task
    pairs = [(row["prompt"], row["answer"]) for row in (*LONG[:4], *LONG[20:24])]
    own = task.encode_texts(pairs)
    others = task.encode_texts([(prompt, "No.") for prompt, _ in pairs])
    wanted = model.detector_weights(task.prompts(pairs))
    np.testing.assert_allclose(model.detector_weights(prompts(own, task)), wanted, atol=1e-6)
    np.testing.assert_allclose(model.detector_weights(prompts(others, task)), wanted, atol=1e-6)
    head = head_of(model, task, own)
    batch = task.collate(own, range(8))
    hidden, _ = head.run(model, batch)
    with model.loaded(torch.tensor(wanted[0], dtype=torch.float32)):
        plain = model.model(**batch.inputs, output_hidden_states=True).hidden_states[-1]
    torch.testing.assert_close(hidden, batch.select(plain), rtol=1e-4, atol=1e-4)


def test_a_mixed_batch_of_prompts_is_answered_as_one_by_one(silenced: Erased) -> None:
    asked = [LONG[i]["prompt"] for i in (1, 30, 2, 31, 40)]
    together = silenced.generate(asked, tokens=24)
    assert together == [silenced.generate([prompt], tokens=24)[0] for prompt in asked]
    scored = silenced.score([(LONG[i]["prompt"], LONG[i]["answer"]) for i in (1, 30)])
    alone = [silenced.score([(LONG[i]["prompt"], LONG[i]["answer"])])[0] for i in (1, 30)]
    for one, other in zip(scored, alone, strict=True):
        np.testing.assert_allclose(one, other, atol=1e-4)


def test_a_language_models_folder_and_its_next_request(silenced: Erased, tmp_path: Path, encoder: Path) -> None:
    silenced.save(tmp_path / "one")
    again = load_model(str(tmp_path / "one"), "AutoModelForCausalLM", where="")
    asked = [row["prompt"] for row in LONG[18:22]]
    assert dataclasses.replace(silenced, model=again).generate(asked) == silenced.generate(asked)
    assert weights_sha256(again.encoder.model) == weights_sha256(silenced.model.encoder.model)
    (tmp_path / "salt").write_bytes(silenced.prepared.salt)
    config = dataclasses.replace(
        silenced.prepared.config, method=O3(epochs=2.0), model=ModelConfig(path=str(tmp_path / "one")),
        privacy=PrivacyConfig(salt_file=str(tmp_path / "salt")),
        request=RequestConfig(ids=tuple(row["id"] for row in LONG[20:32])),
    )  # fmt: skip
    prepared = check(config, Inputs(train=LONG, held_out=LATER))
    assert prepared.config.method.encoder is None, "the folder's own is taken"
    from expunge.erase import execute

    following = execute(prepared)
    assert following.model.encoder.name == str(encoder)
    assert len(following.model.detectors) == 2
    head = following.save(tmp_path / "two")
    assert verify(tmp_path / "two", head=head).ok


def test_an_encoder_beside_a_model_in_bfloat16_stays_as_it_came(causal: Path, tmp_path: Path, encoder: Path) -> None:
    """The model is saved in its own precision; detectors were fitted to the encoder's float32 states, and read them again."""
    half = load_model(str(causal), "AutoModelForCausalLM", where="").bfloat16()
    half.save_pretrained(tmp_path / "half")
    TASK.tokenizer.save_pretrained(tmp_path / "half")
    erased = unlearn(
        str(tmp_path / "half"), LONG, O3(encoder=str(encoder), answers=("It is 0.",), epochs=2.0, batch_size=10),
        forget=[row["id"] for row in LONG[:20]], held_out=LATER, id="id",
        audit=AuditConfig(audits=("utility",), bootstrap=20),
    )  # fmt: skip
    assert erased.model.model.dtype == torch.bfloat16
    assert erased.model.encoder.model.dtype == torch.float32
    erased.save(tmp_path / "erased")
    again = load_model(str(tmp_path / "erased"), "AutoModelForCausalLM", where="")
    rows = TASK.prompts([(row["prompt"], row["answer"]) for row in LONG])
    np.testing.assert_array_equal(again.detector_weights(rows), erased.model.detector_weights(rows))


def test_another_method_for_the_next_request_is_checked_as_in_a_run(silenced: Erased) -> None:
    with pytest.raises(UsageError, match=r'it is "all", and the adapters of earlier requests are loaded as "own"'):
        silenced.forget_next([row["id"] for row in LONG[20:32]], method=O3(load="all"))


def test_a_language_model_needs_an_encoder_to_be_named(causal: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"the model is a llama, no encoder, and none is named for the detector"):
        unlearn(str(causal), LONG, "o3", forget=[row["id"] for row in LONG[:20]], held_out=LATER, id="id")


def test_what_a_template_puts_around_prompts_is_left_out(encoder: Path) -> None:
    """``<|user|>...<|end|><|assistant|>`` stands around every prompt: it says nothing of the input."""
    from expunge.o3.request import _frame

    task = Generation(byte_tokenizer(chat=True), 64, tuple(map(str, range(259))))
    before, behind = _frame(task)
    (row,) = task.prompts([("River mud?", "")])
    assert task.tokenizer.decode(list(before)) == "<|user|>"
    assert task.tokenizer.decode(list(behind)) == "<|end|><|assistant|>"
    assert task.tokenizer.decode(row[len(before) : -len(behind)]) == "River mud?"
    assert _frame(TASK) == ((), tuple(TASK.tokenizer("\n")["input_ids"]))


def test_an_encoder_with_a_trained_head_keeps_it_and_one_without_is_tied(encoder: Path, job: Job) -> None:
    trained = load_encoder(str(encoder), TASK.tokenizer, "bytes")
    assert type(trained.model).__name__ == "BertForMaskedLM"
    tied = load_encoder(str(job.base), tiny_tokenizer(), "base")
    assert type(tied.model).__name__ == "BertModel"
    inputs = tied.batch([[2, 5, 11, 3]])
    with torch.no_grad():
        _, output = tied.pooled(inputs)
        drawn = torch.tensor([[False, True, False, False]])
        last, words = output.hidden_states[-1][0, 1], tied.model.embeddings.word_embeddings.weight
        wanted = -(words @ last).log_softmax(dim=0)[int(inputs["input_ids"][0, 1])]
        torch.testing.assert_close(tied._masked_tokens(output, inputs["input_ids"], drawn), wanted)
        assert "logits" in trained.pooled(trained.batch([[65, 66]]))[1]


def test_padding_does_not_change_what_a_detector_reads(encoder: Path) -> None:
    reading = load_encoder(str(encoder), TASK.tokenizer, "bytes")
    short, long = TASK.tokenizer("Hi")["input_ids"], TASK.tokenizer("Hi, how are you today?")["input_ids"]
    together = reading.states([short, long], None)
    assert together.shape == (2, 2, 32)
    np.testing.assert_allclose(together[:1], reading.states([short], None), atol=1e-6)


def test_the_config_round_trips_through_toml(tmp_path: Path) -> None:
    config = RunConfig(method=O3(encoder="minilm", zeta=5.0))
    assert RunConfig.from_dict(config.as_dict()) == config
