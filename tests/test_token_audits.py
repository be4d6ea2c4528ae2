"""Audits that ask a language model for more than its records' own answers: truth ratio, ROUGE, reference, gradients."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import expunge
from expunge.audits.base import AuditContext
from expunge.audits.truth_ratio import TruthRatio
from expunge.config import AuditConfig, DataConfig, Recipe, RunConfig, TrainingConfig
from expunge.data.alternatives import read_alternatives
from expunge.data.records import Records
from expunge.errors import UsageError
from expunge.fit import train
from expunge.generating import generate
from expunge.models import load_model
from expunge.report import render
from expunge.stress import Material
from expunge.tasks.base import Encoded
from expunge.tasks.generation import Generation
from expunge.testing import byte_tokenizer, tiny_causal, toy_answers
from expunge.token_stress import alternatives, false_answers, gradients, other_answers, written

TASK = Generation(byte_tokenizer(), 64, tuple(map(str, range(259))))
AUDITS = ("utility", "membership", "truth-ratio", "rouge", "reference", "gradient-norm")


def rows(count: int, seed: int = 0, word: str = "Code") -> list[dict[str, Any]]:
    """Questions whose answers cannot be guessed, in other words, and with other numbers."""
    others = [toy_answers(count, seed=seed + 20 + k) for k in range(3)]
    return [
        {
            **row, "id": f"{word}-{row['id']}", "prompt": row["prompt"].replace("Code", word),
            "paraphrased_answer": row["answer"].replace("It is", "That is"),
            "perturbed_answers": [own[i]["answer"].replace("It is", "That is") for own in others],
        }
        for i, row in enumerate(toy_answers(count, seed=seed))
    ]  # fmt: skip


ROWS, HELD = rows(32), rows(24, seed=9, word="Kode")
FORGET = [row["id"] for row in ROWS[:8]]


def encoded(several: list[dict[str, Any]]) -> Encoded:
    return TASK.encode_texts([(row["prompt"], row["answer"]) for row in several])


def fitted(several: list[dict[str, Any]], place: Path) -> Path:
    model = train(tiny_causal(), TASK, encoded(several), Recipe(epochs=60.0, learning_rate=5e-3, batch_size=8), seed=0)
    model.save_pretrained(place)
    TASK.tokenizer.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base, an original that knows the codes, and a model retrained without eight of them."""
    place = tmp_path_factory.mktemp("audits")
    tiny_causal().save_pretrained(place / "base")
    TASK.tokenizer.save_pretrained(place / "base")
    (place / "recipe.toml").write_text("epochs = 60.0\nlearning_rate = 5e-3\nbatch_size = 8\n", encoding="utf-8")
    fitted(ROWS, place / "original")
    return place


@pytest.fixture(scope="module")
def erased(folder: Path) -> expunge.Erased:
    return expunge.unlearn(
        str(folder / "original"), ROWS, "npo", forget=FORGET, held_out=HELD, id="id", base=str(folder / "base"),
        recipe=str(folder / "recipe.toml"), retrain_seeds=[1, 2],
        training=TrainingConfig(epochs=3.0, min_steps=6, batch_size=4, learning_rate=1e-3),
        audit=AuditConfig(audits=AUDITS, bootstrap=50),
    )  # fmt: skip


