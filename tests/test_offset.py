"""Offset unlearning: l = l_M + alpha (l_tuned - l_small), with M and the small model left as they are."""

from __future__ import annotations

import copy
import dataclasses
import json
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from typer.testing import CliRunner

import expunge
from conftest import Job
from expunge import AuditConfig, BlackBox, Erased, Offset, RequestConfig, UsageError
from expunge.cli import app
from expunge.config import DataConfig, ModelConfig, Recipe, RunConfig, TrainingConfig
from expunge.errors import RunError
from expunge.fit import arguments, train
from expunge.generating import generate
from expunge.head import head_of
from expunge.history.verify import verify
from expunge.models import load_model, weights_sha256
from expunge.offset.ensemble import OffsetModel, with_offset
from expunge.offset.folder import load_offset
from expunge.offset.heads import combined
from expunge.offset.kept import Kept
from expunge.offset.small import default_layers, first_layers, weight_of
from expunge.scoring import run_over, score
from expunge.tasks.base import Batch, Encoded
from expunge.tasks.generation import Generation
from expunge.tasks.text_classification import TextClassification
from expunge.testing import (
    FAMILIES,
    byte_tokenizer,
    check_method,
    tiny_causal,
    tiny_classifier,
    tiny_tagger,
    tiny_tokenizer,
    toy_answers,
    toy_records,
    toy_sentences,
)
from expunge.tiny_jobs import answer_job, tag_job, text_job
from expunge.trainer import UnlearnTrainer

ROWS = toy_answers(48)
HELD = [
    {**row, "id": f"h-{row['id']}", "prompt": row["prompt"].replace("Code", "Kode")} for row in toy_answers(40, seed=9)
]
FORGET = [row["id"] for row in ROWS[:8]]
WRITING = Generation(byte_tokenizer(), 64, tuple(map(str, range(259))))
NAMES = ("water", "machine", "music")
CLASSES = TextClassification(tiny_tokenizer(), 48, NAMES)
CAUSAL, CLASSIFIER = "AutoModelForCausalLM", "AutoModelForSequenceClassification"
QUICK: dict[str, Any] = {
    "training": TrainingConfig(epochs=6.0, min_steps=12, batch_size=4, learning_rate=2e-3),
    "audit": AuditConfig(audits=("utility", "membership"), bootstrap=20),
}


def answers(rows: list[dict[str, str]]) -> Encoded:
    return WRITING.encode_texts([(row["prompt"], row["answer"]) for row in rows])


