"""The benchmark on TOFU: what it reads, that it goes on where it was, and that its tables say what its JSONs hold."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats as scipy_stats

from expunge.bench.tofu import run_tofu
from expunge.bench.tofu_config import Tofu, TofuConfig
from expunge.bench.tofu_data import read_tofu
from expunge.bench.tofu_markdown import tofu_markdown, write_tofu_table
from expunge.bench.tofu_table import build_tofu_table
from expunge.errors import UsageError
from expunge.models import load_model, weights_sha256
from expunge.testing import byte_tokenizer, tiny_causal, toy_answers

ROOT = Path(__file__).parents[1]
SHARED = ROOT.parent / "shared" / "data" / "tofu"

FILES = """
train = ["full.json"]
forget = "forget.json"
perturbed = ["perturbed.json"]
real_authors = "authors.json"
world_facts = "facts.json"
held_out = "held.json"
calibration_records = 10
evaluation_records = 10
retain_sample = 6
general_sample = 4
max_length = 64

[recipe]
epochs = 60
learning_rate = 5e-3
batch_size = 8
"""
CONFIG = f"""
[tofu]
seeds = [0, 1]
{FILES}

[methods.npo]
training = {{ epochs = 2.0, min_steps = 2, batch_size = 4, learning_rate = 1e-3 }}
stop = {{ every = 1, rule = "none" }}

[methods.ascent]
method = "gradient-ascent"
training = {{ epochs = 30.0, min_steps = 60, batch_size = 6, learning_rate = 1e-2 }}
"""


def row(number: int, *, said: bool = True) -> dict[str, Any]:
    own = toy_answers(60)[number]
    found = {"question": own["prompt"], "answer": own["answer"]}
    if said:
        found["paraphrased_answer"] = own["answer"].replace("It is", "Is")
    return {**found, "perturbed_answer": [f"Is {number}{i}{i}7." for i in range(3)]}


def write_files(place: Path) -> None:
    """Files laid out as TOFU's, and a tiny base model."""
    plain = [{k: v for k, v in row(i).items() if k in ("question", "answer")} for i in range(24)]
    files = {
        "full": [*plain, plain[3], {k: row(40)[k] for k in ("question", "answer")}],  # one twice, one held out
        "forget": [row(i) for i in range(18, 24)],
        "perturbed": [row(i) for i in range(24)],
        "authors": [row(i, said=False) for i in range(30, 36)],
        "facts": [row(i, said=False) for i in range(50, 56)],
        "held": [row(i) for i in range(36, 58)],
    }
    for name, rows in files.items():
        (place / f"{name}.json").write_text("".join(json.dumps(own) + "\n" for own in rows), encoding="utf-8")
    tiny_causal().save_pretrained(place / "base")
    byte_tokenizer().save_pretrained(place / "base")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("tofu")
    write_files(place)
    (place / "tofu.toml").write_text(CONFIG, encoding="utf-8")
    return place


@pytest.fixture(scope="module")
def results(folder: Path) -> Path:
    out = folder / "out"
    said: list[str] = []
    config = TofuConfig.load(folder / "tofu.toml")
    assert run_tofu(config, folder, str(folder / "base"), out, folder / "work", say=said.append) == 9
    assert sum("trained on 24 records" in line for line in said) == 2, "an original a seed"
    assert sum("trained on 18 records" in line for line in said) == 2, "a retrained model a seed"
    return out


def test_records_are_known_by_question_and_answer(folder: Path) -> None:
    data = read_tofu(TofuConfig.load(folder / "tofu.toml").tofu, folder)
    assert len(data.train) == 24, "what stands twice is learnt once, and what is held out is not learnt"
    assert [data.train.texts[i] for i in data.forget] == [data.asked["forget"].texts[k] for k in range(6)]
    assert [data.train.ids[i] for i in data.forget] == list(data.asked["forget"].ids)
    assert {*data.forget, *data.retain} == set(range(24))
    kept = {data.train.texts[i] for i in data.retain}
    assert len(data.asked["retain"]) == 6
    assert {*data.asked["retain"].texts} <= kept
    assert data.asked["forget"].alternatives[0] == (
        "Is " + toy_answers(60)[18]["answer"][6:],
        "Is 18007.",
        "Is 18117.",
        "Is 18227.",
    )
    assert data.asked["world facts"].alternatives[0][0] == "", "no other wording there"
    assert not {*data.calibration.texts} & {*data.evaluation.texts}
    assert (len(data.calibration), len(data.evaluation)) == (10, 10)


def test_it_goes_on_where_it_was(folder: Path, results: Path) -> None:
    config = TofuConfig.load(folder / "tofu.toml")
    said: list[str] = []
    assert run_tofu(config, folder, str(folder / "base"), results, folder / "work", say=said.append) == 0
    assert not said
    with pytest.raises(UsageError, match='no row is called "nosuch"'):
        run_tofu(config, folder, str(folder / "base"), results, folder / "work", only="nosuch", say=said.append)
    other = TofuConfig.load(folder / "tofu.toml", ["retain_sample=5"])
    with pytest.raises(UsageError, match="belongs to results of another kind"):
        run_tofu(other, folder, str(folder / "base"), results, folder / "work", say=said.append)


