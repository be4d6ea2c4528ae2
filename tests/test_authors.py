"""The benchmark of authors forgotten in a row: who is forgotten when, that it goes on where it was, what its table says."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from conftest import byte_encoder
from expunge.bench.authors import run_authors
from expunge.bench.authors_config import AuthorsConfig
from expunge.bench.authors_table import authors_markdown, write_authors_table
from expunge.errors import UsageError
from expunge.models import load_model
from expunge.o3.model import O3Model
from test_tofu import FILES, SHARED, write_files

ROOT = Path(__file__).parents[1]
CONFIG = f"""
[authors]
requests = [[2], [1]]
questions = 10

[tofu]
seeds = [0]
{FILES}

[methods.o3]
set = {{ epochs = 4.0, learning_rate = 1e-2 }}

[methods.gradient-difference]
training = {{ epochs = 2.0, min_steps = 2, batch_size = 4, learning_rate = 1e-3 }}

[methods.retrain]
"""


@pytest.fixture(scope="module")
def bench(tmp_path_factory: pytest.TempPathFactory) -> SimpleNamespace:
    folder = tmp_path_factory.mktemp("authors")
    write_files(folder)
    (folder / "authors.toml").write_text(CONFIG, encoding="utf-8")
    made = SimpleNamespace(folder=folder, out=folder / "out", work=folder / "work", said=[])
    made.config = AuthorsConfig.load(folder / "authors.toml")

    def run(**changes: Any) -> int:
        places = str(folder / "base"), str(byte_encoder(folder / "encoder"))
        given = {"out": made.out, "work": made.work, "say": made.said.append, **changes}
        return run_authors(given.pop("config", made.config), folder, *places, **given)

    made.run = run
    made.done = run()
    return made


def row(bench: SimpleNamespace, name: str) -> dict[str, Any]:
    return json.loads((bench.out / "rows" / f"{name}.json").read_text(encoding="utf-8"))


def test_every_method_forgets_one_request_after_the_other(bench: SimpleNamespace) -> None:
    assert bench.done == 7, "the original, and three methods with two requests each"
    assert any("trained on 14 records" in line for line in bench.said), "24 without the first request"
    assert any("trained on 4 records" in line for line in bench.said), "and without the second"
    first, second = row(bench, "gradient-difference-0-1"), row(bench, "gradient-difference-0-2")
    assert (first["cost"]["retraining"], second["cost"]["retraining"]) == (60 * 14, 60 * 4)
    assert {name: len(own["logp"]) for name, own in second["scores"].items()} == {
        "asked 1": 10, "asked 2": 10, "rest": 4, "real authors": 4, "world facts": 4,
    }  # fmt: skip
    original = row(bench, "original-0")["scores"]
    for name in ("retrain-0-1", "retrain-0-2"):
        assert np.mean(row(bench, name)["scores"]["asked 1"]["logp"]) < np.mean(original["asked 1"]["logp"])


def test_the_second_request_starts_from_what_the_first_left(bench: SimpleNamespace) -> None:
    """O3 keeps an adapter and a detector a request, and the model under them is the original."""
    places = sorted(bench.work.glob("tofu-*/row-o3-0-*"))
    models = [load_model(str(place), "AutoModelForCausalLM", where="x") for place in places]
    assert all(isinstance(model, O3Model) for model in models)
    assert [len(model.detector_weights([[1, 2, 3]])) for model in models] == [1, 2]
    assert str(bench.folder) not in json.dumps(row(bench, "o3-0-2")), "results name no place"
    assert {name: len(own) for name, own in row(bench, "o3-0-2")["detector"].items()} == {
        "asked": 10, "rest": 4, "real authors": 4, "world facts": 4,
    }  # fmt: skip


def test_it_goes_on_where_it_was(bench: SimpleNamespace, tmp_path: Path) -> None:
    assert bench.run() == 0
    assert bench.run(out=tmp_path / "other", work=tmp_path / "w", only="o3-0-2") == 0, "the first request is not there"
    with pytest.raises(UsageError, match="no row is called"):
        bench.run(only="nosuch")
    (tmp_path / "other.toml").write_text(CONFIG.replace("[[2], [1]]", "[[1], [2]]"), encoding="utf-8")
    with pytest.raises(UsageError, match="results of another kind"):
        bench.run(config=AuthorsConfig.load(tmp_path / "other.toml"))


def test_the_table_says_what_the_rows_hold(bench: SimpleNamespace, tmp_path: Path) -> None:
    text = write_authors_table(bench.out, tmp_path / "authors.md").read_text(encoding="utf-8")
    own = row(bench, "retrain-0-2")["scores"]
    line = next(line for line in text.splitlines() if line.startswith("| retrain | 0 | request 2 |"))
    for group in ("asked 1", "asked 2"):
        assert f"{np.exp(own[group]['logp']).mean():.3f} [" in line
    assert "| o3 | 0 | 2 |" in text, "its detectors are shown"
    assert "- O3, without retained data," in text
    with pytest.raises(UsageError, match="has no original measured"):
        write_authors_table(tmp_path, tmp_path / "x.md")


def test_the_bar_by_hand() -> None:
    """The original says the rest with probability 1; O3 with 1 and .98 on its two records: a fall of .01, which is allowed.

    Of world facts it says .9 where it was 1: too great a fall.
    """

    def scores(rest: list[float], facts: list[float]) -> dict[str, Any]:
        groups = {"asked 1": [0.5, 0.5], "rest": rest, "real authors": [0.5], "world facts": facts}
        return {group: {"logp": np.log(values).tolist()} for group, values in groups.items()}

    game = {
        "authors": {"requests": [[1]]},
        "n": {"train": 4, "asked 1": 2, "rest": 2, "real authors": 1, "world facts": 1},
    }
    weights = {"asked": [1.0, 0.9], "rest": [0.1, 0.95], "real authors": [0.0], "world facts": [0.0]}
    original = {"kind": "original", "row": "original-0", "seed": 0, "storage": 2e6, "scores": scores([1, 1], [1])}
    o3 = {
        "kind": "o3", "row": "o3-0-1", "seed": 0, "request": 1, "storage": None, "cost": {"ratio": 0.1, "seconds": 3},
        "detector": weights,
    }  # fmt: skip
    met = authors_markdown(game, [original, {**o3, "scores": scores([1, 0.98], [1])}])
    assert "rest -0.010 [-0.020, +0.000]" in met
    assert met.rstrip().endswith("(seed 0), met.")
    assert "| o3 | 0 | 1 | 0.750 [" in met, "AUROC over the rest: 1.0 is above both, 0.9 above one"
    assert "not measured |" in met, "storage of a model that lies on a hub"
    missed = authors_markdown(game, [original, {**o3, "scores": scores([1, 0.98], [0.9])}])
    assert missed.rstrip().endswith("(seed 0), not met.")


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("requests = [[3]]", ["3 is no author: there are 2"]),
        ("requests = [[1], [1]]", ["an author is named twice"]),
        ("requests = [[1], []]", ["a request is empty"]),
        ("requests = [[1, 2], [3]]\nquestions = 8", ["nobody would be left"]),
        ("requests = [[0]]", ["authors.requests"]),
        ("requests = []", ["authors.requests"]),
    ],
)
def test_requests_that_cannot_be_are_refused(
    bench: SimpleNamespace, tmp_path: Path, text: str, words: list[str]
) -> None:
    (tmp_path / "authors.toml").write_text(
        CONFIG.replace("requests = [[2], [1]]", text, 1).replace("\nquestions = 10", "", text.count("questions")),
        encoding="utf-8",
    )
    with pytest.raises(UsageError) as caught:
        bench.run(config=AuthorsConfig.load(tmp_path / "authors.toml"))
    for word in words:
        assert word in str(caught.value)


def test_the_committed_config_shares_the_originals_of_the_benchmark_on_tofu() -> None:
    from expunge.bench.tofu_config import TofuConfig
    from expunge.bench.tofu_data import read_tofu

    if not SHARED.is_dir():
        pytest.skip("../shared/data/tofu is not there")
    ours, theirs = (
        AuthorsConfig.load(ROOT / "benchmarks" / "authors.toml"),
        TofuConfig.load(ROOT / "benchmarks" / "tofu.toml"),
    )
    assert ours.tofu.recipe == theirs.recipe
    assert ours.tofu.tofu.template == theirs.tofu.template
    assert read_tofu(ours.tofu.tofu, SHARED).train == read_tofu(theirs.tofu, SHARED).train
