"""The benchmark: what it runs, that it goes on where it was, and that its table says what its JSONs hold."""

from __future__ import annotations

import json
import shutil
import subprocess
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from transformers import AutoTokenizer

from conftest import Job, call, write_csv
from expunge.bench.assets import Assets, Busy
from expunge.bench.config import BenchConfig
from expunge.bench.datasets import random_request, read_split, requests
from expunge.bench.kinds import same_kind
from expunge.bench.matrix import cells, run_matrix
from expunge.bench.measuring import measured
from expunge.bench.table import build_table, markdown, write_tables
from expunge.errors import UsageError
from expunge.scoring import ScoreTable
from expunge.testing import toy_records

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data"

CONFIG = """
[bench]
seeds = [0, 1]
retrain_seeds = [7, 8]
fractions = [0.1]
train_records = 60
dev_records = 40
test_records = 40
retain_sample = 30
epochs = [6]
bootstrap = 50

[recipe]
learning_rate = 3e-3
batch_size = 16

[data.toy]
train = ["train.csv"]
test = ["test.csv"]
erase = "music"

[methods.finetune]
training = { min_steps = 3 }

[methods.deepcut]
training = { min_steps = 3 }
trials = [{ set = { gamma = 0.1 } }, { set = { gamma = 1.0 } }]
"""


@pytest.fixture
def bench(tmp_path: Path) -> SimpleNamespace:
    write_csv(tmp_path / "train.csv", toy_records(110, seed=1))
    write_csv(tmp_path / "test.csv", toy_records(80, seed=2))
    (tmp_path / "bench.toml").write_text(CONFIG)
    return SimpleNamespace(folder=tmp_path, config=BenchConfig.load(tmp_path / "bench.toml"))


def test_splits_are_disjoint_and_do_not_depend_on_anything_but_the_files(bench) -> None:
    split = read_split("toy", bench.config.data["toy"], bench.folder, bench.config.matrix)
    again = read_split("toy", bench.config.data["toy"], bench.folder, bench.config.matrix)
    assert split == again
    assert (len(split.train), len(split.test)) == (60, 40)
    parts = [set(part.texts) for part in (split.train, split.dev, split.test)]
    assert parts[0].isdisjoint(parts[1] | parts[2])
    assert split.label_names == ("machine", "music", "water")


def test_requests_cut_the_training_records_in_two(bench) -> None:
    split = read_split("toy", bench.config.data["toy"], bench.folder, bench.config.matrix)
    share, whole = requests(split, bench.config.data["toy"], bench.config.matrix)
    assert (share.name, len(share.forget), len(share.retain)) == ("random-10%", 6, 54)
    assert {split.label_names[split.train.labels[i]] for i in whole.forget} == {"music"}
    assert "music" not in {split.label_names[split.train.labels[i]] for i in whole.retain}
    assert {split.label_names[split.test.labels[i]] for i in whole.unseen} == {"music"}
    assert set(whole.test).isdisjoint(whole.unseen), "utility is measured on what the retrained model can know"
    other = random_request(split, 0.1, seed=bench.config.matrix.tuning_seed, name="tuning")
    assert other.forget != share.forget, "settings are chosen on another request"


def test_nested_requests_are_parts_of_the_pool_and_share_its_retrained_models(bench, job: Job) -> None:
    matrix = replace(bench.config.matrix, pooled=(0.05,), pool=4, nested=True, fractions=(0.1,))
    split = read_split("toy", bench.config.data["toy"], bench.folder, matrix)
    part, pool, *_ = requests(split, bench.config.data["toy"], matrix)
    assert set(part.forget) < set(pool.forget)
    assert len(part.forget) == 6
    assert part.within is pool
    assert len(part.retain) == 54, "all others, those of the pool included"
    found = bench.config
    config = BenchConfig(matrix, found.recipe, found.data, found.methods, found.only)
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    assets = Assets("toy", split, config, str(job.base), "x", tokenizer, bench.folder / "work", lambda _: None)
    of_pool, _ = assets.retrained(pool)
    of_part, _ = assets.retrained(part)
    places = [pool.forget.index(position) for position in part.forget]
    assert np.array_equal(of_part[0]["forget"].margins, of_pool[0]["forget"].margins[places])
    assert of_part[0]["forget"].layers is not None
    assert not set(assets.groups(part)["retain"].input_ids[0]) - set(range(1000))
    assert assets.groups(part)["retain"].input_ids == assets.groups(pool)["retain"].input_ids, "none was in the pool"
    assert not list((bench.folder / "work").rglob("random*retrained*.npz"))
    own, *_ = requests(split, replace(bench.config.data["toy"], own_retrained=True), matrix)
    assert own.forget == part.forget
    assert own.within is None, "compared with models retrained without these records alone"


