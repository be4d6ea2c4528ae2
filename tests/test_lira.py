"""U-LiRA: its statistics on margins with known answers, its design, and that a game goes on where it was."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from scipy.stats import norm

from conftest import write_csv
from expunge.bench.lira import run_lira
from expunge.bench.lira_config import Game, LiraConfig
from expunge.bench.lira_shadows import design
from expunge.bench.lira_stats import judged, likelihood_ratios
from expunge.bench.lira_table import build_lira_table, lira_markdown, write_lira_table
from expunge.errors import UsageError
from expunge.testing import tiny_classifier, tiny_tokenizer, toy_records

ROOT = Path(__file__).parents[1]
RESULTS = ROOT / "benchmarks" / "results" / "lira"

CONFIG = """
[lira]
shadows = 6
pool = 40
targets = 12
layers = 1
epochs = 1
dev_records = 16
test_records = 16

[recipe]
learning_rate = 3e-3
batch_size = 16
max_length = 8

[data.toy]
train = ["train.csv"]
test = ["test.csv"]

[methods.away]
method = "deepcut"
set = { gamma = 1.0 }
training = { min_steps = 2, epochs = 1.0 }
"""


def drawn(shift: float = 0.0, sd: float = 1.0, pairs: int = 40, records: int = 100, seed: int = 0):
    """Margins of records that each lie elsewhere: the first side N(c + shift, sd), the second N(c, 1)."""
    rng = np.random.default_rng(seed)
    centre = rng.normal(scale=3.0, size=records)
    return centre + shift + sd * rng.normal(size=(pairs, records)), centre + rng.normal(size=(pairs, records))


def test_what_differs_in_nothing_is_a_fair_coin() -> None:
    found = judged(*drawn())
    assert found.decisions == 8000
    for interval in (found.accuracy, found.accuracy_own_sd, found.auc):
        assert interval.low <= 0.5 <= interval.high
        assert abs(interval.value - 0.5) < 0.03
    assert found.shift.low <= 0 <= found.shift.high


def test_the_coin_is_fair_with_few_pairs_too() -> None:
    """Left out is the whole pair: else the side a margin is from would have a model fewer, and be believed less."""
    right = [judged(*drawn(pairs=4, records=50, seed=seed), resamples=1).accuracy.value for seed in range(60)]
    assert np.mean(right) == pytest.approx(0.5, abs=3 * np.std(right) / np.sqrt(60))


@pytest.mark.parametrize("shift", [0.5, 1.0, -2.0])
def test_a_planted_shift_gives_what_gaussians_give(shift: float) -> None:
    """Two normals of sd 1 that are d apart: accuracy Phi(d / 2), AUC Phi(d / sqrt 2), hits 1 - Phi(z(.99) - d)."""
    found = judged(*drawn(shift, pairs=200), resamples=200)
    size = abs(shift)
    assert found.accuracy.value == pytest.approx(norm.cdf(size / 2), abs=0.01)
    assert found.auc.value == pytest.approx(norm.cdf(size / 2**0.5), abs=0.01)
    assert found.hits is not None
    assert found.hits.value == pytest.approx(norm.sf(norm.isf(0.01) - size), abs=0.02)
    assert found.shift.value == pytest.approx(shift, abs=0.05)
    assert found.accuracy.low <= found.accuracy.value <= found.accuracy.high


def test_another_spread_is_seen_as_well() -> None:
    """N(0, 2) against N(0, 1): the likelier one changes at c = sqrt(8 ln 2 / 3); P(|x| < c), P(|x| > c) averaged: .661."""
    found = judged(*drawn(sd=2.0, pairs=200), resamples=50)
    cut = (8 * np.log(2) / 3) ** 0.5
    wanted = (2 * norm.sf(cut / 2) + 1 - 2 * norm.sf(cut)) / 2
    assert found.accuracy.value == pytest.approx(wanted, abs=0.01)


def test_chance_knows_of_luck_that_whole_models_share() -> None:
    """Where each model of one side is surer or less sure of all records, accuracy strays further from 50 % by luck."""
    first, second = drawn(pairs=12)
    rng = np.random.default_rng(3)
    shared = judged(first + rng.normal(size=(12, 1)), second + rng.normal(size=(12, 1)))
    alone = judged(first, second)
    assert shared.chance[1] - shared.chance[0] > 2 * (alone.chance[1] - alone.chance[0])
    assert alone.chance[0] < 0.5 < alone.chance[1]
    planted = judged(*drawn(1.0, pairs=12))
    assert planted.chance[1] < planted.accuracy.low


def test_a_margin_is_judged_without_its_own_pair() -> None:
    """One far margin cannot vouch for itself: its own pair's models are no part of what it is compared with."""
    first, second = drawn(pairs=6, records=5)
    ratios = likelihood_ratios(first, second)
    changed = first.copy()
    changed[2, 1] += 100.0
    again = likelihood_ratios(changed, second)
    assert np.allclose(ratios[1][2], again[1][2], atol=1e-6), "the other side's margins of pair 2 are judged as before"
    assert not np.allclose(ratios[1][3], again[1][3], atol=1e-6)


