"""Bad input for language models: refused by `check` with the value and the way out, exit code 2, before weights load."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import call
from expunge.testing import byte_tokenizer, tiny_causal, toy_answers

Row = dict[str, Any]
ROWS: list[Row] = [dict(row) for row in toy_answers(20)]
HELD: list[Row] = [
    {**row, "id": f"held-{row['id']}", "prompt": row["prompt"].replace("Code", "Kode")}
    for row in toy_answers(12, seed=9)
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("answers") / "model"
    tiny_causal().save_pretrained(place)
    byte_tokenizer().save_pretrained(place)
    return place


def jsonl(path: Path, rows: list[Row]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    return path


def checked(
    folder: Path, tmp: Path, *more: str, rows: list[Row] = ROWS, held: list[Row] = HELD,
    ids: str = "q000\nq001\n", method: str = "npo",
) -> tuple[int, str]:  # fmt: skip
    """Exit code of `expunge check`, and what it says on stderr, in one line."""
    (tmp / "ids.txt").write_text(ids, encoding="utf-8")
    words = [
        "check", "--model", str(folder), "--data", str(jsonl(tmp / "train.jsonl", rows)), "--held-out",
        str(jsonl(tmp / "held.jsonl", held)), "--id", "id", "--forget", str(tmp / "ids.txt"), "--method", method, *more,
    ]  # fmt: skip
    code, _, error = call(words)
    return code, " ".join(error.split())


def with_row(**changes: Any) -> dict[str, Any]:
    return {"rows": [{**ROWS[0], **changes}, *ROWS[1:]]}


CASES: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[str, ...]]] = {
    "an empty answer": (with_row(answer="  "), (), ("1 row has an empty answer", "row 1", "leave them out")),
    "no answer": (with_row(answer=None), (), ("1 row has no text", "prompt, answer")),
    "a number for an answer": (with_row(answer=7), (), ("no text or broken Unicode",)),
    "half an emoji": (with_row(prompt="\ud83d"), (), ("no text or broken Unicode", "row 1")),
    "an answer cut to nothing": (
        with_row(prompt="x" * 70), ("--max-length", "40"), ("no token of an answer within 40 tokens", "raise model.max_length")
    ),
    "a prompt longer than the model reads": (
        with_row(prompt="x" * 300), (), ("no token of an answer within 256 tokens", "Shorten these prompts")
    ),
    "held-out prompts too long": (
        {"held": [{**HELD[0], "prompt": "x" * 300}, *HELD[1:]]}, (), ("data.held_out", "no token of an answer")
    ),
    "more length than positions": ({}, ("--max-length", "999"), ("999 tokens are more than the model has", "at most 256")),
    "ids that match nothing": ({"ids": "nobody\nno-one\n"}, (), ("nobody", "--allow-missing")),
    "no such column": ({}, ("--label", "reply"), ('no column "reply"', "Its columns: id, prompt, answer")),
    "two prompts": ({}, ("--text", "prompt", "--text", "id"), ("2 text columns are named",)),
    "class names": ({}, ("--labels", "yes,no"), ("Leave data.labels out",)),
    "a class to forget": ({}, ("--set", "request.file=", "--forget-label", "yes"), ("records have no class",)),
    "a template without an answer": (
        {}, ("--template", "Question {prompt}"), ("model.template", "end with {answer}")
    ),
    "false answers that are no texts": (with_row(perturbed_answers=["x", 3]), (), ("perturbed_answers", "row 1")),
    "a method for classes": ({"method": "random-labels"}, (), ("random-labels does not work", "npo")),
    "a layer the model lacks": ({"method": "rmu"}, ("--set", "method.layer=9"), ("9 is not allowed", "1 to 2")),
    "everything is to be forgotten": ({"ids": "\n".join(row["id"] for row in ROWS)}, (), ("nothing",)),
    "held-out records are in training": ({"held": [*HELD, ROWS[5]]}, (), ("also in the training data", "--drop-overlap")),
    "alpaca's input": (
        {"rows": [{"id": r["id"], "instruction": "Say it.", "input": r["prompt"], "output": r["answer"]} for r in ROWS]},
        (), ('a column "input" that says something', "part of the prompt"),
    ),
    "low-rank updates of what takes no steps": (
        {"method": "task-vector"}, ("--set", "training.lora_rank=4"), ("is no training loss, and would train all weights",)
    ),
    "a mean over tokens as classes": (
        {"method": "deepcut"}, ("--set", "method.average=classes"), ("method.average", "tokens weigh by how much they tell")
    ),
    "lists of messages": (
        {"rows": [{"id": row["id"], "messages": [{"role": "user", "content": row["prompt"]}]} for row in ROWS]}, (),
        ('no column "prompt"', "Bring each record's messages to a prompt and an answer"),
    ),
    "false answers that are missing": ({}, ("--audit", "truth-ratio"), ("truth-ratio needs false answers",)),
    "a base that is missing": ({}, ("--audit", "reference"), ("reference needs the base model", "--base")),
    "an audit that is misspelt": ({}, ("--audit", "truth_ratio"), ('Did you mean "truth-ratio"?',)),
    "neighbours": ({}, ("--neighbours", "0.9"), ("neighbours are looked for in an encoder",)),
}  # fmt: skip


@pytest.mark.parametrize("name", CASES)
def test_it_is_refused_with_the_way_out(name: str, folder: Path, tmp_path: Path) -> None:
    changes, more, words = CASES[name]
    code, said = checked(folder, tmp_path, *more, **changes)
    assert code == 2
    assert all(word in said for word in words), said
    assert "Traceback" not in said


def tokenizer(**changes: Any) -> Callable[[Path], None]:
    def apply(place: Path) -> None:
        file = place / "tokenizer_config.json"
        stored = {**json.loads(file.read_text(encoding="utf-8")), **changes}
        file.write_text(
            json.dumps({key: value for key, value in stored.items() if value is not None}), encoding="utf-8"
        )

    return apply


def config(**changes: Any) -> Callable[[Path], None]:
    def apply(place: Path) -> None:
        file = place / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text(encoding="utf-8")), **changes}), encoding="utf-8")

    return apply


MODELS: dict[str, tuple[Callable[[Path], None], tuple[str, ...]]] = {
    "no padding token": (tokenizer(pad_token=None), ("has no padding token", "tokenizer.pad_token =")),
    "no end of text": (tokenizer(eos_token=None), ("no end-of-text token", "tokenizer.eos_token =")),
    "more tokens than the vocabulary": (config(vocab_size=200), ("259 tokens, the model's vocabulary 200",)),
    "a chat template without the answer": (
        tokenizer(chat_template="{% for m in messages %}{{ m['role'] }}{% endfor %}"),
        ("chat template", "model.template ="),
    ),
    "a chat template that fails": (
        tokenizer(chat_template="{{ raise_exception('no') }}"),
        ("its chat template fails",),
    ),
    "quantised weights": (config(quantization_config={"quant_method": "bitsandbytes"}), ("quantised",)),
}


@pytest.mark.parametrize("name", MODELS)
def test_a_model_or_tokenizer_that_will_not_do(name: str, folder: Path, tmp_path: Path) -> None:
    import shutil

    change, words = MODELS[name]
    shutil.copytree(folder, tmp_path / "model")
    change(tmp_path / "model")
    code, said = checked(tmp_path / "model", tmp_path)
    assert code == 2
    assert all(word in said for word in words), said
    assert "Traceback" not in said


def test_what_is_right_passes(folder: Path, tmp_path: Path) -> None:
    more = ("--template", r"Question: {prompt}\nAnswer: {answer}", "--max-length", "64")
    code, said = checked(folder, tmp_path, *more)
    assert code == 0
    assert "Traceback" not in said