def test_results_go_on_after_an_option_was_added_but_not_when_one_is_set(tmp_path: Path) -> None:
    before = {"dataset": {"task": "text-classification", "layers": 0}}
    same_kind(tmp_path / "kind.json", before, "results of another kind")
    (tmp_path / "kind.json").write_text(json.dumps(before), encoding="utf-8")
    left = {**before["dataset"], "learning_rate": None, "own_retrained": False, "labels": ()}
    same_kind(tmp_path / "kind.json", {"dataset": left}, "results of another kind")
    for changed in ({**left, "own_retrained": True}, {**left, "learning_rate": 0.0}, {**left, "layers": 2}):
        with pytest.raises(UsageError, match="dataset differ"):
            same_kind(tmp_path / "kind.json", {"dataset": changed}, "results of another kind")


def test_who_has_the_results_need_not_retrain(bench, job: Job) -> None:
    config = replace(bench.config, matrix=replace(bench.config.matrix, retrain_seeds=(7,)))
    split = read_split("toy", config.data["toy"], bench.folder, config.matrix)
    request = requests(split, config.data["toy"], config.matrix)[0]
    tokenizer, said = AutoTokenizer.from_pretrained(job.base), []

    def tables(work: str):
        assets = Assets(
            "toy",
            split,
            config,
            str(job.base),
            "x",
            tokenizer,
            bench.folder / work,
            said.append,
            bench.folder / "shared",
        )
        return assets.retrained(request)[0][0]

    first, again = tables("here"), tables("there")
    assert len(said) == 1, "trained once"
    assert first.keys() == again.keys()
    assert all(np.array_equal(first[group].margins, again[group].margins) for group in first)
    assert first["forget"].layers is not None
    assert again["forget"].layers is None, "layers are too large to go with the results"