def test_the_ratio_by_hand() -> None:
    """One record, pair 0 left out: sides 1, 3 and -1, -3: means 2 and -2, variances 2; of 1: (9 - 1) / 4 = 2."""
    first, second = np.array([[1.0], [1.0], [3.0]]), np.array([[0.0], [-1.0], [-3.0]])
    for own_sd in (False, True):
        ratios = likelihood_ratios(first, second, own_sd=own_sd)
        assert ratios[0][0, 0] == pytest.approx(2.0)
        assert ratios[1][0, 0] == pytest.approx(0.0)


def test_too_little_is_not_measured() -> None:
    assert judged(*drawn(pairs=3, records=33), resamples=10).hits is None, "99 decisions a side cannot show 1 %"
    with pytest.raises(ValueError, match="three pairs"):
        judged(*drawn(pairs=2))


def test_partners_share_nothing_and_requests_are_of_one_size() -> None:
    game = Game(shadows=8, pool=101, targets=10)
    who = design(101, game)
    assert len(set(who.targets.tolist())) == 10
    for pair in range(4):
        one, other = who.trained(2 * pair), who.trained(2 * pair + 1)
        assert sorted(one + other) == list(range(100)), "the odd record is left out"
        assert len(one) == len(other) == 50
    for shadow in range(8):
        assert len(who.request(shadow)) == 5
        assert set(who.request(shadow)) <= set(who.targets.tolist())
        assert sorted(who.request(shadow) + who.retained(shadow)) == who.trained(shadow)
    assert (who.inside[:, who.targets].sum(axis=0) == 4).all(), "each target is in half of the shadows"
    assert len({tuple(who.trained(2 * pair)) for pair in range(4)}) == 4


@pytest.fixture
def place(tmp_path: Path) -> SimpleNamespace:
    write_csv(tmp_path / "train.csv", toy_records(110, seed=1))
    write_csv(tmp_path / "test.csv", toy_records(60, seed=2))
    (tmp_path / "lira.toml").write_text(CONFIG)
    tiny_classifier(seed=5).bert.save_pretrained(tmp_path / "base")
    tiny_tokenizer().save_pretrained(tmp_path / "base")
    config = LiraConfig.load(tmp_path / "lira.toml")
    return SimpleNamespace(folder=tmp_path, out=tmp_path / "out", base=str(tmp_path / "base"), config=config)


def test_a_game_is_played_whole_and_goes_on_where_it_was(place) -> None:
    def go(only: str = "*", config: LiraConfig = place.config) -> int:
        work = place.folder / "work"
        return run_lira(config, place.folder, place.base, place.out, work, only=only, say=lambda _: None)

    assert go("away") == 6
    assert not (place.out / "rows" / "untouched.json").exists()
    assert go() == 6, "the shadows were trained for the method already; the retrained are left"
    assert go() == 0, "nothing is done twice"
    first = json.loads((place.out / "rows" / "away.json").read_text())
    file = next((place.folder / "work").rglob("away-*-3.npz"))
    file.unlink()
    assert go("away") == 1
    again = json.loads((place.out / "rows" / "away.json").read_text())
    assert again["margins"] == first["margins"], "the same seed on the same machine gives the same margins"
    untouched = json.loads((place.out / "rows" / "untouched.json").read_text())
    assert untouched["margins"] != first["margins"]
    assert first["steps"] == [[2, 2]] * 6

    table = build_lira_table(place.out, resamples=20)
    assert [row["row"] for row in table["rows"]] == ["untouched", "away", "retrained"]
    for row in table["rows"]:
        assert row["never_seen"].decisions == 2 * 3 * 12
    away = next(row for row in table["rows"] if row["row"] == "away")
    assert away["audits"] == {"not_measured": "3 models a side, 32 are needed"}
    assert away["retrained"].decisions == 2 * 3 * 12
    text = write_lira_table(place.out, place.folder / "lira.md").read_text()
    assert "positive control" in text
    stored = "".join(path.read_text() for path in place.out.rglob("*.json"))
    assert not [row for row in toy_records(110, seed=1) if row["text"] in stored], "no record's text is in a result"

    other = (place.folder / "lira.toml").read_text().replace("targets = 12", "targets = 10")
    (place.folder / "other.toml").write_text(other)
    with pytest.raises(UsageError, match=r"belongs to another game \(.*targets"):
        go(config=LiraConfig.load(place.folder / "other.toml"))
    with pytest.raises(UsageError, match="Rows are: untouched, away, retrained"):
        go("awya")