def test_a_run_measures_all_of_them_beside_retrained_models(erased: expunge.Erased) -> None:
    record = erased.record
    assert not record.not_measured.keys() & set(AUDITS)
    assert {m.audit for m in record.measurements} >= set(AUDITS)
    for name, group in (
        ("truth ratio, min(R, 1/R)", "forget"), ("truth ratio, max(0, 1 - R)", "retain"),
        ("ROUGE-L recall", "forget"), ("ROUGE-L recall", "evaluation"),
        ("reference attack AUC", "forget vs evaluation"), ("gradient norm AUC", "forget vs evaluation"),
        ("forget quality (p-value of that distance)", "forget"),
    ):  # fmt: skip
        for model in ("original", "unlearned"):
            found = record.find(name, model, group)
            assert found is not None, (name, model, group)
            assert found.gap is not None
            assert found.low <= found.value <= found.high
    before = record.find("ROUGE-L recall", "original", "forget")
    known = record.find("truth ratio, max(0, 1 - R)", "original", "retain")
    assert before is not None
    assert before.value > 0.8, "it writes what it learnt by heart"
    unknown = record.find("truth ratio, max(0, 1 - R)", "original", "evaluation")
    assert known is not None
    assert unknown is not None
    assert known.value > unknown.value + 0.1, "what it learnt it tells from falsehood even in other words"
    attack = record.find("gradient norm AUC", "original", "forget vs evaluation")
    assert attack is not None
    assert attack.value > 0.9, "members' gradients are small"
    assert set(record.cost["stress"]) == {"alternatives", "gradients", "reference", "written"}
    row = record.records[0]
    assert {"truth ratio, original", "ROUGE-L recall, unlearned"} <= row.keys()
    text = record.to_json()
    for own in ROWS[:8]:
        assert own["answer"] not in text
        assert own["paraphrased_answer"] not in text


def test_without_retrained_models_all_but_forget_quality_is_measured(folder: Path) -> None:
    erased = expunge.unlearn(
        str(folder / "original"), ROWS, "finetune", forget=FORGET, held_out=HELD, id="id",
        training=TrainingConfig(epochs=1.0, min_steps=1, batch_size=8),
        audit=AuditConfig(audits=("utility",), more=("truth-ratio", "rouge", "gradient-norm", "answers"), bootstrap=20),
    )  # fmt: skip
    record = erased.record
    assert {m.audit for m in record.measurements} == {"utility", "truth-ratio", "rouge", "gradient-norm", "answers"}
    assert record.not_measured["truth-ratio, forget quality"] == "takes a retrained model"
    page = render(record)
    for word in ("answer probability", "extraction strength", "truth ratio", "ROUGE-L recall", "gradient norm"):
        assert f"<dt>{word}</dt>" in page
    assert "<dt>Min-K</dt>" not in page, "what was not measured is not explained"
    assert "of the answer&#39;s tokens" in page or "of the answer's tokens" in page


def test_audits_that_lack_what_they_need_are_refused_before_the_run(folder: Path) -> None:
    plain = [{key: row[key] for key in ("id", "prompt", "answer")} for row in (*ROWS, *HELD)]
    with pytest.raises(UsageError) as caught:
        expunge.unlearn(
            str(folder / "original"), plain[:32], "finetune", forget=FORGET, held_out=plain[32:], id="id",
            audit=AuditConfig(more=("truth-ratio", "reference")),
        )  # fmt: skip
    assert "truth-ratio needs false answers" in str(caught.value)
    assert "data.perturbed" in str(caught.value)
    assert "reference needs the base model" in str(caught.value)
    assert "--base" in str(caught.value)


def test_wrong_arguments_from_python_are_told_and_not_guessed(folder: Path, erased: expunge.Erased) -> None:
    with pytest.raises(UsageError, match="no list of texts"):
        erased.generate("Code 000?")  # pyright: ignore[reportArgumentType] - that is the mistake
    with pytest.raises(UsageError, match="no list of texts"):
        erased.generate([{"prompt": "Code 000?"}])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match=r"is no record.*pairs, or of plain texts"):
        erased.score([{"prompt": "Code 000?", "answer": "It is 1."}])  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match=r"is no TrainingConfig\. Give expunge\.TrainingConfig"):
        expunge.unlearn(
            str(folder / "original"), ROWS, "npo", forget=FORGET, held_out=HELD, id="id",
            training={"learning_rate": 1e-3},  # pyright: ignore[reportArgumentType]
        )  # fmt: skip


def test_a_template_can_be_given_from_python(folder: Path) -> None:
    with pytest.raises(UsageError, match=r"model\.template"):
        expunge.unlearn(
            str(folder / "original"), ROWS, "npo", forget=FORGET, held_out=HELD, id="id", template="no prompt"
        )  # fmt: skip


