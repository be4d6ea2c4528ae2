"""The audit `deep-unlearning`: planted answers give hand-derived figures, and a run asks its models the facts."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge import cli
from expunge.audits.base import AuditContext
from expunge.audits.deep_unlearning import DeepUnlearning
from expunge.chosen_audits import lacking
from expunge.config import DataConfig, Recipe, RunConfig
from expunge.deep.fact_file import FactFile
from expunge.deep.knowledge import KnowledgeBase
from expunge.deep.reading import parse_atoms
from expunge.fit import train
from expunge.methods.finetune import FineTune
from expunge.record import RunRecord
from expunge.stress import Material, asked_facts
from expunge.tasks.base import Encoded
from expunge.tasks.generation import Generation
from expunge.testing import byte_tokenizer, tiny_causal
from test_deep import rule


def family() -> FactFile:
    """f1 child(Carl, Bob) follows from f0 child(Ann, Bob) and f2 husband(Ann, Carl): M = {f0, f1}, {f1, f2}. f3 is apart."""
    facts = parse_atoms("child(Ann, Bob), child(Carl, Bob), husband(Ann, Carl), job(Bob, monk)", "test", "facts")
    base = KnowledgeBase(tuple(facts), (rule("husband(?x, ?y), child(?x, ?z)", "child(?y, ?z)"),))
    return FactFile(base, ("f0", "f1", "f2", "f3"), tuple((f"question {i}", "a") for i in range(4)))


def context(original: str, unlearned: str, *retrained: str, targets: tuple[int, ...] = (1,)) -> AuditContext:
    """Models that answer the facts marked 1."""

    def of(known: str) -> dict[str, Any]:
        return {"facts": family(), "known": np.array([c == "1" for c in known]), "targets": targets}

    found = {"original": [of(original)], "unlearned": [of(unlearned)], "retrained": [of(one) for one in retrained]}
    return AuditContext({k: [{}] * len(v) for k, v in found.items()}, classes=2, stressed={"facts": found})


def figures(result: Any, model: str) -> dict[str, float]:
    return {row.name.split(":")[0]: row.value for row in result.measurements if row.model == model}


def test_planted_answers_by_hand() -> None:
    """Unlearned: f1 and f3 gone. Recall 1/2 by either set; relations outside it all known; of two others f3 gone: 1/2.

    f1 still follows from f0 and f2: no success, and a finding.
    """
    result = DeepUnlearning().run(context("1111", "1010"))
    assert figures(result, "original") == {
        "superficial forgetting": 0, "success": 0, "recall": 0, "accuracy, other relations": 1, "accuracy, all other facts": 1,
    }  # fmt: skip
    assert figures(result, "unlearned") == {
        "superficial forgetting": 1, "success": 0, "recall": 0.5, "accuracy, other relations": 1,
        "accuracy, all other facts": 0.5,
    }  # fmt: skip
    assert [finding.kind for finding in result.findings] == ["trace"]
    assert "1 of 1 targets" in result.findings[0].sentence
    recall = next(row for row in result.measurements if row.name == "recall" and row.model == "unlearned")
    # Clopper-Pearson for 1 of 2: the upper end u solves u^2 ... P(X <= 1) = 1 - u^2 = 0.025, so u = sqrt(0.975).
    assert recall.high == pytest.approx(0.975**0.5)
    assert recall.gap is None


def test_a_target_that_background_facts_alone_imply_is_not_measured() -> None:
    """Whatever is forgotten, f0 follows from what nobody is asked: the run goes on, and the audit says why it does not."""
    plain = context("1111", "1010")
    of_all = parse_atoms("child(Ann, Bob), child(Carl, Bob), husband(Ann, Carl)", "test", "facts")
    base = KnowledgeBase(
        tuple(of_all[1:2]), (rule("husband(?x, ?y), child(?x, ?z)", "child(?y, ?z)"),), (of_all[0], of_all[2])
    )
    facts = FactFile(base, ("f1",), (("question", "a"),))
    told = [{"facts": facts, "known": np.array([True]), "targets": (0,)}]
    found = {"original": told, "unlearned": told, "retrained": []}
    result = DeepUnlearning().run(replace(plain, stressed={"facts": found}))
    assert not result.measurements
    assert "background" in str(result.not_measured)


def test_deep_forgetting_has_no_finding_and_gaps_are_to_retrained_models() -> None:
    result = DeepUnlearning().run(context("1111", "1001", "1001", "1011"))
    assert figures(result, "unlearned")["success"] == 1
    assert figures(result, "unlearned")["recall"] == 1
    assert result.findings == []
    success = next(row for row in result.measurements if row.name.startswith("success") and row.model == "unlearned")
    assert success.gap == pytest.approx(0.5), "one of the two retrained models can deduce it"


def test_what_is_not_measured_says_why() -> None:
    assert "no forget record is one of the facts" in str(
        DeepUnlearning().run(context("1111", "1010", targets=())).not_measured
    )
    bare = AuditContext({"original": [{}], "unlearned": [{}], "retrained": []}, classes=2)
    assert "asked its facts" in str(DeepUnlearning().run(bare).not_measured)
    empty = AuditContext(bare.models, classes=2, stressed={"facts": {"original": [{}], "unlearned": [{}]}})
    assert "data.facts" in str(DeepUnlearning().run(empty).not_measured)


def test_models_are_asked_the_facts() -> None:
    empty = Encoded([], None, [], [])
    task = Generation(byte_tokenizer(), 64, (), "{prompt}={answer}")
    material = Material(task, empty, empty, empty, facts=family(), targets=(1,))
    found, passes = asked_facts(tiny_causal(), material)
    assert found["known"].shape == (4,)
    assert found["targets"] == (1,)
    assert passes == pytest.approx((4 + (~found["known"]).sum()) / 3)
    assert asked_facts(tiny_causal(), Material(task, empty, empty, empty)) == ({}, 0.0)


def test_what_the_audit_lacks_is_told_before_a_run(tmp_path: Path) -> None:
    audits = {"deep-unlearning": DeepUnlearning()}

    def said(**data: Any) -> str:
        config = RunConfig(method=FineTune(), data=DataConfig(**data))
        return " ".join(map(str, lacking(config, audits, None)))

    assert "data.facts: deep-unlearning needs facts, and none are named" in said()
    assert '"nothing.csv" is no file' in said(facts="nothing.csv", rules="nothing.csv")
    file = tmp_path / "facts.json"
    rows = [{"subject": "a", "relation": "r", "object": "b"}]
    rules = [{"if": "r(?x, ?y)", "then": "r(?y, ?x)"}]
    file.write_text(json.dumps({"facts": rows, "rules": rules}))
    assert "some facts come without a question" in said(facts=str(file))
    file.write_text(json.dumps({"facts": [{**rows[0], "question": "q", "answer": "a"}], "rules": rules}))
    assert said(facts=str(file)) == ""


def test_a_run_asks_its_models_the_facts(tmp_path: Path) -> None:
    """f1 is to be forgotten: the original, which learnt all four facts, can say it; the record has every figure of both."""
    rows = [(f"f{i}", f"{'abcd'[i]}?", "xyzw"[i]) for i in range(4)]
    parts = [("Ann", "child", "Bob"), ("Carl", "child", "Bob"), ("Ann", "husband", "Carl"), ("Bob", "job", "monk")]
    facts = [
        {"subject": a, "relation": r, "object": b, "question": asked, "answer": said, "id": name}
        for (a, r, b), (name, asked, said) in zip(parts, rows, strict=True)
    ]
    rules = [{"if": "husband(?x, ?y), child(?x, ?z)", "then": "child(?y, ?z)"}]
    (tmp_path / "facts.json").write_text(json.dumps({"facts": facts, "rules": rules}))
    write = {"train.csv": rows, "held.csv": [(f"h{i}", f"{i}?", "q") for i in range(8)]}
    for name, own in write.items():
        (tmp_path / name).write_text("id,prompt,answer\n" + "".join(f"{','.join(row)}\n" for row in own))
    task = Generation(byte_tokenizer(), 64, (), "{prompt}={answer}")
    encoded = task.encode_texts([row[1:] for row in rows])
    recipe = Recipe(epochs=80.0, learning_rate=1e-2, batch_size=4)
    train(tiny_causal(), task, encoded, recipe, seed=0).save_pretrained(tmp_path / "model")
    task.tokenizer.save_pretrained(tmp_path / "model")
    (tmp_path / "ids.txt").write_text("f1\n")
    words = [
        "run", "--model", str(tmp_path / "model"), "--data", str(tmp_path / "train.csv"), "--id", "id", "--forget",
        str(tmp_path / "ids.txt"), "--held-out", str(tmp_path / "held.csv"), "--method", "gradient-ascent", "--out",
        str(tmp_path / "out"), "--template", "{prompt}={answer}", "--max-length", "64", "--audit", "deep-unlearning",
    ]  # fmt: skip
    sets = [f"data.facts={json.dumps(str(tmp_path / 'facts.json'))}", "training.epochs=2.0", "training.min_steps=2"]
    cli.app([*words, *(part for one in sets for part in ("--set", one))], standalone_mode=False)
    record = RunRecord.read(tmp_path / "out")
    found = [row for row in record.measurements if row.audit == "deep-unlearning"]
    assert {(row.name.split(":")[0].split(",")[0], row.model) for row in found} == {
        (name, model)
        for name in ("superficial forgetting", "success", "recall", "accuracy")
        for model in ("original", "unlearned")
    }
    assert record.find("superficial forgetting", "original", "forget").value == 0
    assert record.find("accuracy, all other facts", "original", "forget").value == 1