def texts(rows: list[dict[str, str]]) -> Encoded:
    return CLASSES.encode_texts([(row["text"],) for row in rows], [NAMES.index(row["label"]) for row in rows])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers that knows the codes."""
    place = tmp_path_factory.mktemp("offset") / "model"
    recipe = Recipe(epochs=60.0, learning_rate=5e-3, batch_size=16)
    train(tiny_causal(), WRITING, answers(ROWS), recipe, seed=0).save_pretrained(place)
    WRITING.tokenizer.save_pretrained(place)
    return place


def made(large: Any, auto_class: str = CAUSAL, alpha: float = 1.0, layers: int | None = 1) -> OffsetModel:
    return with_offset(large, alpha=alpha, small=None, layers=layers, copied=False, auto_class=auto_class)


def moved(model: OffsetModel, by: float = 0.05) -> OffsetModel:
    """The ensemble after its trained copy has gone somewhere else."""
    noise = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for parameter in model.tuned.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=noise), alpha=by)
    return model


def small_of(model: Any, place: Path, layers: int = 1) -> Path:
    first_layers(model, layers).save_pretrained(place)
    return place


def by_hand(model: OffsetModel, **inputs: Any) -> torch.Tensor:
    """The formula, from three models that run one by one."""
    with torch.no_grad():
        large, small, tuned = (part(**inputs).logits for part in (model.large, model.small, model.tuned))
    return large + model.alpha * (tuned - small)


def test_the_formula_by_hand() -> None:
    """l_M = (1, 2), l_tuned - l_small = (3, 1) - (1, 4) = (2, -3); alpha 0.5 gives (1 + 1, 2 - 1.5)."""
    found = combined(*(torch.tensor([row]) for row in ([1.0, 2.0], [1.0, 4.0], [3.0, 1.0])), 0.5)
    assert found.tolist() == [[2.0, 0.5]]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_new_offset_is_zero_for_writers(family: str) -> None:
    large = tiny_causal(family, seed=1)
    encoded, model = answers(ROWS[:6]), made(copy.deepcopy(large))
    own, both = (score(m, head_of(m, WRITING, encoded), encoded, WRITING) for m in (large, model))
    assert np.abs(own.losses - both.losses).max() <= 1e-6
    assert np.abs(own.margins - both.margins).max() <= 1e-6
    batch = WRITING.collate(encoded, range(6))
    with torch.no_grad():
        assert torch.equal(model(**batch.inputs).logits, large.eval()(**batch.inputs).logits), "to the bit"


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_a_new_offset_is_zero_for_classifiers_and_taggers_of_every_family(family: str) -> None:
    from expunge.tasks.token_classification import TokenClassification
    from expunge.testing import TAGS

    rows = toy_sentences(6, seed=2)
    tagging = TokenClassification(tiny_tokenizer(), 48, TAGS)
    tags = tagging.encode_texts(
        [row["tokens"] for row in rows], [[TAGS.index(t) for t in row["ner_tags"]] for row in rows]
    )
    for large, auto_class, task, encoded in (
        (tiny_classifier(family), CLASSIFIER, CLASSES, texts(toy_records(6))),
        (tiny_tagger(family), "AutoModelForTokenClassification", tagging, tags),
    ):
        model = made(copy.deepcopy(large), auto_class)
        assert model.small.config.num_hidden_layers == 1
        assert weight_of(model.small) < weight_of(model.large)
        own, both = (score(m, head_of(m, task, encoded), encoded, task) for m in (large, model))
        assert np.abs(own.margins - both.margins).max() <= 1e-6
        changed = score(moved(model), head_of(model, task, encoded), encoded, task)
        assert np.abs(own.margins - changed.margins).max() > 1e-3, "the trained copy is listened to"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_a_copy_of_the_first_layers_ends_where_they_end(family: str) -> None:
    """Of three layers two: the states behind the second, through the model's own last norm and head."""
    large = tiny_causal(family, layers=3, seed=2).eval()
    small = first_layers(large, 2)
    ids = torch.tensor([[5, 9, 200, 31, 7]])
    with torch.no_grad():
        deep = large(ids, output_hidden_states=True)
        norm = large.model.norm if family == "llama" else large.transformer.ln_f
        expected = large.lm_head(norm(deep.hidden_states[2]))
        assert torch.allclose(small(ids).logits, expected, atol=1e-6)
    assert small.config.num_hidden_layers == 2
    assert [default_layers(n) for n in (2, 6, 12, 30)] == [1, 1, 2, 6]


def test_the_formula_is_what_is_scored_and_what_a_forward_pass_gives() -> None:
    model = moved(made(tiny_causal(seed=4), alpha=0.7))
    encoded = answers(ROWS[:5])
    batch = WRITING.collate(encoded, range(5))
    wanted = by_hand(model, **batch.inputs)
    with torch.no_grad():
        assert torch.allclose(model(**batch.inputs).logits, wanted, atol=1e-6)
    logp = batch.select(wanted).log_softmax(-1).gather(1, batch.labels[:, None]).squeeze(1)
    found = score(model, head_of(model, WRITING, encoded), encoded, WRITING)
    assert np.allclose(-found.losses, logp.numpy(), atol=1e-5)
    classifier = moved(made(tiny_classifier(), CLASSIFIER, alpha=2.0))
    records = texts(toy_records(5))
    head = head_of(classifier, CLASSES, records)
    hidden, logits = run_over(classifier, head, records, CLASSES)
    inputs = CLASSES.collate(records, range(5)).inputs
    assert torch.allclose(logits, by_hand(classifier, **inputs), atol=1e-5)
    assert hidden.shape == (5, 3 * 32), "states of the three models side by side"


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_writing_is_the_formula_token_by_token(family: str) -> None:
    """Prompts of different lengths in one padded batch, against one prompt at a time, read anew for every token."""
    model = moved(made(tiny_causal(family, seed=5), alpha=1.5), by=0.3)
    prompts = [("Code 1?",), ("What is the code of number 12?",), ("C",)]
    asked = [(prompt, "") for (prompt,) in prompts]
    expected = []
    for ids in WRITING.prompts(asked):
        written: list[int] = []
        while len(written) < 12:
            logits = by_hand(model, input_ids=torch.tensor([[*ids, *written]]))[0, -1]
            written.append(int(logits.argmax()))
            if written[-1] == WRITING.end:
                written.pop()
                break
        expected.append(WRITING.tokenizer.decode(written, skip_special_tokens=True).strip())
    assert generate(model, WRITING, asked, tokens=12) == expected
    plain = generate(model.large, WRITING, asked, tokens=12)
    assert plain != expected, "the offset says something"