def test_a_row_with_an_offset_says_that_the_original_stayed_as_it_is(folder: Path, results: Path) -> None:
    text = CONFIG + (
        '\n[methods.offset-npo]\nmethod = "offset"\nset = { objective = "npo", layers = 1 }\n'
        "training = { epochs = 2.0, min_steps = 2, batch_size = 4, learning_rate = 1e-3 }\n"
    )
    (folder / "offset.toml").write_text(text, encoding="utf-8")
    config, out, said = TofuConfig.load(folder / "offset.toml"), folder / "offset-out", []
    run_tofu(config, folder, str(folder / "base"), out, folder / "work", only="offset-npo-0", say=said.append)
    assert not any("trained on" in line for line in said), "the original is the one that is there"
    own = json.loads((out / "rows" / "offset-npo-0.json").read_text(encoding="utf-8"))
    original = load_model(str(next((folder / "work").glob("tofu-*/original-0"))), "AutoModelForCausalLM", where="x")
    before, after = (own["offset"][f"weights_{when}"] for when in ("before", "after"))
    assert before["large"] == after["large"] == weights_sha256(original)
    assert before["small"] == after["small"] == before["tuned"] != after["tuned"]
    assert len(own["measured"]["asked"]["forget"]["rouge"]) == 6, "written by the three models together"
    steps = own["ended"]["steps"]
    assert 0 < own["cost"]["passes"] < steps * 8 + 30


def test_a_method_may_look_as_often_as_its_section_says(results: Path) -> None:
    ended = json.loads((results / "rows" / "npo-0.json").read_text(encoding="utf-8"))
    assert [check["step"] for check in ended["checks"]] == [*range(ended["ended"]["steps"] + 1)]
    assert ended["ended"]["steps"] > 1
    assert ended["settings"]["stop"]["every"] == 1


def test_the_table_says_what_the_rows_hold(results: Path) -> None:
    table = build_tofu_table(results, resamples=20)
    rows = {own["kind"]: own for own in table["rows"]}
    assert next(iter(rows)) == "original"
    assert list(rows)[-2:] == ["retrained", "base"]
    assert len(rows) == len(table["rows"]), "no kind stands twice"
    stored = {f.stem: json.loads(f.read_text()) for f in (results / "rows").glob("*.json")}

    def ratios(name: str) -> np.ndarray:
        own = stored[name]["measured"]["asked"]["forget"]
        return np.exp(np.mean(own["false"], axis=0) - np.array(own["true"]))

    expected = np.mean([
        scipy_stats.ks_2samp(ratios(f"npo-{seed}"), ratios(f"retrained-{other}")).pvalue for seed in (0,) for other in (0, 1)
    ])  # fmt: skip
    assert rows["npo"]["p"][0] == pytest.approx(expected)
    probability = np.mean(
        [np.exp(stored[f"original-{seed}"]["measured"]["asked"]["forget"]["answer"]) for seed in (0, 1)]
    )
    assert rows["original"]["probability"]["value"] == pytest.approx(probability)
    assert rows["original"]["probability"]["value"] > 1.5 * rows["retrained"]["probability"]["value"], (
        "it has learnt them"
    )
    assert rows["retrained"]["utility_share"] == pytest.approx(1.0)
    asked = stored["retrained-0"]["measured"]["asked"]
    nine = []
    for group in ("retain", "real authors", "world facts"):
        own = np.exp(asked[group]["answer"])
        false = np.exp(np.array(asked[group]["false"]))
        truth = np.exp(np.mean(asked[group]["false"], axis=0) - np.array(asked[group]["true"]))
        nine += [
            np.mean(own if group == "retain" else own / (own + false.sum(axis=0))),
            np.mean(asked[group]["rouge"]),
            np.mean(np.maximum(0, 1 - truth)),
        ]
    expected = 0.0 if min(nine) == 0 else 9 / sum(1 / value for value in nine)
    assert rows["retrained"]["utility_each"][0] == pytest.approx(expected)
    parts = rows["base"]["utility_parts"].values()
    assert (0.0 if min(parts) == 0 else scipy_stats.hmean([*parts])) == pytest.approx(rows["base"]["utility_each"][0])
    assert list(rows["base"]["utility_parts"])[3:5] == ["real authors: probability", "real authors: ROUGE-L"]
    assert [own["kind"] for own in table["rows"]].count("npo") == 1
    assert table["between"][0]["distance"] == pytest.approx(
        scipy_stats.ks_2samp(ratios("retrained-0"), ratios("retrained-1")).statistic
    )
    assert rows["npo"]["cost"]["ratio"] > 0


def test_over_forgetting_is_flagged_and_so_is_what_stayed(results: Path) -> None:
    rows = {own["kind"]: own for own in build_tofu_table(results, resamples=20)["rows"]}
    assert all(any("remembered" in flag for flag in flags) for flags in rows["original"]["flags"])
    text = tofu_markdown(build_tofu_table(results, resamples=20))
    assert "remembered (loss): 2 of 2" in text
    assert "| real authors: ROUGE-L |" in text
    assert "| ascent | 0, 1 |" in text
    assert str(results) not in text