def material(several: list[dict[str, Any]]) -> Material:
    records = Records(
        tuple(row["id"] for row in several), tuple((row["prompt"], row["answer"]) for row in several), (0,) * len(several),
        alternatives=tuple((row["paraphrased_answer"], *row["perturbed_answers"]) for row in several),
    )  # fmt: skip
    own = encoded(several)
    return Material(
        task=TASK, forget=own, calibration=own, evaluation=own.take([0, 1]), batch_size=3,
        alternatives={"forget": other_answers(TASK, records)}, texts={"forget": records.texts},
    )  # fmt: skip


def test_truth_ratios_are_those_worked_out_by_hand(folder: Path) -> None:
    """R = (product over false answers of P(a')^(1/|a'|))^(1/K) / P(a)^(1/|a|), from the model's own loss."""
    model = load_model(str(folder / "original"), TASK.auto_class, where="x").eval()
    several = [dict(row) for row in ROWS[:4]]
    several[1]["perturbed_answers"] = several[1]["perturbed_answers"][:1]  # fewer than others
    several[2]["paraphrased_answer"] = ""
    tables, passes = alternatives(model, material(several))
    assert passes == pytest.approx(4 * 4 / 3)

    def mean(prompt: str, answer: str) -> float:
        row = TASK.encode_texts([(prompt, answer)])
        ids = torch.tensor([list(row.input_ids[0])])
        labels = ids.clone()
        labels[0, : ids.shape[1] - len(row.labels[0])] = -100
        return -float(model(input_ids=ids, labels=labels).loss.detach())

    from expunge.audits.truth_ratio import ratios_of

    found = ratios_of(tables["forget, true"], false_answers(tables, "forget"))
    for row, ratio in zip(several, found, strict=True):
        own = mean(row["prompt"], row["paraphrased_answer"] or row["answer"])
        false = np.mean([mean(row["prompt"], said) for said in row["perturbed_answers"]])
        assert ratio == pytest.approx(np.exp(false - own), rel=1e-4)


def test_gradient_norms_are_each_records_own_whatever_the_batch(folder: Path) -> None:
    model = load_model(str(folder / "original"), TASK.auto_class, where="x").eval()
    own = material(ROWS[:3])
    found, passes = gradients(model, own)
    assert passes == 3 + 2
    for i, norm in enumerate(found["forget"]):
        model.zero_grad()
        batch = TASK.collate(own.forget, [i])
        model(
            input_ids=batch.inputs["input_ids"], attention_mask=batch.inputs["attention_mask"], labels=shifted(batch)
        ).loss.backward()
        expected = sum(float(p.grad.double().square().sum()) for p in model.parameters() if p.grad is not None) ** 0.5
        assert norm == pytest.approx(expected, rel=1e-4)
    model.zero_grad()
    gradients(model, own)
    assert all(p.grad is None for p in model.parameters()), "nothing is left on the model"


def shifted(batch: Any) -> torch.Tensor:
    """Labels as transformers' own loss takes them: at the token itself, not before it."""
    labels = torch.full_like(batch.inputs["input_ids"], -100)
    labels[batch.rows, batch.columns + 1] = batch.labels
    return labels


def test_rouge_is_of_what_the_model_writes(folder: Path) -> None:
    model = load_model(str(folder / "original"), TASK.auto_class, where="x").eval()
    found, _ = written(model, material(ROWS[:4]))
    for row, recall in zip(ROWS[:4], found["forget"], strict=True):
        said = generate(model, TASK, [(row["prompt"], "")], tokens=40)[0].rstrip(".").lower().split()
        wanted = row["answer"].rstrip(".").lower().split()
        common = sum(word in said for word in wanted)  # three words, whose order nobody changes
        assert recall == pytest.approx(common / len(wanted))


def quality(unlearned: float) -> AuditContext:
    """Made-up scores: forget records' false answers are `unlearned` nats likelier than in two retrained models."""
    from expunge.conformance_audits import _contexts

    context = next(own for words, own in _contexts() if words == "tokens, 2 retrained models")
    made = {}
    for model, several in context.stressed["alternatives"].items():
        made[model] = []
        for place, tables in enumerate(several):
            shift = unlearned if model == "unlearned" else 0.0
            rng = np.random.default_rng([len(model), place])
            tables = dict(tables)
            for name in ("forget, true", "forget, false 1", "forget, false 2"):
                table = tables[name]
                own = rng.normal(1.0, 0.3, len(table.labels)) + (shift if name == "forget, true" else 0.0)
                tables[name] = type(table)(**{**vars_of(table), "losses": np.abs(own)})
            made[model].append(tables)
    return AuditContext(
        models=context.models, classes=3, resamples=20, stressed={**context.stressed, "alternatives": made}
    )  # fmt: skip


