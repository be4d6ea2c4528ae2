"""Privacy of the trail: every byte that runs write, and all they print, is searched for planted texts and ids."""

from __future__ import annotations

import itertools
import json
import logging
import tempfile
import traceback
import zipfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import call
from malformed_desk import Desk, jsonl, make_desk

NAMES = ("Zyxwarble", "Quöntyx", "Brø“gglestrand", "Vlim\tpanzee")
IDS = ("id-of-zyx-9c1f", "id-of-quø-77", "id-of-brø-5521", "id-of-vlim-31")
TEXTS = tuple(f"{name} owes river 4711-{i}" for i, name in enumerate(NAMES))
COPY = "id-of-a-copy-88"
CANARIES = (*NAMES, *IDS, COPY, *(f"4711-{i}" for i in range(len(NAMES))))
QUICK = ("training.learning_rate=1e-3", "audit.retain_sample=20")


def forms(canary: str) -> set[bytes]:
    """A string as files may hold it: in UTF-8, UTF-16 or Latin-1, in JSON, as Python's repr, in HTML, in lower case."""
    found = {canary, json.dumps(canary)[1:-1], repr(canary)[1:-1], canary.casefold(), canary.replace("“", "&#8220;")}
    coded = {form.encode() for form in found} | {canary.encode("utf-16-le"), canary.encode("utf-32-le")}
    return coded | {canary.encode("unicode_escape")}


def as_tokens(canary: str) -> set[bytes]:
    """The same as arrays of the byte tokenizer's token ids, of whatever width."""
    from expunge.testing import byte_tokenizer

    ids = np.array(byte_tokenizer()(canary, add_special_tokens=False)["input_ids"])
    return {ids.astype(kind).tobytes() for kind in ("<i2", "<i4", "<i8")}


def search(folder: Path, canaries: tuple[str, ...] = CANARIES) -> list[tuple[str, str]]:
    """(file, canary) for every canary in any file below a folder, its names and the members of its archives included."""
    found = []
    for canary in canaries:
        wanted = forms(canary) | as_tokens(canary)
        for file in sorted(folder.rglob("*")):
            for name, content in contents(file):
                if any(form in content for form in wanted) or canary in name:
                    found.append((name, canary))
    return found


def contents(file: Path) -> Iterator[tuple[str, bytes]]:
    if not file.is_file():
        yield str(file), b""
    elif zipfile.is_zipfile(file):  # .npz, and whatever else is an archive
        with zipfile.ZipFile(file) as archive:
            for member in archive.namelist():
                yield f"{file}:{member}", archive.read(member)
    else:
        yield str(file), file.read_bytes()


@dataclass
class Tree:
    """A folder for what runs write, their temporary files and caches within it, and another for what they are given."""

    given: Path
    written: Path
    desk: Desk
    printed: list[str] = field(default_factory=list)

    def run(self, words: list[str], code: int = 0) -> str:
        got, out, error = call(words)
        self.printed.append(out + error)
        assert got == code, error
        return out + error

    def found(self) -> list[tuple[str, str]]:
        log = self.written / "printed.log"
        log.write_text("\n".join(self.printed), encoding="utf-8")
        return search(self.written)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Desk:
    return make_desk(tmp_path_factory.mktemp("desk"))


@pytest.fixture
def tree(desk: Desk, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Tree]:
    """Temporary folders stay, as if the process had been killed, and every logger says all it has to say."""
    given, written = tmp_path / "given", tmp_path / "written"
    for folder in (given, written / "tmp", written / "home", written / "work"):
        folder.mkdir(parents=True)
    for name, place in (
        ("TMPDIR", "tmp"), ("HOME", "home"), ("XDG_CONFIG_HOME", "home/c"), ("XDG_CACHE_HOME", "home/k"),
        ("HF_HOME", "home/hf"),
    ):  # fmt: skip
        monkeypatch.setenv(name, str(written / place))
    monkeypatch.setattr(tempfile, "tempdir", str(written / "tmp"))
    monkeypatch.setattr(tempfile.TemporaryDirectory, "__exit__", lambda self, *_: self._finalizer.detach())
    monkeypatch.chdir(written / "work")
    handler, root = logging.FileHandler(written / "debug.log", encoding="utf-8"), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    yield Tree(given, written, desk)
    root.setLevel(level)
    root.removeHandler(handler)
    handler.close()