def test_temperature_is_of_the_ensemble() -> None:
    """Draws at temperature 2 follow softmax(l / 2), not softmax(l_M / 2 + offset): 400 draws of one token, by chi square."""
    from scipy.stats import chisquare

    model = moved(made(tiny_causal(seed=6), alpha=3.0), by=0.4)
    ids = WRITING.prompts([("Code 3?", "")])[0]
    wanted = (by_hand(model, input_ids=torch.tensor([ids]))[0, -1].double() / 2.0).softmax(-1).numpy()
    from transformers import GenerationConfig, set_seed

    set_seed(0)
    settings = GenerationConfig(
        max_new_tokens=1, do_sample=True, temperature=2.0, top_k=0, pad_token_id=256, eos_token_id=256
    )
    rows = torch.tensor([ids] * 400)
    drawn = model.generate(input_ids=rows, attention_mask=torch.ones_like(rows), generation_config=settings)[:, -1]
    counts = np.bincount(drawn.numpy(), minlength=259).astype(float)
    order = np.argsort(-wanted)
    groups = np.array_split(order, 8)
    found, expected = ([float(v[g].sum()) for g in groups] for v in (counts, wanted * 400))
    assert chisquare(found, expected).pvalue > 1e-3


def test_alpha_zero_is_the_large_model() -> None:
    model = moved(made(tiny_causal(seed=7), alpha=0.0), by=0.5)
    encoded, asked = answers(ROWS[:4]), [("Code 000?", ""), ("Code 017?", "")]
    own, both = (score(m, head_of(m, WRITING, encoded), encoded, WRITING) for m in (model.large, model))
    assert np.array_equal(own.losses, both.losses)
    assert generate(model, WRITING, asked, tokens=8) == generate(model.large, WRITING, asked, tokens=8)


SETTINGS = [
    Offset(layers=1, retain="none"), Offset(layers=1), Offset(layers=1, retain="kl"), Offset(layers=1, objective="relabel"),
    Offset(layers=1, objective="npo"), Offset(layers=1, objective="npo", retain="kl"),
]  # fmt: skip

OFFSET = SETTINGS[1]


def named(method: Any) -> str:
    return f"{method.objective}-{method.retain}"


@pytest.mark.parametrize("method", SETTINGS, ids=named)
@pytest.mark.parametrize("job", [answer_job, text_job, tag_job], ids=lambda job: job.__name__)
def test_gradients_reach_the_trained_copy_alone(method: Offset, job: Any, tmp_path: Path) -> None:
    from expunge.preparation import Preparation

    own = job()
    model = method.equipped(own.model(0), own.task)
    frozen = {name: weights_sha256(getattr(model, name)) for name in ("large", "small")}
    args = arguments(str(tmp_path), 0, TrainingConfig(learning_rate=1e-3), per_device_train_batch_size=4, max_steps=3)
    given = Preparation(
        reanswered=lambda said: own.task.encode_texts([(t[0], a) for t, a in zip(own.texts, said, strict=True)])
    )
    with model.remembering():
        trainer = UnlearnTrainer(
            model, args, method=method, task=own.task, forget=own.forget, retain=own.retain, given=given
        )
        parts = trainer.train_dataset[0]
        trainer._step_loss([parts], [trainer._forward(model, parts)]).backward()
        assert all(p.grad is None for part in (model.large, model.small) for p in part.parameters())
        assert any(bool(p.grad.any()) for p in model.tuned.parameters() if p.grad is not None)
        model.zero_grad()
        trainer.train()
    assert {name: weights_sha256(getattr(model, name)) for name in frozen} == frozen
    assert weights_sha256(model.tuned) != frozen["small"]


def test_micro_batches_are_the_same_step(tmp_path: Path) -> None:
    """Cut into four micro-batches, under SGD and in float64: the trained copy comes out the same."""
    job = answer_job()
    trained = []
    for accumulation in (1, 4):
        model = OFFSET.equipped(job.model(0), job.task)
        args = arguments(
            str(tmp_path), 5, TrainingConfig(learning_rate=0.05), per_device_train_batch_size=4 // accumulation,
            gradient_accumulation_steps=accumulation, max_steps=3,
        )  # fmt: skip
        args.optim = "sgd"
        with model.remembering():
            UnlearnTrainer(model, args, method=OFFSET, task=job.task, forget=job.forget, retain=job.retain).train()
        trained.append(model.tuned.state_dict())
    assert all(torch.allclose(trained[0][name], trained[1][name], rtol=1e-8, atol=1e-11) for name in trained[0])


