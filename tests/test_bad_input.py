"""Bad input: one message naming the value and the way out, exit code 2, no traceback, nothing written, inputs untouched."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from conftest import Job, call, write_csv
from test_cli import digest

Change = Callable[[Job, Path], dict[str, object]]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8") as file:
        return list(csv.DictReader(file))


def changed_rows(change: Callable[[list[dict[str, str]]], list[dict[str, str]]], option: str = "data") -> Change:
    """The training (or held-out) file with its rows changed."""

    def apply(job: Job, tmp: Path) -> dict[str, object]:
        source = job.train if option == "data" else job.held_out
        return {option: write_csv(tmp / f"{option}.csv", change(rows_of(source)))}

    return apply


def ids(text: str) -> Change:
    def apply(job: Job, tmp: Path) -> dict[str, object]:
        (tmp / "ids.txt").write_text(text, encoding="utf-8")
        return {"forget": tmp / "ids.txt"}

    return apply


def model_folder(change: Callable[[Path], object]) -> Change:
    """The model folder with something done to it."""

    def apply(job: Job, tmp: Path) -> dict[str, object]:
        shutil.copytree(job.model, tmp / "model")
        change(tmp / "model")
        return {"model": tmp / "model"}

    return apply


def config_json(**values: object) -> Change:
    return model_folder(lambda folder: config_json_in(folder, **values))


def config_json_in(folder: Path, **values: object) -> None:
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    (folder / "config.json").write_text(json.dumps({**config, **values}), encoding="utf-8")


def jsonl(tmp: Path, change: dict[str, object]) -> Path:
    """The training rows of the tiny job, one of them changed."""
    from expunge.testing import toy_records

    rows: list[dict[str, object]] = [dict(row) for row in toy_records(240, seed=1)]
    rows[0].update(change)
    (tmp / "data.jsonl").write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    return tmp / "data.jsonl"


def replaced(path: Path, old: str, new: str) -> Path:
    path.write_text(path.read_text(encoding="utf-8").replace(old, new), encoding="utf-8")
    return path


def encoded(source: Path, path: Path, encoding: str) -> Path:
    path.write_text(source.read_text(encoding="utf-8"), encoding=encoding)
    return path


def set_(*words: str) -> Change:
    return lambda job, tmp: {"set": list(words)}


def options(**values: object) -> Change:
    return lambda job, tmp: dict(values)


def pickled(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def same_content(job: Job, tmp: Path) -> dict[str, object]:
    return {"held-out": write_csv(tmp / "held.csv", rows_of(job.held_out)[:100] + rows_of(job.train)[:3])}


def existing(job: Job, tmp: Path) -> dict[str, object]:
    (tmp / "there").mkdir()
    (tmp / "there" / "mine.txt").write_text("precious", encoding="utf-8")
    return {"out": tmp / "there"}


def recipe(text: str) -> Change:
    def apply(job: Job, tmp: Path) -> dict[str, object]:
        (tmp / "recipe.toml").write_text(text, encoding="utf-8")
        return {"retrain": True, "base": job.base, "recipe": tmp / "recipe.toml"}

    return apply


def other_vocabulary(job: Job, tmp: Path) -> dict[str, object]:
    shutil.copytree(job.base, tmp / "base")
    config = json.loads((tmp / "base" / "config.json").read_text(encoding="utf-8"))
    (tmp / "base" / "config.json").write_text(json.dumps({**config, "vocab_size": 99}), encoding="utf-8")
    return {"retrain": True, "base": tmp / "base", "recipe": job.recipe}


def short_salt(job: Job, tmp: Path) -> dict[str, object]:
    (tmp / "salt").write_bytes(b"short")
    return {"salt-file": tmp / "salt"}


CASES: list[tuple[str, Change, list[str]]] = [
    ("no text column", options(text="body"), ['no column "body"', "Its columns: id, text, label"]),
    ("no label column", options(label="lable"), ['no column "lable"', 'Did you mean "label"?']),
    ("no id column", options(id="key"), ['no column "key"', "Its columns"]),
    (
        "three text columns",
        lambda j, t: {"text": None, **set_('data.text=["text", "id", "label"]')(j, t)},
        ["3 text columns", "two for a text pair"],
    ),
    (
        "unknown label",
        changed_rows(lambda rows: [{**rows[0], "label": "wind"}, *rows[1:]]),
        ["1 records have labels", "'wind'", "water, machine, music", "--labels"],
    ),
    ("too few label names", options(labels="a,b"), ["2 different names are given for 3 classes", "Give every class"]),
    (
        "an id twice",
        changed_rows(lambda rows: [rows[0], {**rows[1], "id": rows[0]["id"]}, *rows[2:]]),
        ["stand in several rows", "r1-0000", "Ids must be unique"],
    ),
    (
        "an empty id",
        changed_rows(lambda rows: [{**rows[0], "id": ""}, *rows[1:]]),
        ["1 row has no id", "Give every row"],
    ),
    ("training file missing", options(data="nowhere.csv"), ['"nowhere.csv" does not exist', "Give a .csv"]),
    ("held-out file missing", options(**{"held-out": "./nowhere.jsonl"}), ["data.held_out", "does not exist"]),
    ("no held-out data", options(**{"held-out": None}), ["data.held_out", "no data is named"]),
    ("hub id out of reach", options(data="nobody/nothing"), ['"nobody/nothing" is no file', "hub id you can reach"]),
    ("empty request", ids("\n\n"), ["the erasure request is empty", "Name at least one record"]),
    ("no request", options(forget=None), ["no records to forget are named", "--forget"]),
    ("two requests", options(**{"forget-fraction": 0.1}), ["named in several ways", "Give exactly one"]),
    ("share of all", options(**{"forget": None, "forget-fraction": 1.5}), ["request.fraction", "1.5", "less than 1"]),
    ("request file missing", options(forget="nowhere.txt"), ['"nowhere.txt" cannot be read', "one id a line"]),
    ("ids with a header", ids("key\nr1-0000\nr1-0001\n"), ["1 of 3", "key", "It is the first line of the file"]),
    ("ids not found", ids("r1-0000\nu404\n"), ["1 of 2 requested ids", "u404", "--allow-missing"]),
    ("no id found at all", lambda j, t: {**ids("u404\n")(j, t), "allow-missing": True}, ["1 of 1", "u404"]),
    (
        "request is everything",
        lambda job, tmp: ids("\n".join(r["id"] for r in rows_of(job.train)))(job, tmp),
        ["all 240 records are to be forgotten", "Some records must stay"],
    ),
    (
        "held-out overlaps training",
        same_content,
        ["3 of 103 held-out records are also in the training", "--drop-overlap"],
    ),
    (
        "held-out is too small",
        changed_rows(lambda rows: rows[:1], "held-out"),
        ["data.held_out", "records are left", "Give more held-out"],
    ),
    ("model folder missing", options(model="./no/model"), ['"./no/model" is no folder', "save_pretrained"]),
    ("no model named", options(model=None), ["no model is named", "Set model.path"]),
    (
        "no weights",
        model_folder(lambda f: (f / "model.safetensors").unlink()),
        ["holds no weights", "model.safetensors"],
    ),
    (
        "no weights and no head",
        model_folder(lambda f: (config_json_in(f, architectures=["BertModel"]), (f / "model.safetensors").unlink())),
        ["holds no weights", "BertModel, not a text classifier"],
    ),
    ("pickled weights", model_folder(pickled), ["pickled weights only", "pytorch_model.bin", "save_pretrained"]),
    ("no config.json", model_folder(lambda f: (f / "config.json").unlink()), ["has no config.json"]),
    (
        "broken config.json",
        model_folder(lambda f: (f / "config.json").write_text("{")),
        ["model.path", "cannot be loaded"],
    ),
    (
        "an adapter",
        model_folder(lambda f: (f / "adapter_config.json").write_text("{}")),
        ["an adapter beside a whole model", "merge"],
    ),
    (
        "no tokenizer",
        model_folder(lambda f: [(f / n).unlink() for n in ("tokenizer.json", "tokenizer_config.json")]),
        ["the tokenizer of", "tokenizer.save_pretrained"],
    ),
    ("an encoder without head", config_json(architectures=["BertModel"]), ["BertModel, not a text classifier"]),
    ("a masked language model", config_json(architectures=["BertForMaskedLM"]), ["not a text classifier or tagger"]),
    ("a multi-label model", config_json(problem_type="multi_label_classification"), ["multi_label", "single-label"]),
    ("a regression model", config_json(problem_type="regression"), ["regression", "single-label"]),
    ("a quantised model", config_json(quantization_config={"quant_method": "x"}), ["quantised", "before quantisation"]),
    ("output exists", existing, ["exists already", "nothing is overwritten"]),
    ("unknown key", set_("method.gama=0.1"), ['unknown key "gama"', 'Did you mean "gamma"?']),
    ("unknown section", set_("modle.path=x"), ['"modle"', 'Did you mean "model"?']),
    ("no equals sign", set_("method.gamma"), ['"method.gamma" has no "="', "section.key=value"]),
    ("negative temperature", set_("method.temperature=-0.1"), ["method.temperature", "-0.1", "greater than 0"]),
    ("NaN weight", set_("method.gamma=nan"), ["method.gamma", "nan", "finite"]),
    ("text for a number", set_("training.learning_rate=fast"), ["training.learning_rate", "'fast'", "number"]),
    ("half a batch", set_("training.batch_size=0.5"), ["training.batch_size", "0.5", "integer"]),
    ("unknown method", options(method="deepcat"), ['unknown name "deepcat"', 'Did you mean "deepcut"?']),
    ("unknown audit", set_('audit.audits=["utilty"]'), ["utilty", 'Did you mean "utility"?']),
    ("unknown evidence", options(require="proof"), ["audit.require", "'proof'", "population"]),
    ("retraining without base", options(retrain=True), ["retrain.base and retrain.recipe", "--base PATH", "--recipe"]),
    ("retrain method without recipe", options(method="retrain"), ["retraining is asked for without"]),
    (
        "recipe missing",
        lambda j, t: {"retrain": True, "base": j.base, "recipe": "no.toml"},
        ["no.toml", "cannot be read"],
    ),
    ("bad recipe", recipe("epochs = -1\nlr = 1\n"), ["recipe.epochs", "-1", 'unknown key "lr"']),
    ("base with another vocabulary", other_vocabulary, ["its vocabulary has 99 tokens", "fine-tuned from"]),
    (
        "base missing",
        lambda j, t: {"retrain": True, "base": "./none", "recipe": j.recipe},
        ["retrain.base", "no folder"],
    ),
    ("retrained model missing", options(retrained="./none"), ["retrain.models", "no folder"]),
    ("salt too short", short_salt, ["has 5 bytes", "at least 16"]),
    ("salt missing", options(**{"salt-file": "no.salt"}), ["no.salt", "cannot be used"]),
    ("seed too large", options(seed=20240101123456), ["seed", "20240101123456", "2^32"]),
    ("evidence that cannot come", options(require="retrain-compared"), ["no retrained model", "--retrained FOLDER"]),
    (
        "other classes",
        lambda j, t: {
            "retrained": model_folder(lambda f: config_json_in(f, id2label={"0": "a", "1": "b", "2": "c"}))(j, t)[
                "model"
            ]
        },
        ["has other classes than the model", "same order"],
    ),
    (
        "the model as its own base",
        lambda j, t: {"retrain": True, "base": j.model, "recipe": j.recipe},
        ["fine-tuned model itself"],
    ),
    (
        "two lengths",
        lambda job, tmp: {**recipe("max_length = 32\n")(job, tmp), "set": ["model.max_length=24"]},
        ["it is 24, but the recipe trains on 32 tokens"],
    ),
    ("too long", set_("model.max_length=1000"), ["1000 tokens are more", "at most 64"]),
    ("no padding token in the config", config_json(pad_token_id=None), ["no padding token", "pad_token_id"]),
    ("gaps in id2label", config_json(id2label={"0": "water", "2": "machine", "5": "music"}), ["id2label", "[0, 2, 5]"]),
    ("one view without partners", set_("method.partners=views"), ["method.views", "Set views to 2"]),
    (
        "a condition on nothing",
        options(forget=None, **{"forget-where": "author == 'x'"}),
        ["request.where", "Columns: id"],
    ),
    ("values for a condition", options(forget=None, **{"forget-where": "0"}), ["request.where", "column == 'value'"]),
    ("a label that is a list", lambda j, t: {"data": jsonl(t, {"label": ["water", "music"]})}, ["['water', 'music']"]),
    ("a cut emoji", lambda j, t: {"data": jsonl(t, {"text": "\ud83d"})}, ["broken Unicode", "row 1"]),
    ("no text at all", lambda j, t: {"data": jsonl(t, {"text": None})}, ["1 row has no text", "row 1"]),
    (
        "a semicolon file",
        lambda j, t: {"data": shutil.copy(j.train, t / "s.csv") and replaced(t / "s.csv", ",", ";")},
        ["s.csv", "separated by semicolons", "commas"],
    ),
    (
        "a UTF-16 file",
        lambda j, t: {"data": encoded(j.train, t / "u.csv", "utf-16")},
        ["u.csv", "not UTF-8", "save it as UTF-8"],
    ),
    ("ids without an id column", options(id=None), ["No id column is named (--id)", "as rows"]),
    (
        "an unknown class",
        options(forget=None, **{"forget-label": "musik"}),
        ['"musik" is no class', 'Did you mean "music"?', "water, machine, music"],
    ),
    ("a mention of nobody", options(forget=None, **{"forget-mention": "Ann Onymous"}), ["no record mentions"]),
    (
        "a share above all",
        options(**{"near-duplicates": 1.5}),
        ["request.near_duplicates", "1.5", "less than or equal to 1"],
    ),
    ("a share of nothing", options(**{"near-duplicates": 0}), ["request.near_duplicates", "0", "greater than 0"]),
    ("neighbours without a base", options(neighbours=0.9), ["request.neighbours", "no base model", "--base PATH"]),
    ("a cosine above 1", options(neighbours=90), ["request.neighbours", "90", "less than or equal to 1"]),
    ("neighbours by name", set_("request.neighbours=many"), ["request.neighbours", "'many'", "number"]),
    ("negative seed", options(seed=-1), ["seed", "-1", "0 or more"]),
]


@pytest.mark.parametrize(("name", "change", "words"), CASES, ids=[case[0] for case in CASES])
def test_it_is_refused_with_the_way_out(job: Job, tmp_path: Path, name: str, change: Change, words: list[str]) -> None:
    flags = {"out": tmp_path / "out", **change(job, tmp_path)}
    sets = [part for word in flags.pop("set", ()) for part in ("--set", word)]  # pyright: ignore
    before = digest(job.folder), digest(tmp_path)
    code, out, error = call(["run", *job.flags(**flags), *sets])
    assert code == 2, error
    assert out == ""
    for word in words:
        assert word in error
    assert "Traceback" not in error
    assert "nothing was done" in error
    assert (digest(job.folder), digest(tmp_path)) == before
    assert not (tmp_path / "out").exists()


def test_there_are_enough_cases() -> None:
    assert len(CASES) >= 25
    assert len({name for name, _, _ in CASES}) == len(CASES)


def test_all_problems_come_at_once(job: Job, tmp_path: Path) -> None:
    flags = {"model": "./none", "text": "body", "forget": "none.txt", "salt-file": "none", "out": job.folder}
    code, _, error = call(["run", *job.flags(**flags, retrain=True)])
    assert code == 2
    assert "6 problems" in error
    for word in ("model.path", 'column "body"', "none.txt", "salt", "exists already", "retrain"):
        assert word in error


def test_what_is_wrong_with_settings_hides_nothing_of_the_inputs(job: Job) -> None:
    words = ["--set", "training.learning_rate=fast", "--set", "audit.more=rouge1"]
    code, _, error = call(["check", *job.flags(method="depcut", model="./none", forget="none.txt"), *words])
    assert code == 2
    for word in ("depcut", 'Did you mean "deepcut"', "'fast' is not allowed", "rouge1", "model.path", "none.txt"):
        assert word in error
    _, _, error = call(["check", *job.flags(method="depcut", label="reply")])
    assert "reply" in error, "a column that is wrong is told beside a method that is"
    _, _, error = call(["check", *job.flags(method="depcut"), "--set", "data.lable=topic"])
    assert 'unknown key "lable"' in error
    assert "no column" not in error, "what the data lack cannot be known while their settings are wrong"


def test_a_misspelt_file_is_met_with_the_one_beside_it(job: Job) -> None:
    near = {"data": job.train.with_name("trian.csv"), "model": f"{job.model}s", "forget": job.ids.with_name("idz.txt")}
    code, _, error = call(["check", *job.flags(**near)])
    assert code == 2
    for there in (job.train, job.model, job.ids):
        assert f'Did you mean "{there}"?' in error


def test_the_salt_is_not_made_in_silence(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    words = ["check", *(word for word in job.flags() if word not in ("--salt-file", str(job.salt)))]
    salt = str(tmp_path / "expunge" / "salt")
    assert call([*words, "--method", "depcut"])[0] == 2
    assert not (tmp_path / "expunge").exists(), "a refused command makes none"
    said = [salt in call(words)[2] for _ in range(2)]
    assert said == [True, False]


def test_a_place_where_nobody_may_look_is_told_with_all_else(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    """As a file of somebody else's closed folder; who runs these tests may be allowed everything."""
    plain = os.stat

    def closed(path: Any, *args: Any, **kwargs: Any) -> Any:
        if str(path).startswith("/closed"):
            raise PermissionError(13, "Permission denied", str(path))
        return plain(path, *args, **kwargs)

    monkeypatch.setattr(os, "stat", closed)
    code, _, error = call(["check", *job.flags(**{"salt-file": "/closed/salt", "forget": "none.txt"})])
    assert code == 2
    assert "privacy.salt_file" in error
    assert "none.txt" in error