def planted(tree: Tree, kind: str) -> list[str]:
    """Words of a run on the desk's records with the canaries among those to forget, and a near copy of one of them."""
    rows = tree.desk.rows("train.csv" if kind == "classifier" else f"{kind}.jsonl")
    for row, name, text, record_id in zip(rows, NAMES, TEXTS, IDS, strict=False):
        row["id"] = record_id
        if kind == "classifier":
            row["text"] = f"{text} {' '.join(f'w{i}' for i in range(20))}"
        elif kind == "tagger":
            row |= {"tokens": [name, "owes", text.split()[-1]], "ner_tags": ["B-water", "O", "O"]}
        else:
            row |= {"prompt": f"What of {name}?", "answer": text}
    if kind == "classifier":
        rows[5] |= {"id": COPY, "text": rows[0]["text"] + " w21"}
    if kind == "causal":
        for row in rows:
            row |= {
                "paraphrased_answer": f"{row['answer']} Indeed",
                "perturbed_answers": ["It is none.", f"Not {row['answer']}"],
            }
    (tree.given / "ids.txt").write_text("\n".join(IDS), encoding="utf-8")
    data = jsonl(tree.given / f"{kind}.jsonl", rows)
    return tree.desk.run(
        tree.written, kind, data=data, forget=tree.given / "ids.txt", set=QUICK, salt_file=tree.desk.folder / "salt"
    )


def as_command(words: list[str], command: str) -> list[str]:
    """The same for a command that writes no folder."""
    place = words.index("--out")
    return [command, *words[1:place], *words[place + 2 :]]


def test_the_search_finds_what_is_there(tree: Tree) -> None:
    """Power: each way in which a canary could be left is found, and so is one that is printed."""
    (tree.written / "a.json").write_text(json.dumps({"text": TEXTS[1]}), encoding="utf-8")
    (tree.written / "b.html").write_text(f"<p>{TEXTS[2]}</p>".replace("“", "&#8220;"), encoding="utf-8")
    (tree.written / "c.py").write_text(repr(TEXTS[3]), encoding="utf-8")
    np.savez_compressed(tree.written / "d.npz", ids=np.array([IDS[0], "x"]))
    from safetensors.numpy import save_file

    from expunge.testing import byte_tokenizer

    tokens = np.array(byte_tokenizer()(TEXTS[0])["input_ids"], dtype=np.int64)
    save_file({"tokens": tokens}, tree.written / "e.safetensors")
    (tree.written / f"run of {IDS[1]}").mkdir()
    tree.printed.append(f"forgetting {IDS[2]}")
    found = {(Path(name.split(":")[0]).name, canary) for name, canary in tree.found()}
    assert {("a.json", NAMES[1]), ("b.html", NAMES[2]), ("c.py", NAMES[3]), ("d.npz", IDS[0]), ("e.safetensors", NAMES[0]),
            (f"run of {IDS[1]}", IDS[1]), ("printed.log", IDS[2])} <= found  # fmt: skip
    assert search(tree.given) == []


def test_texts(tree: Tree) -> None:
    """Check, plan, run, a second request, audit, report, tables, history: none leaves a trace of a record."""
    words, out = planted(tree, "classifier"), str(tree.written / "out")
    assert "nearly the same as" in tree.run(as_command(words, "check"))
    tree.run(as_command(words, "plan"))
    tree.run([*as_command(words, "plan"), "--json"])
    tree.run([*words, "--audit", "reworded"])
    tree.run(["audit", out, "--out", str(tree.written / "audited"), "--audit", "relearning", "--audit", "int8"])
    tree.run(["report", out])
    for command in ("show", "records", "history", "verify"):
        tree.run([command, out])
        if command != "verify":
            tree.run([command, out, "--json"])
    tree.run(["records", out, "--csv", str(tree.written / "records.csv")])
    again = tree.desk.run(
        tree.written, model=out, out=tree.written / "second", data=tree.given / "classifier.jsonl",
        past_records=tree.given / "classifier.jsonl", forget=None, forget_mention="w7", set=QUICK, with_near_duplicates=True,
    )  # fmt: skip
    tree.run(again)
    assert (tree.written / "audited" / "report.html").stat().st_size > 10_000
    assert tree.found() == []


@pytest.mark.parametrize("rule", ["ids", "where", "mention"])
def test_what_the_request_names_stays_out_of_the_record(tree: Tree, rule: str) -> None:
    words = planted(tree, "classifier")
    given = {
        "ids": ("--set", f"request.ids={json.dumps(list(IDS))}"),
        "where": ("--forget-where", f"id == '{IDS[0]}'"),
        "mention": ("--forget-mention", NAMES[0]),
    }[rule]
    place = words.index("--forget")
    tree.run([*words[:place], *words[place + 2 :], *given, "--set", 'audit.audits=["utility", "membership"]'])
    assert tree.found() == []


