"""The benchmark of requests in a row: what each row is made of, that it goes on where it was, what its table says."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from conftest import Job, write_csv
from expunge.bench.continual import run_continual
from expunge.bench.continual_config import ContinualConfig
from expunge.bench.continual_table import build_continual_table, continual_markdown, write_continual_table
from expunge.errors import UsageError
from expunge.models import load_model, weights_sha256
from expunge.o3.manifest import Manifest
from expunge.testing import toy_records

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"
CONFIG = """
[continual]
requests = [["water"], ["machine"]]
train_records = 90
dev_records = 40
test_records = 60
epochs = 20

[recipe]
learning_rate = 3e-3
batch_size = 16

[data.toy]
train = ["train.csv"]
test = ["test.csv"]

[methods.o3]
set = { epochs = 6.0, learning_rate = 5e-3 }

[methods.gradient-difference]
training = { min_steps = 3, epochs = 1.0 }

[methods.retrain]

[methods.sisa]
"""


@pytest.fixture(scope="module")
def bench(job: Job, tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("continual")
    write_csv(folder / "train.csv", toy_records(200, seed=1))
    write_csv(folder / "test.csv", toy_records(100, seed=2))
    (folder / "continual.toml").write_text(CONFIG, encoding="utf-8")
    made = SimpleNamespace(folder=folder, out=folder / "out", work=folder / "work", said=[])
    made.config = ContinualConfig.load(folder / "continual.toml")

    def run(**changes: Any) -> int:
        given = {"out": made.out, "work": made.work, "say": made.said.append, **changes}
        return run_continual(made.config, folder, str(job.base), **given)

    made.run = run
    made.done = run()
    return made


def row(bench: SimpleNamespace, name: str) -> dict[str, Any]:
    return json.loads((bench.out / "rows" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_method_forgets_one_request_after_the_other(bench: SimpleNamespace) -> None:
    assert bench.done == 9, "the original, and four methods with two requests each"
    (work,) = bench.work.glob("toy-*")
    assert len(Manifest.read(work / "o3-0-2").requests) == 2
    original = load_model(str(work / "original-0"), "AutoModelForSequenceClassification", where="")
    assert Manifest.read(work / "o3-0-2").original_sha256 == weights_sha256(original)
    first, second = (row(bench, f"o3-0-{k}") for k in (1, 2))
    assert first["scores"].keys() == {"rest", "asked 1", "asked 2", "like 1", "like 2"}
    assert share(row(bench, "original-0"), "asked 1") > 0.8
    assert share(first, "asked 1") < 0.3
    assert share(second, "asked 1") < 0.3, "still, after the second"
    assert len(second["detector"]["asked"]) == len(second["scores"]["asked 2"]["right"])
    retrained = row(bench, "retrain-0-2")
    assert share(retrained, "asked 1") == share(retrained, "asked 2") == 0, "it does not know these classes"
    assert retrained["cost"]["ratio"] == 1
    assert "stages trained again" in row(bench, "sisa-0-1")["ended"]["reason"]


def share(found: dict[str, Any], group: str) -> float:
    right = found["scores"][group]["right"]
    return right.count("1") / len(right)


def test_it_goes_on_where_it_was(bench: SimpleNamespace, job: Job, tmp_path: Path) -> None:
    assert bench.run() == 0
    out = tmp_path / "out"
    shutil.copytree(bench.out, out)
    assert bench.run(out=out, only="retrain-*") == 0
    with pytest.raises(UsageError, match='no row is called "dpo-'):
        bench.run(out=out, only="dpo-*")
    other = ContinualConfig.load(bench.folder / "continual.toml", ['requests=[["water"]]'])
    with pytest.raises(UsageError, match="results of another kind"):
        run_continual(other, bench.folder, str(job.base), out, bench.work, say=print)


def test_a_request_waits_for_the_one_before(bench: SimpleNamespace, tmp_path: Path) -> None:
    (work,) = bench.work.glob("toy-*")
    shutil.copytree(work / "original-0", tmp_path / "work" / work.name / "original-0")
    shutil.copy(work / "recipe.json", tmp_path / "work" / work.name)
    assert bench.run(out=tmp_path / "out", work=tmp_path / "work", only="gradient-difference-0-2") == 0
    assert not list((tmp_path / "out" / "rows").glob("*.json"))


def hand_made(folder: Path) -> Path:
    """An original right on all, and O3 after one request: none of four asked, one of two like them, three of four others."""
    (folder / "rows").mkdir(parents=True)
    n = {"train": 9, "dev": 2, "rest": 4, "asked 1": 4, "like 1": 2}
    game = {"data": "toy", "requests": [["water"]], "n": n, "seeds": [0]}
    (folder / "game.json").write_text(json.dumps(game), encoding="utf-8")

    def scores(rest: str, asked: str, like: str) -> dict[str, Any]:
        return {"rest": {"right": rest}, "asked 1": {"right": asked}, "like 1": {"right": like}}

    rows = [
        {"row": "original-0", "kind": "original", "seed": 0, "storage": 2_000_000, "scores": scores("1111", "1111", "11")},
        {
            "row": "o3-0-1", "kind": "o3", "seed": 0, "request": 1, "storage": 3_000_000,
            "scores": scores("1101", "0000", "01"), "cost": {"ratio": 0.125, "seconds": 4.2},
            "detector": {"asked": [0.9, 0.8, 0.7, 0.3], "like": [0.9, 0.1], "rest": [0.2, 0.4, 0.12, 0.12]},
        },
        {"row": "npo-0-1", "kind": "npo", "seed": 0, "request": 1, "failed": "not finite"},
    ]  # fmt: skip
    for own in rows:
        (folder / "rows" / f"{own['row']}.json").write_text(json.dumps(own), encoding="utf-8")
    return folder


def test_the_table_says_what_the_rows_hold(tmp_path: Path) -> None:
    """AUROC of asked: of 16 pairs the three larger win 12, 0.3 wins against .2, .12, .12: 15/16. Of like: 4 of 8."""
    table = build_continual_table(hand_made(tmp_path / "results"), resamples=50)
    original, o3 = table["rows"]
    assert original["fall"] is None
    assert [one["value"] for one in (*o3["asked"], *o3["like"], o3["rest"])] == [0.0, 0.5, 0.75]
    assert o3["fall"]["value"] == -0.25
    (detector,) = table["detectors"]
    assert detector["auroc"]["asked"]["value"] == pytest.approx(15 / 16)
    assert detector["auroc"]["like"]["value"] == pytest.approx(0.5)
    assert detector["mean"]["rest"] == pytest.approx(0.21)
    assert table["bar"] == [{"seed": 0, "fall": o3["fall"], "met": False}]
    text = continual_markdown(table)
    assert "| o3 | 0 | request 1 | 0.000 [0.000, 0.490] | 0.500 [0.095, 0.905] | 0.750 " in text
    assert "| 12.5% | 4 | 3 MB |" in text
    assert "-0.250 [" in text
    assert "not met" in text
    assert "- npo-0-1: not finite" in text
    assert write_continual_table(tmp_path / "results", tmp_path / "docs" / "t.md").read_text(encoding="utf-8") == text


def test_without_an_original_there_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="has no original measured"):
        build_continual_table(tmp_path)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ('[["water"], ["machine"]]', '[["water"], ["water"]]', "a class is named twice"),
        ('[["water"], ["machine"]]', '[["fire"]]', '"fire" is no class of the data'),
        ('[["water"], ["machine"]]', "[[]]", "there is none, or an empty one"),
        ("[data.toy]", "[data.more]\n[data.toy]", "2 are named"),
        ("train_records", "trained", 'unknown key "trained"'),
    ],
)
def test_a_bad_config_is_refused(
    bench: SimpleNamespace, job: Job, tmp_path: Path, old: str, new: str, words: str
) -> None:
    (tmp_path / "bad.toml").write_text(CONFIG.replace(old, new), encoding="utf-8")
    with pytest.raises(UsageError, match=words):
        run_continual(
            ContinualConfig.load(tmp_path / "bad.toml"),
            bench.folder,
            str(job.base),
            tmp_path / "o",
            tmp_path / "w",
            say=print,
        )


@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not here")
def test_the_committed_config_fits_the_real_files() -> None:
    from expunge.bench.continual import _classes
    from expunge.bench.datasets import read_split

    config = ContinualConfig.load(ROOT / "benchmarks" / "continual.toml")
    split = read_split("banking77", config.bench.data["banking77"], SHARED, config.bench.matrix)
    assert [len(own) for own in _classes(config, split)] == [3, 3, 3]
    assert len(split.train) == config.continual.train_records
    assert {"o3", "o3-all", "retrain", "sisa"} <= config.bench.methods.keys()