def test_what_hangs_on_a_wrong_base_is_not_told_beside_it(job: Job) -> None:
    words = ["--base", "~nobody-at-all/x", "--neighbours", ".85", "--method", "depcut"]
    code, _, error = call(["check", *job.flags(), *words])
    assert code == 2
    assert "nobody-at-all" in error
    assert "request.neighbours" not in error


def test_a_wrong_command_line_is_2_and_shows_usage() -> None:
    for words in (["run", "--nope"], ["nope"], ["run", "--seed", "many"]):
        code, _, error = call(words)
        assert code == 2
        assert "Usage:" in error


def test_weights_that_only_loading_can_judge(job: Job, tmp_path: Path) -> None:
    """A truncated file and a missing head are refused when the weights are opened, still with nothing written."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(job.model, tmp_path / "headless")
    file = tmp_path / "headless" / "model.safetensors"
    save_file({k: v for k, v in load_file(file).items() if "classifier" not in k}, file, metadata={"format": "pt"})
    shutil.copytree(job.model, tmp_path / "cut")
    file = tmp_path / "cut" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-50])
    for name, word in (("headless", "lacks weights: classifier.bias"), ("cut", "cannot be loaded")):
        code, _, error = call(["run", *job.flags(model=tmp_path / name, out=tmp_path / "out")])
        assert code == 2
        assert word in error
        assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_is_exit_1(job: Job, tmp_path: Path) -> None:
    sets = ["--set", "training.learning_rate=1e30", "--set", "training.max_grad_norm=0.0", "--set", "stop.rule=none"]
    code, _, error = call(["run", *job.flags(out=tmp_path / "out"), *sets])
    assert code == 1
    assert "the loss is not finite at step" in error
    assert "Lower training.learning_rate" in error
    assert "Traceback" not in error
    assert list(tmp_path.iterdir()) == []


def test_missing_ids_are_listed_and_duplicates_shown(job: Job, tmp_path: Path) -> None:
    rows = rows_of(job.train)
    twin = {**rows[0], "id": "twin", "text": rows[0]["text"].upper() + " "}
    data = write_csv(tmp_path / "data.csv", [*rows, twin])
    (tmp_path / "ids.txt").write_text(f"{rows[0]['id']}\nu404\n", encoding="utf-8")
    flags = {"data": data, "forget": tmp_path / "ids.txt", "allow-missing": True}
    code, out, error = call(["check", *job.flags(**flags)])
    assert code == 0
    assert "1 to forget, 240 to retain" in out
    assert "twin" not in error, "ids are pseudonyms unless raw ones are wanted"
    assert "--with-duplicates" in error
    assert "u404" in error
    _, _, error = call(["check", *job.flags(**flags, **{"show-ids": True})])
    assert f"{rows[0]['id']} = twin" in error
    code, out, error = call(["check", *job.flags(**flags, **{"with-duplicates": True})])
    assert "2 to forget, 239 to retain" in out


def test_the_way_out_for_a_whole_class_is_told_to_deepcut_alone(job: Job) -> None:
    """Benchmarked on whole classes, gradient-difference came nearest to retraining, and contrastive's class form did not."""
    for method, advised in (("deepcut", True), ("gradient-difference", False), ("contrastive", False)):
        flags = job.flags(forget=None, method=method, **{"forget-label": "music"})
        code, _, error = call(["check", *flags])
        assert code == 0
        assert "No record of these classes stays: music." in error
        assert ("--method gradient-difference" in error) is advised
        assert 'form = "class"' not in error


