"""Erasing sentences from a tagger, end to end: from Python, from CoNLL files, by mention and by entity, and when refused."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import call
from expunge import AuditConfig, StopConfig, TrainingConfig, UsageError, unlearn
from expunge.checks import Inputs, check
from expunge.config import Recipe, RequestConfig, RunConfig
from expunge.fit import train
from expunge.models import weights_sha256
from expunge.record import RunRecord
from expunge.report import render
from expunge.tasks.token_classification import TokenClassification
from expunge.testing import TAGS, tiny_tagger, tiny_tokenizer, toy_sentences
from test_cli import digest

QUICK: dict[str, Any] = {
    "training": TrainingConfig(min_steps=8, epochs=1.0, learning_rate=5e-4),
    "stop": StopConfig(every=4),
    "audit": AuditConfig(bootstrap=50),
    "id": "id",
}
SETS = ["--set", "training.min_steps=8", "--set", "training.epochs=1.0", "--set", "audit.bootstrap=50"]


def conll(path: Path, rows: list[dict[str, Any]]) -> Path:
    blocks = (
        "\n".join([f"# id: {row['id']}", *map("\t".join, zip(row["tokens"], row["ner_tags"], strict=True))])
        for row in rows
    )
    path.write_text("\n\n".join(blocks) + "\n", encoding="utf-8")
    return path


@dataclass(frozen=True)
class TaggerJob:
    """A fitted tagger with its records, in memory and on disk."""

    folder: Path
    model: Any
    tokenizer: Any
    train: list[dict[str, Any]]
    held_out: list[dict[str, Any]]

    def flags(self, **changes: object) -> list[str]:
        options = {
            "model": self.folder / "model", "data": self.folder / "train.conll", "id": "id",
            "held-out": self.folder / "held.conll", "salt-file": self.folder / "salt", "forget": self.folder / "ids.txt",
            **changes,
        }  # fmt: skip
        return [word for name, value in options.items() if value is not None for word in (f"--{name}", str(value))]


@pytest.fixture(scope="module")
def tagger(tmp_path_factory: pytest.TempPathFactory) -> TaggerJob:
    folder = tmp_path_factory.mktemp("tagger")
    rows, held_out, tokenizer = toy_sentences(160, seed=1), toy_sentences(120, seed=2), tiny_tokenizer()
    task = TokenClassification(tokenizer, 48, TAGS)
    encoded = task.encode_texts(
        [row["tokens"] for row in rows], [[TAGS.index(tag) for tag in row["ner_tags"]] for row in rows]
    )
    recipe = Recipe(epochs=35.0, learning_rate=3e-3, batch_size=16)
    model = train(tiny_tagger(seed=5), task, encoded, recipe, seed=0)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    conll(folder / "train.conll", rows)
    conll(folder / "held.conll", held_out)
    (folder / "ids.txt").write_text("\n".join(row["id"] for row in rows[:24]), encoding="utf-8")
    (folder / "salt").write_bytes(b"a salt of the tests, not a secret")
    return TaggerJob(folder, model, tokenizer, rows, held_out)


@pytest.mark.parametrize("method", ["deepcut", "contrastive", "gradient-difference"])
def test_sentences_are_forgotten(tagger: TaggerJob, method: str) -> None:
    ids = [row["id"] for row in tagger.train[:24]]
    before = weights_sha256(tagger.model)
    erased = unlearn(
        tagger.model, tagger.train, method, forget=ids, held_out=tagger.held_out, tokenizer=tagger.tokenizer, **QUICK
    )
    record = erased.record
    assert weights_sha256(tagger.model) == before == record.models["original"]["sha256"]
    assert weights_sha256(erased.model) == record.models["unlearned"]["sha256"] != before
    assert record.data["forget"] == 24
    assert record.data["words_cut"] == 0
    original, unlearned = (record.find("accuracy", model, "forget") for model in ("original", "unlearned"))
    assert original is not None
    assert unlearned is not None
    words = sum(len(row["tokens"]) for row in tagger.train[:24])
    assert unlearned.value < original.value, "over its words, of which each record brings several"
    assert (unlearned.value * words) % 1 == pytest.approx(0, abs=1e-6)
    for name in ("accuracy", "entity F1"):
        for group in ("forget", "retain", "evaluation"):
            assert record.find(name, "unlearned", group) is not None
    names = [criterion["name"] for criterion in record.verdict["classes"]["population"]["criteria"]]
    assert "evaluation entity F1 minus the original's" in names
    page = render(record)
    for word in ("entity F1, forget", "of its words' mean", "for part of the models or words"):
        assert word in page


def test_scores_of_sentences_come_word_by_word(tagger: TaggerJob) -> None:
    erased = unlearn(
        tagger.model,
        tagger.train,
        forget=0.05,
        held_out=tagger.held_out,
        tokenizer=tagger.tokenizer,
        max_length=16,
        **QUICK,
    )
    long = ["river", *["w1"] * 20]
    found = erased.score([["w3", "engine", "w4-w5"], long, ["w9"]])
    assert [rows.shape for rows in found] == [(3, 5), (21, 5), (1, 5)]
    np.testing.assert_allclose(found[0].sum(axis=1), 1, atol=1e-6)
    assert np.isnan(found[1]).any(axis=1).tolist() == [False] * 14 + [True] * 7, "[CLS], 14 words, [SEP]"
    assert [rows.shape for rows in erased.score([[]])] == [(0, 5)]
    alone = erased.score([["w9"]])
    np.testing.assert_allclose(alone[0], found[2], atol=1e-5)
    with pytest.raises(UsageError, match="Split sentences into words"):
        erased.score(["w3 engine"])
    following = erased.forget_next([erased.prepared.train.ids[erased.prepared.request.retain[0]]])
    first = len(erased.prepared.request.forget)
    assert following.record.data["retain"] == following.record.data["train"] - first - 1


def test_the_command_line_reads_conll_files(tagger: TaggerJob, tmp_path: Path) -> None:
    before = digest(tagger.folder)
    code, _, error = call(["run", *tagger.flags(out=tmp_path / "out"), *SETS])
    assert code == 0, error
    assert digest(tagger.folder) == before
    record = RunRecord.read(tmp_path / "out")
    assert record.config["data"]["text"] == ["tokens"], "the record says which columns were read"
    assert record.config["data"]["label"] == "ner_tags"
    assert record.data["forget"] == 24
    code, _, error = call(["audit", str(tmp_path / "out"), *_again(tagger), "--out", str(tmp_path / "b")])
    assert code == 0, error
    repeated = RunRecord.read(tmp_path / "b")
    first, second = (r.find("entity F1", "unlearned", "evaluation") for r in (record, repeated))
    assert first is not None
    assert second is not None
    assert first.value == second.value


def _again(tagger: TaggerJob) -> list[str]:
    return ["--forget", str(tagger.folder / "ids.txt")]


def prepared(tagger: TaggerJob, request: dict[str, Any], **data: Any) -> Any:
    values = {
        "model": {"path": str(tagger.folder / "model")},
        "data": {"train": str(tagger.folder / "train.conll"), "held_out": str(tagger.folder / "held.conll"), **data},
        "request": request,
        "privacy": {"salt_file": str(tagger.folder / "salt")},
    }
    return check(RunConfig.from_dict(values))


def test_sentences_are_named_by_number_condition_mention_or_entity(tagger: TaggerJob) -> None:
    rows = tagger.train
    by_number = prepared(tagger, {"ids": ["3", "7"]}, id="sentence")
    assert by_number.request.forget == (2, 6)
    assert prepared(tagger, {"where": "sentence <= 4"}).request.forget == (0, 1, 2, 3)
    word = rows[0]["tokens"][0]
    mentioning = [i for i, row in enumerate(rows) if word in row["tokens"]]
    assert list(prepared(tagger, {"mention": f" {word.upper()}"}, id="id").request.forget) == mentioning
    machines = [i for i, row in enumerate(rows) if "B-machine" in row["ner_tags"]]
    assert list(prepared(tagger, {"label": "machine"}).request.forget) == machines
    longer = [i for i, row in enumerate(rows) if "I-machine" in row["ner_tags"]]
    assert list(prepared(tagger, {"label": "I-machine"}).request.forget) == longer


def test_a_request_of_sentences_is_read_in_the_datas_format(tagger: TaggerJob, tmp_path: Path) -> None:
    for name in ("rows.tsv", "rows.txt", "rows"):
        conll(tmp_path / name, tagger.train[2:5])
        found = prepared(tagger, {"file": str(tmp_path / name)}, id="id", format="conll")
        assert found.request.forget == (2, 3, 4)
        assert len(prepared(tagger, {"file": str(tmp_path / name)}, format="conll").request.forget) == 3, "by content"


def test_the_record_does_not_keep_the_mention(tagger: TaggerJob) -> None:
    erased = unlearn(
        tagger.model, tagger.train, forget=RequestConfig(mention="river river"), held_out=tagger.held_out,
        tokenizer=tagger.tokenizer, **QUICK,
    )  # fmt: skip
    assert erased.record.data["forget"] == sum(row["tokens"].count("river") == 2 for row in tagger.train)
    text = erased.record.to_json() + render(erased.record)
    assert "river river" not in text


def test_words_behind_the_limit_are_told(tagger: TaggerJob) -> None:
    found = unlearn(
        tagger.model,
        tagger.train,
        forget=0.1,
        held_out=tagger.held_out,
        tokenizer=tagger.tokenizer,
        max_length=8,
        **QUICK,
    )
    task = found.prepared.task
    cut = sum(
        len(row["tokens"]) - len(task.encode_texts([row["tokens"]]).labels[0]) for row in tagger.train + tagger.held_out
    )
    assert found.record.data["words_cut"] == cut > 0
    assert f"{cut} words lie behind the 8 tokens" in render(found.record)


def test_the_recipes_length_is_the_tasks(tagger: TaggerJob, tmp_path: Path) -> None:
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("max_length = 20\n", encoding="utf-8")

    def length(given: int | None) -> int:
        config = RunConfig.from_dict(
            {
                "retrain": {"recipe": str(recipe)},
                "model": {"max_length": given},
                "request": {"fraction": 0.1},
                "privacy": {"salt_file": str(tagger.folder / "salt")},
            }
        )
        inputs = Inputs(tagger.model, tagger.tokenizer, tagger.train, tagger.held_out, None, None)
        return check(config, inputs).task.max_length

    assert length(None) == length(20) == 20
    with pytest.raises(UsageError, match="it is 30, but the recipe trains on 20 tokens"):
        length(30)


Change = Callable[[TaggerJob, Path], dict[str, object]]


def jsonl(change: Callable[[list[dict[str, Any]]], object], option: str = "data") -> Change:
    """The training or held-out rows with something done to them, as JSONL."""

    def apply(tagger: TaggerJob, tmp: Path) -> dict[str, object]:
        rows = json.loads(json.dumps(tagger.train if option == "data" else tagger.held_out))
        change(rows)
        (tmp / f"{option}.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
        return {option: tmp / f"{option}.jsonl"}

    return apply


def options(**values: object) -> Change:
    return lambda tagger, tmp: {name.replace("_", "-"): value for name, value in values.items()}


def line(text: str) -> Change:
    def apply(tagger: TaggerJob, tmp: Path) -> dict[str, object]:
        (tmp / "d.conll").write_text(
            (tagger.folder / "train.conll").read_text(encoding="utf-8") + text, encoding="utf-8"
        )
        return {"data": tmp / "d.conll"}

    return apply


CASES: list[tuple[str, Change, list[str]]] = [
    ("unknown tags", jsonl(lambda rows: rows[3]["ner_tags"].__setitem__(0, "B-wind")), ["'B-wind'", "O, B-water"]),
    ("tags missing", jsonl(lambda rows: rows[4]["ner_tags"].pop()), ["not one tag a word", "row 5", "words, ", "tags. Give"]),
    ("an empty sentence", jsonl(lambda rows: rows[5].update(tokens=[], ner_tags=[])), ["hold no word", "row 6"]),
    ("a string of words", jsonl(lambda rows: rows[6].update(tokens="a b")), ["no list of words", "row 7", ".conll"]),
    ("a number among words", jsonl(lambda rows: rows[7]["tokens"].__setitem__(0, 7)), ["no list of words", "row 8"]),
    ("no tags at all", jsonl(lambda rows: rows[8].update(ner_tags=None)), ["no list of tags", "row 9"]),
    ("an id twice", jsonl(lambda rows: rows[9].update(id="s1-0000")), ["stand in several rows", "s1-0000"]),
    ("two text columns", lambda j, t: {"set": 'data.text=["tokens","id"]'}, ["2 text columns"]),
    ("no room for words", lambda j, t: {"set": "model.max_length=2"}, ["2 tokens leave no room for a word", "Give more"]),
    ("a lonely word", line("\nlonely\n"), ["one column only, the first is line"]),
    ("a text column", options(text="text"), ['no column "text"', "Its columns: tokens, ner_tags, sentence, id"]),
    (
        "an id in both",
        jsonl(lambda rows: rows[0].update(id="s1-0003"), "held-out"),
        ["1 of 120 held-out records have the id of a record to forget", "--drop-overlap"],
    ),
    ("an unknown type", options(forget=None, forget_label="machin"), ['"machin"', 'Did you mean "machine"?', "water"]),
    (
        "every sentence",
        options(forget=None, forget_label="O"),
        ["all 160 records are to", "Some records must"],
    ),
    ("a mention of nobody", options(forget=None, forget_mention="nobody"), ["no record mentions 'nobody'"]),
    ("two requests", options(forget_mention="river"), ["named in several ways", "request.mention"]),
    ("an unknown format", options(format="conl"), ["data.format", "'conl'", "'conll'"]),
]  # fmt: skip


@pytest.mark.parametrize(("name", "change", "words"), CASES, ids=[case[0] for case in CASES])
def test_it_is_refused_with_the_way_out(
    tagger: TaggerJob, tmp_path: Path, name: str, change: Change, words: list[str]
) -> None:
    flags = {"out": tmp_path / "out", **change(tagger, tmp_path)}
    before = digest(tagger.folder), digest(tmp_path)
    code, out, error = call(["run", *tagger.flags(**flags)])
    assert (code, out) == (2, ""), error
    for word in words:
        assert word in error
    assert (digest(tagger.folder), digest(tmp_path)) == before


def test_all_that_is_wrong_with_sentences_comes_at_once(tagger: TaggerJob) -> None:
    rows = json.loads(json.dumps(tagger.train))
    rows[0]["tokens"], rows[1]["ner_tags"], rows[3]["tokens"] = "a b", ["B-wind"], []
    with pytest.raises(UsageError) as error:
        unlearn(tagger.model, rows, forget=["nobody"], held_out=tagger.held_out[:1], tokenizer=tagger.tokenizer)
    for word in ("no list of words", "hold no word", "not one tag a word", "'B-wind'"):
        assert word in str(error.value)


def test_records_with_the_id_of_a_forgotten_one_can_be_dropped(tagger: TaggerJob, tmp_path: Path) -> None:
    held_out = jsonl(lambda rows: rows[0].update(id="s1-0003"), "held-out")(tagger, tmp_path)["held-out"]
    found = prepared(tagger, {"ids": ["s1-0003"]}, id="id", held_out=str(held_out), overlap="drop")
    assert found.dropped == 1


def test_a_mention_is_named_again_to_measure_again(tagger: TaggerJob, tmp_path: Path) -> None:
    mention = tagger.flags(**{"forget": None, "forget-mention": "river river", "out": tmp_path / "out"})
    assert call(["run", *mention, *SETS])[0] == 0
    again = ["audit", str(tmp_path / "out"), "--out", str(tmp_path / "again"), "--set", "audit.bootstrap=50"]
    code, _, error = call(again)
    assert code == 2
    assert "only as a pseudonym" in error
    assert "--set request.mention=" in error
    code, _, error = call([*again, "--set", "request.mention=river river"])
    assert code == 0, error


def test_a_tagger_is_compared_with_a_retrained_one(tagger: TaggerJob, tmp_path: Path) -> None:
    """The base has no head: it gets a fresh one, trained without the sentences."""
    tiny_tagger(seed=5).bert.save_pretrained(tmp_path / "base")
    recipe = tmp_path / "recipe.toml"
    recipe.write_text("epochs = 4\nlearning_rate = 3e-3\nbatch_size = 16\n", encoding="utf-8")
    found = unlearn(
        tagger.model, tagger.train, forget=0.15, held_out=tagger.held_out, tokenizer=tagger.tokenizer,
        base=str(tmp_path / "base"), recipe=str(recipe), **QUICK,
    )  # fmt: skip
    assert found.record.verdict["evidence"] == "retrain-compared"
    retrained = found.record.find("entity F1", "retrained", "evaluation")
    assert retrained is not None
    assert retrained.n == found.record.data["evaluation"]


def test_layers_and_stress_of_a_tagger(tagger: TaggerJob) -> None:
    """The original as unlearned model: its layers hold the tags of forget words better than those of unseen ones."""
    from expunge.execution import Run

    names = ["latent-probe", "relearning", "int8", "reworded"]
    values = {"data": {"id": "id"}, "audit": {"audits": names, "bootstrap": 50}, "request": {"fraction": 0.4}}
    inputs = Inputs(tagger.model, tagger.tokenizer, tagger.train, tagger.held_out)
    run = Run(check(RunConfig.from_dict(values), inputs))
    encoded = run._encode()
    original, again = (run._score(tagger.model, encoded, kind) for kind in ("original", "unlearned"))
    layers = original["forget"].layers
    assert layers is not None
    assert layers.shape == (len(original["forget"].labels), 3, 32), "fewer words than the cap: all of them"
    record = run._record([original], [again], [], {}, {}, 0.0, None)
    assert not record.not_measured
    assert {m.audit for m in record.measurements} == set(names)
    by = {(m.name, m.model): m for m in record.measurements}
    assert by["label probe AUC, layer 2", "unlearned"].value > by["label probe AUC, layer 0", "unlearned"].value
    assert by["label probe AUC, layer 2", "unlearned"].low > 0.5
    assert by["label probe AUC, layer 2", "unlearned"].n == 64 + len(original["evaluation"])
    assert "relearning" in {f.audit for f in record.findings}