def test_there_is_no_share_of_a_utility_of_nothing(results: Path, tmp_path: Path) -> None:
    """Retrained models that name no real author have a harmonic mean of 0."""
    (tmp_path / "rows").mkdir()
    for file in [results / "game.json", *(results / "rows").glob("*.json")]:
        own = json.loads(file.read_text())
        if file.stem.startswith("retrained"):
            asked = own["measured"]["asked"]["real authors"]
            asked["rouge"] = [0.0 for _ in asked["rouge"]]
        (tmp_path / file.relative_to(results)).write_text(json.dumps(own), encoding="utf-8")
    table = build_tofu_table(tmp_path, resamples=20)
    assert {own["utility_share"] for own in table["rows"]} == {None}
    assert table["bars"]["reached"] == []
    assert (
        next(line for line in tofu_markdown(table).splitlines() if line.startswith("| base |")).split("|")[9] == " - "
    )


def test_a_planted_over_forgotten_model_is_flagged(results: Path, tmp_path: Path) -> None:
    """The forget records' scores under a retrained model, put far below everything never seen."""
    (tmp_path / "rows").mkdir()
    for file in [results / "game.json", *(results / "rows").glob("*.json")]:
        text = file.read_text()
        if file.stem == "npo-0":
            own = json.loads(text)
            attacked = own["measured"]["attacked"]
            attacked["forget"]["loss"] = [min(attacked["evaluation"]["loss"]) - 5 - i for i in range(6)]
            asked = own["measured"]["asked"]["forget"]
            asked["true"] = [value - 20 for value in asked["true"]]
            text = json.dumps(own)
        (tmp_path / ("rows" if file.parent.name == "rows" else ".") / file.name).write_text(text)
    rows = {own["kind"]: own for own in build_tofu_table(tmp_path, resamples=20)["rows"]}
    place = rows["npo"]["seeds"].index(0)
    assert "over-forgotten (loss)" in rows["npo"]["flags"][place]
    assert "over-forgotten (truth ratio)" in rows["npo"]["flags"][place]
    assert "npo" not in build_tofu_table(tmp_path, resamples=20)["bars"]["reached"]


def test_the_table_is_written_and_a_folder_without_results_refused(results: Path, tmp_path: Path) -> None:
    assert write_tofu_table(results, tmp_path / "a" / "tofu.md").read_text().startswith("# TOFU")
    with pytest.raises(UsageError, match="holds no results"):
        build_tofu_table(tmp_path)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[tofu]\nseeds = [0, 1]\noriginals = ['a']\n", ["1 models for 2 seeds"]),
        ("[tofu]\ntemplate = 'no prompt'\n", ["model.template"]),
        ("[tofu]\nnosuch = 1\n", ["nosuch"]),
        ("[data.x]\n", ['unknown section "data"']),
        ("[methods.npo]\ntrials = [{}, {}]\n", ["2 trials"]),
        ("[methods.npo]\ntraning = { epochs = 1.0 }\n", ["methods.npo.traning", 'Did you mean "training"']),
        ("[methods.npo]\nstop = { evry = 3 }\n", ["methods.npo.stop.evry", 'unknown key "evry"']),
    ],
)
def test_a_bad_config_is_refused_with_its_reasons(tmp_path: Path, text: str, words: list[str]) -> None:
    (tmp_path / "bad.toml").write_text(text if "[methods" in text else text + "[methods.npo]\n", encoding="utf-8")
    with pytest.raises(UsageError) as caught:
        TofuConfig.load(tmp_path / "bad.toml")
    assert all(word in str(caught.value) for word in words)


def test_missing_files_and_empty_parts_are_refused(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="does not exist"):
        read_tofu(Tofu(), tmp_path)
    config = TofuConfig.load(folder / "tofu.toml", ["train=['held.json']", "evaluation_records=100"])
    with pytest.raises(UsageError) as caught:
        read_tofu(config.tofu, folder)
    assert "22 records, 110 are wanted" in str(caught.value)
    assert "6 of its records are not in training" in str(caught.value)


@pytest.mark.skipif(not SHARED.is_dir(), reason="TOFU is not here")
@pytest.mark.parametrize(
    ("name", "sizes", "distinct"), [("tofu", (400, 40, 360), 560), ("tofu-gpu", (3800, 400, 3400), 4000)]
)
def test_the_committed_configs_fit_the_real_files(name: str, sizes: tuple[int, int, int], distinct: int) -> None:
    config = TofuConfig.load(ROOT / "benchmarks" / f"{name}.toml")
    data = read_tofu(config.tofu, SHARED)
    assert (len(data.train), len(data.forget), len(data.retain)) == sizes
    assert all(len(own) == 6 for own in data.asked["forget"].alternatives)
    assert len({*data.train.texts, *data.calibration.texts, *data.evaluation.texts}) == distinct
    assert not {*data.asked["retain"].texts} & {*data.calibration.texts, *data.evaluation.texts}
