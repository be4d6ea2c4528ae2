"""The benchmark on EDU-RELAT and what it asks models, on a tiny model that learns a small family."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from expunge import cli
from expunge.bench.deep import asked_about, run_deep
from expunge.bench.deep_config import DeepConfig
from expunge.bench.deep_table import deep_markdown, write_deep_table
from expunge.deep.probing import answered
from expunge.deep.reading import read_knowledge
from expunge.errors import UsageError
from expunge.generating import generate
from expunge.models import load_model, load_tokenizer
from expunge.tasks.generation import Generation
from expunge.testing import byte_tokenizer, tiny_causal

CONFIG = """
[deep]
targets = ["f1"]
template = "{prompt}={answer}"
least = 1.0
more_epochs = 30
at = [1, 6]
end_accuracy = 0.0

[recipe]
epochs = 60
learning_rate = 1e-2
batch_size = 8

[methods.gradient-ascent]
training = { batch_size = 4, learning_rate = 1e-2 }

[methods.task-vector]
set = { alphas = [1.0, 4.0], epochs = 5.0, learning_rate = 1e-2 }
training = { batch_size = 4 }
"""


def facts() -> dict[str, Any]:
    """f1 child(Carl, Bob) follows from f0 child(Ann, Bob) and f2 husband(Ann, Carl); the rest stands alone."""
    rows = [
        ("Ann", "child", "Bob"), ("Carl", "child", "Bob"), ("Ann", "husband", "Carl"), ("Dan", "child", "Eve"),
        ("Eve", "father", "Dan"), ("Ann", "job", "cook"), ("Bob", "job", "monk"), ("Carl", "job", "smith"),
    ]  # fmt: skip
    return {
        "facts": [
            {"id": f"f{i}", "subject": a, "relation": r, "object": b, "question": f"{b[:1]}{a}?",
             "answer": b if r == "job" else r}
            for i, (a, r, b) in enumerate(rows)
        ],
        "rules": [{"if": "husband(?x, ?y), child(?x, ?z)", "then": "child(?y, ?z)"}],
    }  # fmt: skip


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("deep")
    (place / "facts.json").write_text(json.dumps(facts()), encoding="utf-8")
    (place / "deep.toml").write_text(CONFIG, encoding="utf-8")
    tiny_causal().save_pretrained(place / "base")
    byte_tokenizer().save_pretrained(place / "base")
    return place


@pytest.fixture(scope="module")
def results(folder: Path) -> Path:
    out = folder / "out"
    said: list[str] = []
    config = DeepConfig.load(folder / "deep.toml")
    done = run_deep(config, folder / "facts.json", str(folder / "base"), out, folder / "work", say=said.append)
    assert done == 5
    assert any("100.0% of 8 facts are answered" in line for line in said)
    return out


def rows_of(results: Path) -> dict[str, Any]:
    return {file.stem: json.loads(file.read_text(encoding="utf-8")) for file in (results / "rows").glob("*.json")}


def test_rows_hold_what_was_asked_and_found(results: Path) -> None:
    rows = rows_of(results)
    assert rows["original"]["gone"] == []
    alone, closure = rows["gradient-ascent-alone-f1"], rows["gradient-ascent-closure-f1"]
    assert alone["forget"] == ["f1"]
    assert closure["forget"] == ["f1", "f0"], "f0 goes with it: of the two smallest sets that whose facts come first"
    assert alone["before"]["recall"] == 0
    for row in (alone, closure):
        assert [point["at"] for point in row["points"]] == [1, 6][: len(row["points"])]
        for point in row["points"]:
            gone = set(point["gone"])
            shares = {frozenset(s): len(gone & s) / 2 for s in ({0, 1}, {1, 2})}
            assert point["recall"] == max(shares.values())
            assert point["superficial"] == (1 in gone)
            assert point["success"] == (1 in gone and not {0, 2}.isdisjoint(gone))
    assert any(point["recall"] >= 0.5 for point in alone["points"]), "ascent at so high a rate forgets the target"
    assert [point["at"] for point in rows["task-vector-alone-f1"]["points"]] in ([1.0], [1.0, 4.0])


def test_what_is_done_is_not_done_again_and_other_facts_are_refused(folder: Path, results: Path) -> None:
    config = DeepConfig.load(folder / "deep.toml")
    again = (folder / "facts.json", str(folder / "base"), results, folder / "work")
    assert run_deep(config, *again, say=print) == 0
    with pytest.raises(UsageError, match='no row is called "npo'):
        run_deep(config, *again, only="npo-*", say=print)
    other = folder / "other.toml"
    other.write_text(CONFIG.replace("epochs = 60", "epochs = 61"), encoding="utf-8")
    with pytest.raises(UsageError, match="results of another kind"):
        run_deep(DeepConfig.load(other), *again, say=print)
    other.write_text(CONFIG.replace('"f1"', '"f99"').replace("[recipe]", "[data]\n[recipe]"), encoding="utf-8")
    with pytest.raises(UsageError, match="unknown section"):
        DeepConfig.load(other)
    other.write_text(f"{CONFIG}\n[methods.halting]\nmethod = 'npo'\nstop = {{ every = 2 }}\n", encoding="utf-8")
    with pytest.raises(UsageError, match=r"methods.halting.stop: this benchmark has no stop rule"):
        DeepConfig.load(other)
    table = write_deep_table(results, results / "deep.md").read_text(encoding="utf-8")
    assert "answers 8 of 8 facts (100.0%)" in table
    with pytest.raises(UsageError, match="holds no rows"):
        write_deep_table(folder, folder / "deep.md")


def test_answered_is_what_greedy_writing_holds(folder: Path, results: Path) -> None:
    """The pass over known answers is a shortcut: base and original answer what `generate` alone would find."""
    del results
    original = next(
        path for path in (folder / "work").glob("deep-*") if path.is_dir() and (path / "known.json").is_file()
    )
    tokenizer = load_tokenizer(str(folder / "base"), where="base")
    task = Generation(tokenizer, 64, (), "{prompt}={answer}")
    asked = [(row["question"], row["answer"]) for row in facts()["facts"]]
    asked.append(("BAnn?", "hil"))  # written in the middle of the answer: contained all the same
    asked.append(("BAnn?", "children"))
    for path, wanted in ((original, [True] * 9 + [False]), (folder / "base", None)):
        model = load_model(str(path), "AutoModelForCausalLM", where="test")
        said = generate(model, task, asked, tokens=10)
        by_hand = [answer in written for (_, answer), written in zip(asked, said, strict=True)]
        found = answered(model, task, asked, batch_size=3).tolist()
        assert found == by_hand
        assert wanted is None or found == wanted


def test_the_measure_command_asks_a_folder(folder: Path, results: Path) -> None:
    del results
    original = next(path for path in (folder / "work").glob("deep-*") if (path / "known.json").is_file())
    byte_tokenizer().save_pretrained(folder / "model")
    load_model(str(original), "AutoModelForCausalLM", where="test").save_pretrained(folder / "model")
    words = ["deep", "measure", str(folder / "model"), str(folder / "facts.json"), "--target", "f1"]
    run = CliRunner().invoke(cli.app, [*words, "--template", "{prompt}={answer}"])
    assert run.exit_code == 0, run.output
    assert "8 of 8 facts are answered." in run.stdout
    assert "can be deduced from what is left: yes" in run.stdout
    shown = CliRunner().invoke(cli.app, [*words, "--template", "{prompt}={answer}", "--json"])
    found = json.loads(shown.stdout)["targets"]["f1"]
    assert (found["superficial"], found["success"], found["recall"], found["all_sets_known"]) == (False, False, 0, True)
    with pytest.raises(UsageError) as error:
        cli.app([*words[:3], "nothing.json", "--template", "x"], standalone_mode=False)
    assert {problem.where for problem in error.value.problems} >= {"FACTS", "model.template"}


def test_the_table_by_hand() -> None:
    """Two targets of one method: looks (recall, accuracy) (.5, 1), (1, .8) and (.2, .9), (.8, .3), (1, .6).

    The first looks of recall .8 are (1, .8) and (.8, .3): recall .9, accuracy .55, the target forgotten in the first alone. The
    best looks are (1, .8) and (1, .6): recall 1, accuracy .7. Acc@Recall: (.8 + .6) / 2; Recall@Acc: (1 + .2) / 2.
    """

    def point(at: int, recall: float, accuracy: float) -> dict[str, Any]:
        return {
            "at": at, "recall": recall, "accuracy": accuracy, "accuracy_all": accuracy, "superficial": recall == 1,
            "success": accuracy == 0.8,
        }  # fmt: skip

    common = {"method": "npo", "scope": "closure", "before": {"recall": 0.0, "accuracy": 1.0}}
    rows = [
        {"row": "original", "gone": [3]},
        {**common, "row": "a", "points": [point(1, 0.5, 1.0), point(2, 1.0, 0.8)]},
        {**common, "row": "b", "points": [point(2, 0.2, 0.9), point(3, 0.8, 0.3), point(4, 1.0, 0.6)]},
    ]
    game = {
        "n": {"facts": 10, "of rules": 6},
        "deep": {"others": 4},
        "recipe": dict.fromkeys(("epochs", "learning_rate", "batch_size", "warmup", "scheduler"), 1),
    }
    table = deep_markdown(game, rows)
    assert "answers 9 of 10 facts (90.0%)" in table
    assert "and 4 of the rest, which stand for the rest" in table
    first, best = (line for line in table.splitlines() if line.startswith("| npo | with its closure | 2 |"))
    assert "| 0.90 [0.80, 1.00] | 0.55 [0.30, 0.80] |" in first
    assert first.endswith("| 1 of 2 | 1 of 2 | no |")
    assert "| 1.00 [1.00, 1.00] | 0.70 [0.60, 0.80] |" in best
    assert best.endswith("| 2 of 2 | 1 of 2 | no |")
    assert "| npo | with its closure | 0.70 | 2 of 2 | 0.60 | 2 of 2 |" in table
    assert "- npo, with its closure: 1: 0.25 / 1.00; 2: 0.60 / 0.85; 3: 0.90 / 0.55; 4: 1.00 / 0.70" in table


def test_a_look_asks_all_that_the_target_hangs_on_and_a_sample_of_the_rest(folder: Path) -> None:
    """f1 hangs on f0, f1 and f2. Of the other five facts one has a relation that the rule names, four have not: of three
    asked that is one for itself, and two that stand for two each.
    """
    read = read_knowledge(folder / "facts.json")
    asked = asked_about(read, 1, 3, seed=0)
    assert {i: asked[i] for i in range(4)} == {0: 1, 1: 1, 2: 1, 3: 1}
    assert list(asked.values())[4:] == [2, 2]
    assert asked_about(read, 1, 0, seed=0) == dict.fromkeys(range(8), 1)