def test_a_run_without_partners_names_the_method_that_needs_none(job: Job, tmp_path: Path) -> None:
    flags = job.flags(forget=None, out=tmp_path / "out", **{"forget-label": "music"})
    sets = ["--set", "training.min_steps=2", "--set", "training.epochs=0.1", "--set", "audit.bootstrap=20"]
    code, out, error = call(["run", *flags, *sets])
    assert code == 0, error
    assert "the forgetting term was 0" in out
    assert "use the method gradient-difference" in " ".join(out.split())
    assert 'form = "class"' not in out + error


def test_a_mention_across_the_texts_of_a_pair_is_none(job: Job, tmp_path: Path) -> None:
    pairs = [{**row, "more": row["text"]} for row in rows_of(job.train)]
    pairs[0] |= {"text": "here is John", "more": "Smith sings"}
    pairs[1] |= {"text": "it rains", "more": "John_Smith sings"}
    held_out = [{**row, "more": "x"} for row in rows_of(job.held_out)]
    data, held = write_csv(tmp_path / "pairs.csv", pairs), write_csv(tmp_path / "held.csv", held_out)
    flags = job.flags(forget=None, data=data, text="text", **{"held-out": held, "forget-mention": "John Smith"})
    code, out, error = call(["check", *flags, "--text", "more"])
    assert code == 0, error
    assert "1 to forget, 239 to retain" in out


def test_no_traceback_in_a_process_of_its_own(job: Job, tmp_path: Path) -> None:
    words = ["run", *job.flags(text="body", out=tmp_path / "out")]
    done = subprocess.run([sys.executable, "-m", "expunge", *words], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert done.stdout == ""
    assert "Traceback" not in done.stderr
    assert done.stderr.startswith("expunge: 2 problems")
    assert done.stderr.count("\n") == 3, "a headline and one line a problem"