def test_two_workers_that_share_the_same_scores_write_them_once(
    bench, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    from expunge.bench import assets as module

    config = replace(bench.config, matrix=replace(bench.config.matrix, retrain_seeds=(7,)))
    split = read_split("toy", config.data["toy"], bench.folder, config.matrix)
    request = requests(split, config.data["toy"], config.matrix)[0]
    tokenizer, work, shared = AutoTokenizer.from_pretrained(job.base), bench.folder / "work", bench.folder / "shared"

    def worker(shared: Path | None) -> list[Any]:
        assets = Assets("toy", split, config, str(job.base), "x", tokenizer, work, lambda _: None, shared)
        return assets.retrained(request)[0]

    worker(None)  # the scores are made; what is left to two workers is to share them
    written: list[Path] = []
    both_write, save = threading.Barrier(2), module._save

    def slow(file: Path, tables: Any, **more: float) -> None:
        written.append(file)
        with suppress(threading.BrokenBarrierError):
            both_write.wait(timeout=1)  # long enough for the other to begin, if nothing keeps it from that
        save(file, tables, **more)

    monkeypatch.setattr(module, "_save", slow)
    with ThreadPoolExecutor(2) as pool:
        first, second = pool.map(worker, (shared, shared))
    assert len(written) == 1
    assert [path for path in shared.rglob("*") if path.is_file()] == written, "no lock lies beside the results"
    assert np.array_equal(first[0]["forget"].margins, second[0]["forget"].margins)


def test_without_dev_and_test_files_all_parts_are_drawn_from_the_training_file(bench) -> None:
    data = replace(bench.config.data["toy"], test=())
    split = read_split("toy", data, bench.folder, replace(bench.config.matrix, dev_records=20, test_records=20))
    parts = [set(part.texts) for part in (split.train, split.dev, split.test)]
    assert all(len(part) > 10 for part in parts)
    assert not parts[0] & parts[1] | parts[0] & parts[2] | parts[1] & parts[2]
    assert {record_id.split("-")[1] for part in (split.train, split.dev, split.test) for record_id in part.ids} == {
        "train"
    }


def test_seeds_of_unlearning_can_share_one_original(bench, job: Job) -> None:
    config = replace(bench.config, matrix=replace(bench.config.matrix, one_original=True, seeds=(0, 1)))
    split = read_split("toy", config.data["toy"], bench.folder, config.matrix)
    tokenizer = AutoTokenizer.from_pretrained(job.base)
    assets = Assets("toy", split, config, str(job.base), "x", tokenizer, bench.folder / "work", lambda _: None)
    weights = [dict(assets.original(seed).named_parameters())["classifier.weight"] for seed in (0, 1)]
    assert weights[0].equal(weights[1])


def test_the_first_seed_of_everything_comes_first(bench) -> None:
    assets: Any = SimpleNamespace(name="toy", split=SimpleNamespace(task_name="text-classification"))
    pair: Any = [SimpleNamespace(name="a"), SimpleNamespace(name="b")]
    order = [cell.name for cell in cells(bench.config, [(assets, pair)])]
    assert order[:4] == ["toy/a/finetune/0", "toy/a/deepcut/0", "toy/b/finetune/0", "toy/b/deepcut/0"]
    assert all(name.endswith("/1") for name in order[4:])


def test_a_run_writes_each_cell_and_goes_on_where_it_was(bench, job: Job) -> None:
    out, work, said = bench.folder / "out", bench.folder / "work", []

    def go(only: str) -> int:
        return run_matrix(bench.config, bench.folder, str(job.base), out, work, only=only, say=said.append)

    assert go("toy/random-10%/*/0") == 2
    assert go("toy/random-10%/*/0") == 0, "nothing is done twice"
    file = out / "cells" / "toy" / "random-10%" / "deepcut-0.json"
    first = file.read_text()
    file.unlink()
    trained = len([line for line in said if "trained" in line])
    assert go("toy/random-10%/*/0") == 1
    assert len([line for line in said if "trained" in line]) == trained, "models are kept"

    cell = json.loads(first)
    assert len(cell["trials"]) == 2, "both trials were tried, on dev records"
    assert cell["settings"]["method"]["gamma"] in (0.1, 1.0)
    assert cell["cost"]["retraining"] == 6 * 54
    assert cell["cost"]["ratio"] == pytest.approx(
        (cell["cost"]["passes"] + cell["cost"]["checks"]) / (6 * 54), abs=1e-3
    )
    assert len(cell["figures"]["forget F1"]["retrained"]) == 2
    again = json.loads(file.read_text())
    for part in (cell, again):
        part["cost"] = {k: v for k, v in part["cost"].items() if not k.startswith("seconds")}
    assert again == cell, "the same seed on the same machine gives the same cell"
    texts = {row["text"] for row in toy_records(110, seed=1)}
    assert not [text for text in texts if text in first], "no record's text is in a result"

    listed = json.loads((out / "data" / "toy.json").read_text())
    (out / "data" / "toy.json").write_text(json.dumps({**listed, "base": "another"}))
    with pytest.raises(UsageError, match=r"results of another kind \(base differ\)"):
        go("*")


def test_a_cell_that_another_worker_makes_is_left_to_it(bench, job: Job) -> None:
    from expunge.bench.assets import Assets

    split = read_split("toy", bench.config.data["toy"], bench.folder, bench.config.matrix)
    assets = Assets("toy", split, bench.config, "", "", None, bench.folder / "work", print)  # pyright: ignore
    same = Assets("toy", split, bench.config, "", "", None, bench.folder / "work", print)  # pyright: ignore
    with assets.locked("recipe"), pytest.raises(Busy), same.locked("recipe"):
        pass
    with same.locked("recipe"):
        pass


def made_up(margins: list[float], right: list[bool]) -> ScoreTable:
    labels = np.zeros(len(right), dtype=int)
    return ScoreTable(
        labels=labels, predictions=np.where(right, 0, 1), margins=np.array(margins),
        losses=np.log1p(np.exp(-np.array(margins))), hidden=np.zeros((len(right), 0), dtype=np.float32),
        offsets=np.arange(len(right) + 1),
    )  # fmt: skip


def test_gap_and_noise_floor_by_hand() -> None:
    """Accuracy 0.75 against retrained 0.25, 0.5 and 0.75: gap 0.25; each against the mean of the others: .375, 0, .375."""

    def tables(right: int, margin: float) -> dict[str, ScoreTable]:
        part = made_up([margin] * 4, [i < right for i in range(4)])
        return {"forget": part, "retain": part, "test": part, "unseen": part}

    assets: Any = SimpleNamespace(
        split=SimpleNamespace(task_name="text-classification", label_names=("a", "b")),
        config=SimpleNamespace(matrix=SimpleNamespace(bootstrap=20)),
    )
    retrained = [tables(1, 0.0), tables(2, 1.0), tables(3, 20.0)]
    found = measured(assets, [tables(3, 2.0)], tables(4, 5.0), retrained, [np.arange(4)])
    row = found["forget accuracy"]
    assert (row["value"], row["gap"], row["noise_floor"], row["original"]) == (0.75, 0.25, 0.25, 1.0)
    # Margins are clipped at 10: 0, 1 and 10, mean 11/3; |2 - 11/3| = 5/3; floor: (|0-5.5| + |1-5| + |10-.5|) / 3.
    assert found["per record"]["gap"] == pytest.approx(5 / 3, abs=1e-4)
    assert found["per record"]["noise_floor"] == pytest.approx((5.5 + 4 + 9.5) / 3, abs=1e-4)
    assert found["per record, never seen"]["gap"] == found["per record"]["gap"], "here the same margins"
    assert found["membership AUC"]["value"] == 0.5


def test_a_pool_puts_its_forget_records_together_and_averages_the_rest() -> None:
    """Two requests of two records, forget accuracy 2/2 and 1/2; test accuracy 1 and 1/2; each AUC against its own model."""

    def tables(forget: list[float], unseen: list[float]) -> dict[str, ScoreTable]:
        part, others = (made_up(margins, [m > 0 for m in margins]) for margins in (forget, unseen))
        return {"forget": part, "retain": others, "test": others, "unseen": others}

    assets: Any = SimpleNamespace(
        split=SimpleNamespace(task_name="text-classification", label_names=("a", "b")),
        config=SimpleNamespace(matrix=SimpleNamespace(bootstrap=20)),
    )
    several = [tables([1.0, 3.0], [2.0, 4.0]), tables([-1.0, 5.0], [-2.0, 2.0])]
    # The request's records in order: 0 and 2 are of the first of its parts, 1 and 3 of the second.
    retrained = [tables([1.0, -1.0, 3.0, 5.0], [2.0, 2.0])] * 2
    found = measured(assets, several, tables([9.0] * 4, [1.0, 1.0]), retrained, [np.array([0, 2]), np.array([1, 3])])
    assert found["forget accuracy"]["value"] == 0.75
    assert found["forget accuracy"]["n"] == [4]
    assert found["test accuracy"]["value"] == pytest.approx((1 + 0.5) / 2)
    assert found["membership AUC"]["value"] == pytest.approx((1 / 4 + 3 / 4) / 2)
    assert found["membership AUC"]["retrained"] == [0.5, 0.5]
    assert found["per record"]["gap"] == 0.0, "the same margins, in the order of the requests"


@pytest.mark.parametrize(("name", "page"), [("encoders", "benchmark"), ("encoders-first-run", "benchmark/first-run")])
def test_the_committed_table_is_the_committed_results(name: str, page: str, tmp_path: Path) -> None:
    results = ROOT / "benchmarks" / "results" / name
    write_tables(results, tmp_path)
    for file in ("table.md", "table.json"):
        wanted = (ROOT / "docs" / page / file).read_text(encoding="utf-8")
        assert (tmp_path / file).read_text(encoding="utf-8") == wanted, "run `expunge bench table` again"
    table = build_table(results)
    assert {(b["data"], b["request"]) for b in table["blocks"]} >= {
        (data, request)
        for data in ("emotion", "banking77", "wnut17", "bc5cdr")
        for request in ("random-1%", "random-5%")
    }
    for block in table["blocks"]:
        assert block["retrained"]["models"] >= 5
        assert block["retrained"]["noise_floor"] > 0
        assert all(reason for reason in block["missing"].values()), "an empty cell says why"


def test_pools_are_no_whole_classes_and_no_trials_are_told_where_there_were_none(tmp_path: Path) -> None:
    table = build_table(ROOT / "benchmarks" / "results" / "calibrated")
    (kernel,) = [row for row in table["summary"] if row["method"] == "deepcut-kernel"]
    assert kernel["pooled blocks"] == 4
    assert "class gap" not in kernel
    text = markdown(table)
    assert "several requests pooled: mean gap" in text
    assert "among three trials" not in text
    assert text == (ROOT / "docs" / "benchmark" / "calibrated" / "table.md").read_text(encoding="utf-8")
    code, _, error = call(["bench", "table", str(ROOT / "benchmarks" / "results" / "tofu"), "--out", str(tmp_path)])
    assert code == 2
    assert "results of another benchmark" in error


def test_the_first_run_is_the_whole_matrix() -> None:
    table = build_table(ROOT / "benchmarks" / "results" / "encoders-first-run")
    assert len(table["blocks"]) == 12
    for block in table["blocks"]:
        assert len(block["rows"]) == 14
        assert not block["missing"]
        assert all(row["seeds"] == [0, 1, 2] and not row["failed"] for row in block["rows"])


def test_a_failed_cell_is_shown_with_its_reason(tmp_path: Path) -> None:
    cell = {"data": "toy", "request": "random-1%", "method": "deepcut", "seed": 0, "failed": "loss is NaN <b>",
            "recipe": {"epochs": 2, "tried": []}}  # fmt: skip
    file = tmp_path / "cells" / "toy" / "deepcut-0.json"
    file.parent.mkdir(parents=True)
    file.write_text(json.dumps(cell))
    assert "loss is NaN" in markdown(build_table(tmp_path))
    write_tables(tmp_path, tmp_path / "t")
    page = (tmp_path / "t" / "table.html").read_text()
    assert "&lt;b&gt;" in page
    assert "<b>" not in page


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ('[metods]\nx = 1\n', ["unknown section", '"methods"']),
        ("[data.toy2]\nformt = 1\n", ["data.toy2.formt", "unknown key"]),
        ('[methods.deepcutt]\n', ['Did you mean "deepcut"']),
        ("[methods.scrub]\ntrials = [{}, {}, {}, {}]\n", ["4 trials", "one to three"]),
        ("[methods.scrub]\ntrials = [{ sett = { alpha = 1.0 } }]\n", ["methods.scrub.trials.sett", 'Did you mean "set"']),
    ],
)  # fmt: skip
def test_bad_benchmarks_are_refused(tmp_path: Path, change: str, words: list[str]) -> None:
    file = tmp_path / "bench.toml"
    file.write_text(CONFIG + change)
    with pytest.raises(UsageError) as error:
        BenchConfig.load(file)
    for word in words:
        assert word in str(error.value)