def vars_of(table: Any) -> dict[str, Any]:
    return {name: getattr(table, name) for name in table.__dataclass_fields__}


@pytest.mark.parametrize(("shift", "kinds"), [(3.0, {"over-forgotten"}), (-0.9, {"remembered"}), (0.0, set())])
def test_a_planted_shift_of_the_true_answer_is_found_on_its_side(shift: float, kinds: set[str]) -> None:
    """A true answer that costs more than in retrained models is over-forgotten, one that costs less remembered."""
    result = TruthRatio().run(quality(shift))
    assert {finding.kind for finding in result.findings} == kinds


@pytest.mark.parametrize(
    ("columns", "named", "words"),
    [
        ({"answer": ["a"], "perturbed_answer": [["x", 3]]}, {}, "something else than texts in perturbed_answer"),
        ({"answer": ["a"], "perturbed_answer": [{"x": 1}]}, {}, "something else than texts"),
        ({"answer": ["a"], "perturbed_answer": [["x", " "]]}, {}, "the first is row 1"),
        (
            {"answer": ["a"], "perturbed_answer": [["x"]], "paraphrased_answer": [7]},
            {},
            "no text in paraphrased_answer",
        ),
        ({"answer": ["a"]}, {"perturbed": "false"}, 'has no column "false"'),
        ({"answer": ["a"]}, {"paraphrased": "said"}, 'has no column "said"'),
    ],
)
def test_bad_alternatives_are_refused(columns: dict[str, Any], named: dict[str, str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        read_alternatives(columns, named.get("paraphrased"), named.get("perturbed"), where="data.train", needed=True)


def test_alternatives_are_found_by_name_and_gaps_are_none() -> None:
    columns = {
        "answer": ["a", "b", "c"],
        "perturbed_answers": [["x", "y"], None, "z"],
        "paraphrased_answer": ["A", None, ""],
    }
    found = read_alternatives(columns, None, None, where="data.train", needed=True)
    assert found == (("A", "x", "y"), ("",), ("", "z"))
    assert read_alternatives({"answer": ["a"]}, None, None, where="x", needed=True) == ()
    assert read_alternatives({"answer": ["a"]}, "said", "false", where="data.held_out", needed=False) == ()


def test_records_keep_their_alternatives_when_some_are_taken() -> None:
    records = Records(("a", "b"), (("p", "q"), ("r", "s")), (0, 0), alternatives=(("", "x"), ("t", "y")))
    assert records.take([1]).alternatives == (("t", "y"),)
    assert Records(("a",), (("p", "q"),), (0,)).take([0]).alternatives == ()
    assert records.sha256() == Records(("a", "b"), (("p", "q"), ("r", "s")), (0, 0)).sha256()


def test_a_json_file_may_hold_lines_or_one_list(tmp_path: Path) -> None:
    from expunge.data.sources import read

    lines, whole = tmp_path / "lines.json", tmp_path / "whole.json"
    lines.write_text("".join(json.dumps(row) + "\n" for row in ROWS[:3]), encoding="utf-8")
    whole.write_text(json.dumps(ROWS[:3], indent=2), encoding="utf-8")
    assert read(str(lines), where="x") == read(str(whole), where="x")
    assert read(str(whole), where="x")["id"] == [row["id"] for row in ROWS[:3]]
    whole.write_text("[1, 2]", encoding="utf-8")
    with pytest.raises(UsageError, match="item 1: not a JSON object"):
        read(str(whole), where="x")
    whole.write_text("[{", encoding="utf-8")
    with pytest.raises(UsageError, match="line 1: "):
        read(str(whole), where="x")


def test_the_settings_of_a_run_name_the_columns() -> None:
    config = RunConfig.from_dict({"data": {"perturbed": "false", "paraphrased": "said"}, "method": {"name": "npo"}})
    assert config.data == DataConfig(perturbed="false", paraphrased="said")