def made_up(folder: Path, *, missing: tuple[int, ...] = (), shift: float = 3.0, shadows: int = 64) -> Path:
    """Results of a method that leaves a trace of `shift` sd, and of a faultless retraining."""
    rng = np.random.default_rng(1)
    who = design(40, Game(shadows=shadows, pool=40, targets=8))
    inside = who.inside[:, who.targets]
    noise = rng.normal(size=(shadows, 8))
    rows = {"untouched": noise + 5 * inside, "trace": noise + shift * inside, "retrained": noise}
    game = {
        "data": "toy", "labels": ["a", "b"], "sizes": {"shadows": shadows, "layers": 0, "epochs": 2, "targets": 8},
        "recipe": {"epochs": 2}, "n": {"train": 40, "test": 30}, "trained": 20, "request": 4, "targets": list("abcdefgh"),
        "inside": ["".join("01"[int(x)] for x in line) for line in inside],
    }  # fmt: skip
    (folder / "rows").mkdir(parents=True)
    (folder / "game.json").write_text(json.dumps(game))
    for name, margins in rows.items():
        listed = [None if name == "trace" and i in missing else line.tolist() for i, line in enumerate(margins)]
        count = len(listed)
        row = {
            "row": name, "margins": listed, "settings": {} if name != "trace" else {"method": {}}, "seconds": [1.0] * count,
            "test_accuracy": [0.5] * count, "passes": [8.0] * count, "steps": [[2, 1]] * count,
            "failed": {str(i): "loss is NaN" for i in missing} if name == "trace" else {}, "environment": {"device": "CPU"},
        }  # fmt: skip
        (folder / "rows" / f"{name}.json").write_text(json.dumps(row))
    return folder


def test_the_table_finds_a_planted_trace_and_counts_only_whole_pairs(tmp_path: Path) -> None:
    table = build_lira_table(made_up(tmp_path, missing=(3,)), resamples=100)
    trace = next(row for row in table["rows"] if row["row"] == "trace")
    assert trace["never_seen"].decisions == 2 * 31 * 8, "the pair whose second shadow failed is left out on both sides"
    assert trace["never_seen"].accuracy.value == pytest.approx(norm.cdf(1.5), abs=0.03)
    assert trace["retrained"].accuracy.value == pytest.approx(norm.cdf(1.5), abs=0.03)
    assert trace["passes"] == pytest.approx(8 / (2 * 16))
    assert trace["audits"]["not_measured"].startswith("31 models")
    text = lira_markdown(table)
    assert "trace (63 of 64 models)" in text
    assert "trace failed on 1 shadows: loss is NaN" in text
    assert "KLoM and epsilon: not measured" in text


def test_klom_and_epsilon_are_there_with_enough_models(tmp_path: Path) -> None:
    table = build_lira_table(made_up(tmp_path), resamples=10)
    audits = {row["row"]: row["audits"] for row in table["rows"] if "audits" in row}
    assert audits["untouched"]["KLoM"]["mean"] > audits["trace"]["KLoM"]["mean"] > 0
    assert "epsilon mean" in lira_markdown(table)


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("shadows = 6", "shadows = 7", ["lira.shadows", "7 is not allowed", "even number, 6 or more"]),
        ("shadows = 6", "shadows = 4", ["lira.shadows", "even number, 6 or more"]),
        ("targets = 12", "targets = 40", ["lira.targets", "nothing to retain"]),
        ("layers = 1", "layers = -1", ["lira.layers"]),
        ("pool = 40", "pol = 40", ["lira.pol", 'Did you mean "pool"']),
        ("[recipe]", "[recipes]", ['unknown section "recipes"', 'Did you mean "recipe"']),
        ("[data.toy]", '[data.more]\ntrain = ["a"]\n\n[data.toy]', ["2 are named", "Name 1"]),
        ('[methods.away]\n', "[methods.away]\ntrials = [{}, {}]\n", ["methods.away", "2 trials", "Give one"]),
        ('method = "deepcut"', 'method = "deepcutt"', ['Did you mean "deepcut"']),
    ],
)  # fmt: skip
def test_bad_games_are_refused(tmp_path: Path, old: str, new: str, words: list[str]) -> None:
    file = tmp_path / "lira.toml"
    file.write_text(CONFIG.replace(old, new))
    with pytest.raises(UsageError) as error:
        LiraConfig.load(file)
    for word in words:
        assert word in str(error.value)


def test_a_base_with_too_few_layers_is_refused(place) -> None:
    (place.folder / "deep.toml").write_text(CONFIG.replace("layers = 1", "layers = 9"))
    with pytest.raises(UsageError, match=r"2 layers .* 9 are wanted"):
        run_lira(
            LiraConfig.load(place.folder / "deep.toml"), place.folder, place.base, place.out, place.folder / "work",
            say=print,
        )  # fmt: skip


def test_results_that_are_not_there_are_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="holds no results"):
        build_lira_table(tmp_path)
    with pytest.raises(UsageError, match=r"the game cannot be read"):
        LiraConfig.load(tmp_path / "none.toml")


def test_the_committed_game_reaches_the_bar_on_shadows_and_decisions() -> None:
    config = LiraConfig.load(ROOT / "benchmarks" / "lira.toml")
    assert config.game.shadows >= 32, "16 shadows a side"
    assert config.game.shadows * config.game.targets >= 2500
    assert {"deepcut", "gradient-difference", "finetune"} <= config.methods.keys()


def test_the_committed_table_is_the_committed_results(tmp_path: Path) -> None:
    written = write_lira_table(RESULTS, tmp_path / "lira.md").read_text(encoding="utf-8")
    wanted = (ROOT / "docs" / "benchmark" / "lira.md").read_text(encoding="utf-8")
    assert written == wanted, "run `make bench-lira` again"