def test_bfloat16_arithmetic_runs_the_trained_copy_alone_in_it(folder: Path) -> None:
    quick = TrainingConfig(epochs=1.0, min_steps=3, batch_size=4, learning_rate=1e-4)
    first = [
        run(str(folder), Offset(layers=1), training=dataclasses.replace(quick, precision=precision)).record.training
        for precision in ("float32", "bfloat16")
    ]
    (exact, rough) = (training["history"][0]["retain"] for training in first)
    assert rough == pytest.approx(exact, rel=0.1)
    assert rough != exact


@pytest.mark.parametrize("method", SETTINGS[3:5], ids=named)
def test_losses_other_than_the_default_conform(method: Offset) -> None:
    check_method(method, tasks=[answer_job(), *([text_job()] if method.objective == "relabel" else [])])


def test_what_frozen_models_say_of_a_record_is_made_once(folder: Path) -> None:
    model = moved(made(load_model(str(folder), CAUSAL, where="x")))
    encoded = answers(ROWS[:12])
    head = head_of(model, WRITING, encoded)
    plain = score(model, head, encoded, WRITING, batch_size=5)
    ran: list[int] = []
    model.large.register_forward_hook(
        lambda _, args, kwargs, out: ran.append(len(kwargs["input_ids"])), with_kwargs=True
    )
    with model.remembering():
        for size in (5, 12, 1):
            kept = score(model, head, encoded, WRITING, batch_size=size)
            assert np.allclose(kept.losses, plain.losses, atol=1e-5)
    assert sum(ran) == 12
    assert model.spent == pytest.approx(12 * (1 + model.share) / 3)
    score(model, head, encoded, WRITING)
    assert sum(ran) == 24, "kept no longer than asked for"


def test_kept_rows_are_told_apart_by_tokens_and_units() -> None:
    def batch(ids: list[list[int]], columns: list[int]) -> Batch:
        whole = torch.tensor(ids)
        many = torch.arange(len(columns))
        inputs = {"input_ids": whole, "attention_mask": (whole != 0).long()}
        return Batch(inputs, many, many, many, torch.arange(len(columns)) % len(ids), torch.tensor(columns))

    ran: list[list[int]] = []

    def run(new: Batch) -> torch.Tensor:
        ran.extend(row[row != 0].tolist() for row in new.inputs["input_ids"])
        return new.select(new.inputs["input_ids"]).double()[:, None] * 10

    with closing(Kept()) as kept:
        first = kept.outputs(batch([[1, 2, 3], [4, 5, 0]], [1, 0, 2, 1]), run)
        assert first.squeeze(1).tolist() == [20, 40, 30, 50], "units 0 and 2 are in row 0"
        assert kept.outputs(batch([[4, 5, 0, 0], [1, 2, 3, 0]], [0, 1, 1, 2]), run).squeeze(1).tolist() == [
            40,
            20,
            50,
            30,
        ]
        assert ran == [[1, 2, 3], [4, 5]], "other padding and order, nothing new"
        kept.outputs(batch([[1, 2, 3]], [0]), run)
        kept.outputs(batch([[1, 2, 4], [1, 2, 4]], [0, 0]), run)
        assert ran[2:] == [[1, 2, 3], [1, 2, 4]], "another unit of a row, another row (twice, run once)"
        assert kept.rows == 4


def run(model: Any, method: Any, **changes: Any) -> Erased:
    return expunge.unlearn(model, ROWS, method, forget=FORGET, held_out=HELD, id="id", **{**QUICK, **changes})