def test_the_full_benchmark_can_be_read_and_gives_every_method_as_many_tries() -> None:
    config = BenchConfig.load(ROOT / "benchmarks" / "encoders.toml")
    assert len(config.data) == 4
    assert len(config.matrix.retrain_seeds) >= 5
    assert {name: len(trials) for name, trials in config.methods.items() if len(trials) != 3} == {"sisa": 1}
    kept = BenchConfig.load(ROOT / "benchmarks" / "encoders.toml", ['data=["emotion"]', "seeds=[5]"])
    assert (list(kept.data), kept.matrix.seeds) == (["emotion"], (5,))


@pytest.mark.slow
@pytest.mark.skipif(not SHARED.is_dir(), reason="the data sets are not beside the checkout")
def test_the_quick_benchmark_ends_within_eight_minutes(tmp_path: Path) -> None:
    make = shutil.which("make")
    if make is None:
        pytest.skip("there is no make")
    start = time.perf_counter()
    done = subprocess.run(
        [make, "bench-encoders", "QUICK=1", f"RESULTS={tmp_path / 'out'}", f"WORK={tmp_path / 'work'}"],
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    assert time.perf_counter() - start < 8 * 60
    table = build_table(tmp_path / "out")
    assert [(block["data"], len(block["rows"])) for block in table["blocks"]] == [("emotion", 4), ("wnut17", 4)]