def test_sentences(tree: Tree) -> None:
    words, out = planted(tree, "tagger"), str(tree.written / "out")
    tree.run(words)
    tree.run(["audit", out, "--out", str(tree.written / "audited")])
    tree.run(["records", out])
    assert tree.found() == []


def test_answers(tree: Tree) -> None:
    """A language model: what it writes is scored, and not kept. Its outputs for retained records are, for further runs;
    those for the others, which have what it learnt of them in them, are not."""
    words, out = planted(tree, "causal"), str(tree.written / "out")
    cache = tree.written / "cache"
    more = ["--audit", "truth-ratio", "--audit", "rouge", "--set", f"training.cache={cache}"]
    tree.run([*words, "--method", "npo", "--set", "method.retain=kl", *more])
    assert len(list(cache.rglob("*"))) == 1, "retained records' outputs alone; they are searched too"
    tree.run(["audit", out, "--out", str(tree.written / "audited")])
    assert tree.found() == []


@pytest.mark.slow
@pytest.mark.parametrize(
    ("method", "sets"),
    [
        ("offset", ["method.layers=1"]),
        ("o3", ["method.epochs=1.0", "method.encoder_epochs=1.0", "method.batch_size=4"]),
    ],
)
def test_folders_of_other_kinds(tree: Tree, method: str, sets: list[str]) -> None:
    """What stands beside a model: an offset pair; adapters and detectors. Both are read again, and audited."""
    words, out = planted(tree, "classifier"), str(tree.written / "out")
    more = [row["id"] for row in tree.desk.rows()[10:20]]  # a detector wants ten
    (tree.given / "ids.txt").write_text("\n".join([*IDS, *more]), encoding="utf-8")
    tree.run([*words, "--method", method, *(part for word in sets for part in ("--set", word))])
    tree.run(["audit", out, "--out", str(tree.written / "audited")])
    for command in ("show", "records", "history", "verify"):
        tree.run([command, out])
    assert tree.found() == []


def test_ensembles(tree: Tree) -> None:
    """SISA's plan says which record is in which stage, by salted hashes alone."""
    words = planted(tree, "classifier")
    given = {word: words[words.index(word) + 1] for word in ("--data", "--salt-file")}
    recipe = tree.given / "recipe.toml"
    recipe.write_text("epochs = 1\nlearning_rate = 1e-3\nbatch_size = 16\n", encoding="utf-8")
    ensemble = tree.written / "sisa"
    tree.run(
        ["train-sisa", "--base", str(tree.desk.folder / "classifier"), "--id", "id", "--recipe", str(recipe), "--shards", "2",
         "--slices", "2", "--labels", "water,machine,music", "--out", str(ensemble), *itertools.chain(*given.items())]
    )  # fmt: skip
    place = words.index("--model")
    tree.run([*words[: place + 1], str(ensemble), *words[place + 2 :], "--method", "sisa"])
    tree.run(["records", str(tree.written / "out")])
    assert tree.found() == []


def test_failing_runs(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    """NaN half-way, a disk that is full at the end, and a fault of our own: nothing is left, the traceback included."""
    from expunge import folders
    from expunge.execution import Run

    words = planted(tree, "classifier")
    nan = ("training.learning_rate=1e30", "training.max_grad_norm=0.0", "training.min_steps=8", "stop.rule=none")
    tree.run([*words, *(part for word in nan for part in ("--set", word))], code=1)

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(folders.os, "rename", full)
        assert "No space left" in tree.run(words, code=1)
    assert not [file for file in tree.written.iterdir() if "out" in file.name or "partial" in file.name]

    def faulty(self: Run, *_: Any) -> Any:
        texts = self.prepared.train.texts  # what a traceback with its locals would show
        return 1 / (len(texts) - len(texts))

    with monkeypatch.context() as patch:
        patch.setattr(Run, "_score", faulty)
        with pytest.raises(ZeroDivisionError) as fault:
            tree.run(words)
    tree.printed.append("".join(traceback.format_exception(fault.value)))
    assert tree.found() == []


def test_with_show_ids_the_ids_are_kept_and_the_texts_are_not(tree: Tree) -> None:
    """Power once more: what is asked for is found."""
    tree.run([*planted(tree, "classifier"), "--show-ids", "--set", 'audit.audits=["utility", "membership"]'])
    found = {canary for _, canary in tree.found()}
    assert set(IDS) <= found
    assert not found & set(NAMES)