def test_a_run_forgets_and_says_what_it_did_not_do(folder: Path, tmp_path: Path) -> None:
    before = load_model(str(folder), CAUSAL, where="x")
    settings = TrainingConfig(epochs=6.0, min_steps=24, batch_size=4, learning_rate=3e-3)
    erased = run(str(folder), Offset(layers=1, objective="npo"), training=settings)
    record = erased.record
    name = "membership AUC (loss or margin)"
    original, unlearned = (record.find(name, m, "forget vs evaluation").value for m in ("original", "unlearned"))
    assert original > 0.95
    assert unlearned < original - 0.3
    about = record.training["offset"]
    assert about["weights_before"]["large"] == about["weights_after"]["large"] == weights_sha256(before)
    assert about["weights_before"]["small"] == about["weights_after"]["small"]
    assert about["weights_before"]["small"] == about["weights_before"]["tuned"] != about["weights_after"]["tuned"]
    assert about["small"] == "a copy of the first 1 of 2 layers"
    assert any("still holds the records" in finding.sentence for finding in record.findings)
    erased.save(tmp_path / "out")
    assert not list((tmp_path / "out").rglob("*.bin"))
    assert "still holds the records" in (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    said = json.loads((tmp_path / "out" / "offset.json").read_text(encoding="utf-8"))
    assert said["large"] == {
        "path": str(folder.absolute()), "sha256": weights_sha256(before), "dtype": "float32", "copied": False
    }  # fmt: skip
    assert not (tmp_path / "out" / "large").exists()
    pairs = [(row["prompt"], row["answer"]) for row in ROWS[6:12]]
    loaded = Erased.load(tmp_path / "out")
    for one, other in zip(erased.score(pairs), loaded.score(pairs), strict=True):
        assert np.array_equal(one, other)
    asked = [row["prompt"] for row in ROWS[6:12]]
    assert loaded.generate(asked, tokens=10) == erased.generate(asked, tokens=10)
    with pytest.raises(UsageError, match="has no data with it"):
        loaded.forget_next(["q020"])
    again = erased.forget_next([ROWS[8]["id"]])
    assert weights_sha256(again.model.small) == about["weights_after"]["small"], "the same pair goes on"
    assert weights_sha256(again.model.tuned) != about["weights_after"]["tuned"]


def test_its_folder_takes_the_next_request_of_one_history(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "salt").write_bytes(b"a salt of the tests, not a secret")
    salted = {"salt_file": str(tmp_path / "salt"), "training": TrainingConfig(epochs=1.0, min_steps=2, batch_size=4)}
    run(str(folder), Offset(layers=1), **salted).save(tmp_path / "one")
    later = [row["id"] for row in ROWS[8:12]]
    with pytest.raises(UsageError, match="the model is one with an offset; no other method fits it"):
        run(str(tmp_path / "one"), "npo", **salted)
    second = expunge.unlearn(
        str(tmp_path / "one"), ROWS, Offset(layers=1), forget=later, held_out=HELD, id="id", **{**QUICK, **salted}
    )
    head = second.save(tmp_path / "two")
    assert second.record.data["retain"] == len(ROWS) - len(FORGET) - len(later), "those erased before stay out"
    assert [verify(tmp_path / name).ok for name in ("one", "two")] == [True, True]
    assert verify(tmp_path / "two", head=head).ok
    weights = tmp_path / "two" / "tuned" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\0")
    assert not verify(tmp_path / "two").ok


def test_the_cost_is_counted_by_share_of_the_parameters(folder: Path) -> None:
    """One layer of two: by hand the share of the weights that a pass multiplies by, and passes of a run of two steps.

    Llama with H = 32, intermediate 64, two heads of 16, V = 259, untied: a layer has 4 * 32 * 32 (q, k, v, o) + 3 * 32 * 64
    (gate, up, down) + 2 * 32 (norms) = 10,304 weights, the last norm 32, the head 259 * 32 = 8,288; embeddings are looked up.
    """
    layer, rest, output = 4 * 32 * 32 + 3 * 32 * 64 + 2 * 32, 32 + 259 * 32, 259 * 32
    share = (layer + rest) / (2 * layer + rest)
    settings = TrainingConfig(epochs=1.0, min_steps=2, batch_size=4, learning_rate=1e-3)
    stop = expunge.StopConfig(rule="none", every=2)
    record = run(str(folder), Offset(layers=1), training=settings, stop=stop).record
    assert record.training["offset"]["share"] == pytest.approx(share, abs=1e-6)
    step = share + 2 * output / (2 * layer + rest) / 3
    looked = 8 + record.data["calibration"]
    seen_once = (8 + 8 + record.data["calibration"]) * (1 + share) / 3  # forget, as many retained, calibration
    assert record.cost["training"] == pytest.approx(2 * 8 * step + seen_once, abs=0.02)
    assert record.cost["checks"] == pytest.approx(looked / 3 * step, abs=0.02)


def test_a_frozen_model_that_changed_is_an_error() -> None:
    model = made(tiny_causal())
    before = model.weights()
    with torch.no_grad():
        next(model.small.parameters())[0, 0] += 1e-3
    with pytest.raises(RunError, match="the weights of the small model changed"):
        model.account(before)


def test_a_large_model_that_changed_or_vanished_is_refused(folder: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    model = load_model(str(folder), CAUSAL, where="x")
    for part in (model, WRITING.tokenizer):
        part.save_pretrained(own)
    ensemble = moved(made(model))
    ensemble.found_at(str(own))
    ensemble.save_pretrained(tmp_path / "out")
    assert load_offset(str(tmp_path / "out"), CAUSAL, where="x").about.large.path == str(own)
    with pytest.raises(UsageError, match="holds models of AutoModelForCausalLM"):
        load_model(str(tmp_path / "out"), CLASSIFIER, where="model.path")
    with torch.no_grad():
        model.lm_head.weight[3, 3] += 0.01
    model.save_pretrained(own)
    with pytest.raises(UsageError, match="is not the one it was made with"):
        load_model(str(tmp_path / "out"), CAUSAL, where="model.path")
    own.rename(tmp_path / "elsewhere")
    with pytest.raises(UsageError, match=r'offset\.json \("path" of "large"\)'):
        load_model(str(tmp_path / "out"), CAUSAL, where="model.path")
    (tmp_path / "out" / "offset.json").write_text("{}", encoding="utf-8")
    with pytest.raises(UsageError, match=r"offset\.json of .* cannot be read"):
        load_model(str(tmp_path / "out"), CAUSAL, where="model.path")


def test_a_copy_of_the_large_model_goes_with_the_folder(folder: Path, tmp_path: Path) -> None:
    """Asked for, and for a model in memory, of which nobody knows where it is."""
    quick = TrainingConfig(epochs=1.0, min_steps=1, batch_size=4)
    asked = run(str(folder), Offset(layers=1, copy_large=True), training=quick)
    in_memory = run(
        load_model(str(folder), CAUSAL, where="x"), Offset(layers=1), training=quick, tokenizer=WRITING.tokenizer
    )
    for number, erased in enumerate((asked, in_memory)):
        place = tmp_path / str(number)
        erased.save(place)
        large = load_model(str(place / "large"), CAUSAL, where="x")
        assert weights_sha256(large) == erased.record.training["offset"]["weights_after"]["large"]
        place.rename(tmp_path / f"moved-{number}")
        pairs = [(ROWS[0]["prompt"], ROWS[0]["answer"])]
        assert np.array_equal(erased.score(pairs)[0], Erased.load(tmp_path / f"moved-{number}").score(pairs)[0])


def test_half_precision_models_keep_theirs(folder: Path, tmp_path: Path) -> None:
    """M is saved in bfloat16: it is known by its bfloat16 weights, and the pair is saved in it too."""
    own = tmp_path / "half"
    load_model(str(folder), CAUSAL, where="x").to(torch.bfloat16).save_pretrained(own)
    WRITING.tokenizer.save_pretrained(own)
    erased = run(str(own), Offset(layers=1), training=TrainingConfig(epochs=1.0, min_steps=2, batch_size=4))
    erased.save(tmp_path / "out")
    said = json.loads((tmp_path / "out" / "offset.json").read_text(encoding="utf-8"))["large"]
    assert said["dtype"] == "bfloat16"
    assert said["sha256"] == erased.record.models["original"]["sha256"]
    pairs = [(ROWS[0]["prompt"], ROWS[0]["answer"])]
    loaded = Erased.load(tmp_path / "out")
    assert weights_sha256(erased.model) == weights_sha256(loaded.model, torch.bfloat16)
    erased.model.to(torch.float32)
    assert np.allclose(erased.score(pairs)[0], loaded.score(pairs)[0], atol=1e-4)


def checked(model: Any, method: Any, **changes: Any) -> list[str]:
    """What `check` says is wrong."""
    from expunge.checks import Inputs, check

    config = RunConfig(
        method=method, model=ModelConfig(path=model if isinstance(model, str) else ""), data=DataConfig(id="id"),
        request=RequestConfig(fraction=0.1), **changes,
    )  # fmt: skip
    inputs = Inputs(
        model=None if isinstance(model, str) else model, tokenizer=None if isinstance(model, str) else WRITING.tokenizer,
        train=ROWS, held_out=HELD,
    )  # fmt: skip
    try:
        check(config, inputs)
    except UsageError as error:
        return [str(problem) for problem in error.problems]
    return []


def test_small_models_that_do_not_fit_are_refused_before_weights_load(folder: Path, tmp_path: Path) -> None:
    good = small_of(tiny_causal(), tmp_path / "good")
    WRITING.tokenizer.save_pretrained(good)
    assert checked(str(folder), Offset(small=str(good))) == []
    small_of(tiny_causal(vocabulary=300), tmp_path / "wider")
    (problem,) = checked(str(folder), Offset(small=str(tmp_path / "wider")))
    assert "has a vocabulary of 300 tokens, the model one of 259" in problem
    assert "leave method.small out: a copy of the model's first layers is made" in problem
    other = copy.deepcopy(WRITING.tokenizer)
    saved = json.loads(other.backend_tokenizer.to_str())
    vocabulary = saved["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    small_of(tiny_causal(), tmp_path / "swapped")
    other.save_pretrained(tmp_path / "swapped")
    (tmp_path / "swapped" / "tokenizer.json").write_text(json.dumps(saved), encoding="utf-8")
    (problem,) = checked(str(folder), Offset(small=str(tmp_path / "swapped")))
    assert "numbers other tokens than the model's" in problem
    tiny_classifier().save_pretrained(tmp_path / "classifier")
    tiny_tokenizer().save_pretrained(tmp_path / "classifier")
    (problem,) = checked(str(folder), Offset(small=str(tmp_path / "classifier")))
    assert "is a text classifier, the model a causal language model" in problem
    (problem,) = checked(str(folder), Offset(layers=3))
    assert "method.layers: 3 is not allowed. The model has the layers 1 to 2" in problem
    assert any("lora_rank" in p for p in checked(str(folder), Offset(), training=TrainingConfig(lora_rank=4)))
    (problem,) = checked(str(folder), Offset(small=str(tmp_path / "nowhere")))
    assert problem.startswith("method.small")


def test_an_offset_folder_takes_no_other_method_and_no_other_alpha(folder: Path, tmp_path: Path) -> None:
    ensemble = made(load_model(str(folder), CAUSAL, where="x"))
    ensemble.found_at(str(folder))
    ensemble.save_pretrained(tmp_path / "out")
    WRITING.tokenizer.save_pretrained(tmp_path / "out")
    path = str(tmp_path / "out")
    assert checked(path, Offset()) == []
    assert any("no other method fits it" in problem for problem in checked(path, "npo" and expunge.NPO()))
    assert any("Give method.alpha = 1.0" in problem for problem in checked(path, Offset(alpha=0.5)))
    assert any("no other method fits it" in problem for problem in checked(ensemble, expunge.NPO()))
    again = run(path, Offset(), training=TrainingConfig(epochs=1.0, min_steps=2, batch_size=4))
    assert again.record.training["offset"]["weights_before"] == ensemble.weights()


class Interface(nn.Module):
    """A model behind an interface: natural log-probabilities, and a count of what was asked."""

    def __init__(self, model: Any) -> None:
        super().__init__()
        self.model, self.asked = model.eval(), 0

    def forward(self, input_ids: torch.Tensor, attention_mask: torch.Tensor, **more: torch.Tensor) -> torch.Tensor:
        self.asked += len(input_ids)
        padded = (attention_mask == 0).long()
        assert bool((padded.diff(dim=1) >= 0).all()), "padding is on the right"
        return self.model(input_ids=input_ids, attention_mask=attention_mask, **more).logits.log_softmax(-1)


@pytest.mark.parametrize("kind", ["writer", "classifier"])
def test_a_black_box_is_erased_from_by_what_it_says(folder: Path, job: Job, tmp_path: Path, kind: str) -> None:
    """The same run with the weights at hand and through a function of log-probabilities comes out the same."""
    rows, task, path = (ROWS, WRITING, folder) if kind == "writer" else (toy_records(240, seed=1), CLASSES, job.model)
    held = HELD if kind == "writer" else toy_records(200, seed=2)
    large = load_model(str(path), task.auto_class, where="x")
    small = small_of(large, tmp_path / "small")
    task.tokenizer.save_pretrained(small)
    method = Offset(small=str(small), objective="npo", retain="kl")
    interface = Interface(copy.deepcopy(large))
    known = weights_sha256(interface)
    box = BlackBox(interface, str(small))
    options: dict[str, Any] = {"forget": [row["id"] for row in rows[:8]], "held_out": held, "id": "id", **QUICK}
    open_run = expunge.unlearn(str(path), rows, method, **options)
    closed = expunge.unlearn(box, rows, method, tokenizer=task.tokenizer, **options)
    losses = [[row["loss"] for row in erased.record.training["history"]] for erased in (open_run, closed)]
    assert np.allclose(losses[0][:4], losses[1][:4], atol=1e-4)
    assert weights_sha256(interface) == known
    assert closed.record.models["original"]["sha256"] == "not known: a black box"
    assert closed.record.training["offset"]["share"] == 1.0
    asked = [(row["prompt"], row["answer"]) if kind == "writer" else row["text"] for row in rows[5:9]]
    for one, other in zip(open_run.score(asked), closed.score(asked), strict=True):
        assert np.allclose(one, other, atol=5e-3)
    closed.save(tmp_path / "out")
    with pytest.raises(UsageError, match="is a black box, which only you have"):
        Erased.load(tmp_path / "out")
    loaded = Erased.load(tmp_path / "out", large=box)
    for one, other in zip(loaded.score(asked), closed.score(asked), strict=True):
        assert np.allclose(one, other, atol=1e-5)
    if kind == "writer":
        prompts = [row["prompt"] for row in rows[5:9]]
        assert loaded.generate(prompts, tokens=6) == closed.generate(prompts, tokens=6)
        whole = moved(OffsetModel(large, loaded.model.small, loaded.model.tuned, open_run.model.about))
        assert generate(whole, task, [(p, "") for p in prompts], tokens=6) == loaded.generate(prompts, tokens=6)


def test_black_boxes_that_are_wrong_are_told() -> None:
    with pytest.raises(UsageError, match="cannot be called"):
        BlackBox(3, tiny_causal().config)  # pyright: ignore[reportArgumentType]
    config = tiny_causal().config
    config.architectures = ["LlamaForCausalLM"]
    ids = {"input_ids": torch.tensor([[1, 2]]), "attention_mask": torch.ones(1, 2, dtype=torch.long)}
    with pytest.raises(RunError, match=r"\(1, 2, 5\) for 1 rows; \(1, \.\.\., 259\) was expected"):
        BlackBox(lambda **_: torch.zeros(1, 2, 5), config)(**ids)
    with pytest.raises(RunError, match="NaN"):
        BlackBox(lambda **_: torch.full((1, 2, 259), torch.nan), config)(**ids)
    assert any("a black box has no layers" in p for p in checked(BlackBox(lambda **_: None, config), Offset()))
    assert any("no other method fits it" in p for p in checked(BlackBox(lambda **_: None, config), expunge.NPO()))


def test_from_the_shell_a_tiny_llama(folder: Path, tmp_path: Path) -> None:
    for name, rows in (("train", ROWS), ("held", HELD)):
        (tmp_path / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (tmp_path / "ids.txt").write_text("\n".join(FORGET), encoding="utf-8")
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    shell(
        tmp_path, "run", "--model", str(folder), "--data", str(tmp_path / "train.jsonl"), "--held-out",
        str(tmp_path / "held.jsonl"), "--forget", str(tmp_path / "ids.txt"), "--id", "id", "--set", "method.layers=1",
    )  # fmt: skip
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_from_the_shell_a_tiny_bert(job: Job, tmp_path: Path) -> None:
    shell(tmp_path, "run", *job.flags(), "--set", "method.layers=1")
    plan = CliRunner().invoke(app, ["plan", *job.flags(), "--method", "offset", "--set", "method.layers=1", "--json"])
    assert plan.exit_code == 0, plan.output
    cost = json.loads(plan.stdout[plan.stdout.index("{") :])["cost"]
    record = json.loads((tmp_path / "out" / "record.json").read_text(encoding="utf-8"))
    share = record["training"]["offset"]["share"]
    assert cost["passes"] < cost["steps"] * 24 * 2, "not as of whole models"
    assert 0.3 < share < 0.8


def shell(tmp_path: Path, *words: str) -> None:
    """A run, the audit of its folder, its report and its summary."""
    out = str(tmp_path / "out")
    run = CliRunner().invoke(app, [
        *words, "--method", "offset", "--out", out, "--set", "training.learning_rate=2e-3", "--set", "audit.bootstrap=20",
        "--set", "training.epochs=2", "--set", "training.min_steps=8",
    ])  # fmt: skip
    assert run.exit_code == 0, run.output
    assert "still holds the records" in run.output
    audit = CliRunner().invoke(app, [
        "audit", out, "--out", str(tmp_path / "again"), *(["--forget", words[words.index("--forget") + 1]]),
        "--set", f"privacy.salt_file={words[words.index('--salt-file') + 1]}" if "--salt-file" in words else "seed=0",
    ])  # fmt: skip
    assert audit.exit_code == 0, audit.output
    first, again = (
        json.loads((tmp_path / name / "record.json").read_text(encoding="utf-8")) for name in ("out", "again")
    )
    for model in ("original", "unlearned"):
        assert again["models"][model]["sha256"] == first["models"][model]["sha256"]
    figures = [
        {(m["audit"], m["name"], m["model"], m["group"]): m["value"] for m in record["measurements"]}
        for record in (first, again)
    ]
    assert figures[1] == pytest.approx(figures[0], abs=1e-6)
    assert any("still holds the records" in finding["sentence"] for finding in again["findings"])
    report = CliRunner().invoke(app, ["report", out, "--out", str(tmp_path / "report.html")])
    assert report.exit_code == 0, report.output
    assert "still holds the records" in (tmp_path / "report.html").read_text(encoding="utf-8")
    assert CliRunner().invoke(app, ["show", out]).exit_code == 0


def test_it_is_listed_and_explained() -> None:
    listed = CliRunner().invoke(app, ["list"])
    assert "offset" in listed.output
    shown = CliRunner().invoke(app, ["show", "offset"])
    assert "arXiv 2404.11045" in shown.output
    assert "copy_large" in shown.output
