"""The benchmark's bars, by hand; and the layer probe they show."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from expunge.bench.bars import bars_of, bars_page, leave_one_out
from expunge.bench.probing import of_records, part, probed, wanted
from expunge.bench.table import GAPS
from expunge.scoring import ScoreTable
from expunge.tasks.base import Encoded


def cell(value: float, *, original: float = 0.9, retrained: tuple[float, ...] = (0.5, 0.52, 0.54), **more: Any) -> Any:
    figure = {"value": value, "original": original, "retrained": list(retrained), "n": [60, 100]}
    figures: dict[str, Any] = {name: dict(figure) for name in GAPS}
    figures["membership AUC"]["difference"] = more.pop("difference", {"value": 0.01, "low": -0.02, "high": 0.029})
    figures["TPR at 1% FPR"] = {"value": 0.0, "original": 0.5, "retrained": [0.0, 0.0, 0.05], "n": [60, 100]}
    figures["per record, never seen"] = {"gap": 0.3, "original": 0.25, "noise_floor": 0.2, "n": [100]}
    figures["per record"] = {"gap": 0.6, "original": 1.2, "noise_floor": 0.5, "n": [60]}
    cost = {"passes": 140.0, "checks": 10.0, "retraining": 1000.0, "passes_per_record": 2.3}
    return {
        "data": "toy", "request": "random-5%", "method": "deepcut", "seed": 0, "n": {"forget": 60}, "figures": figures,
        "cost": cost, "probe": [], **more,
    }  # fmt: skip


def test_leave_one_out_by_hand() -> None:
    """Means of two of (1, 2, 3): 2.5, 2, 1.5; a value of 2 is off by .5, 0, .5."""
    assert leave_one_out(2.0, [1, 2, 3]) == pytest.approx(1 / 3)


def test_bars_by_hand() -> None:
    """Retrained .50, .52, .54: their means but for one are .53, .52, .51, their own gaps .03, 0, .03; .55 is off by .03 on
    average, .56 by .04."""
    original, own = bars_of([cell(0.55)])
    assert own["gap_limit"] == pytest.approx(0.03)
    assert own["gap"] == pytest.approx(0.03)
    assert bars_of([cell(0.56)])[1]["gap"] == pytest.approx(0.04)
    assert own["per_record"] == pytest.approx(1.2)
    assert original["per_record"] == pytest.approx(2.4)
    assert (own["never_seen"], original["never_seen"]) == pytest.approx((1.5, 1.25))
    assert own["test_lost"] == pytest.approx(-0.05)
    assert own["auc"]["verdict"] == "as retrained"
    assert own["clears"] == {"gap": True, "test F1": True, "per record": True, "TPR": True, "cost": True}
    assert original["clears"] == {"gap": False, "test F1": True, "per record": False, "TPR": False}


def test_what_does_not_clear_a_bar_says_so() -> None:
    _, worse = bars_of([cell(0.60), cell(0.40, seed=1)])
    assert worse["clears"]["gap"] is False
    assert worse["test_lost"] == pytest.approx(0.1), "the worst seed counts"
    assert worse["clears"]["test F1"] is False
    for (low, high), verdict in {(0.04, 0.06): "not", (0.01, 0.06): "not decided"}.items():
        _, row = bars_of([cell(0.55, difference={"value": 0.05, "low": low, "high": high})])
        assert row["auc"]["verdict"] == verdict


def test_a_bar_that_the_original_clears_has_no_power() -> None:
    powerless = bars_page([[cell(0.55, original=0.55)]])
    assert "| deepcut | 0 of 0 | 1 of 1 | 1 of 1 | 1 of 1 | 1 of 1 |" in powerless
    assert "| deepcut | 1 of 1 | 1 of 1 | 1 of 1 | 1 of 1 | 1 of 1 |" in bars_page([[cell(0.55)]])


def test_failed_cells_and_too_few_retrained_models_make_no_rows() -> None:
    assert bars_of([{"data": "toy", "request": "r", "method": "deepcut", "seed": 0, "failed": "NaN"}]) == []
    assert bars_of([cell(0.5, retrained=(0.5, 0.6))]) == []


def table(states: np.ndarray, offsets: list[int] | None = None) -> ScoreTable:
    n = len(states)
    bounds = np.array(offsets if offsets is not None else range(n + 1))
    zeros = np.zeros(n)
    return ScoreTable(
        labels=zeros.astype(int), predictions=zeros.astype(int), margins=zeros, losses=zeros, hidden=np.zeros((n, 0)),
        offsets=bounds, layers=states.astype(np.float16), layer_units=np.arange(n),
    )  # fmt: skip


def test_a_records_states_are_the_mean_over_its_units() -> None:
    found = of_records(table(np.arange(5.0)[:, None, None], [0, 2, 5]))
    assert found.layers is not None
    assert found.layers[:, 0, 0].tolist() == [0.5, 3.0]
    picked = part(found, np.array([1]))
    assert picked.layers is not None
    assert picked.layers[:, 0, 0].tolist() == [3.0]


def test_states_are_kept_of_forget_and_of_the_first_test_records() -> None:
    encoded = Encoded([[0]] * 500, None, [(0,)] * 500)
    assert len(wanted("forget", encoded)) == 500  # pyright: ignore[reportArgumentType]
    assert len(wanted("test", encoded)) == 400  # pyright: ignore[reportArgumentType]
    assert wanted("retain", encoded) is None


def test_the_probe_sees_a_layer_that_gives_records_away() -> None:
    """Layer 1 of the unlearned model and of the original is shifted for forget records, that of retrained ones is not."""
    rng = np.random.default_rng(0)

    def model(shift: float) -> dict[str, ScoreTable]:
        forget, unseen = rng.normal(size=(60, 2, 8)), rng.normal(size=(120, 2, 8))
        forget[:, 1] += shift
        return {"forget": table(forget), "test": table(unseen)}

    rows = probed([model(1.0)], model(1.0), [model(0.0) for _ in range(3)], [np.arange(60)])
    assert [row["layer"] for row in rows] == [0, 1]
    assert rows[1]["value"] > 0.8
    assert rows[1]["difference"]["low"] > 0.03
    assert rows[0]["difference"]["low"] < 0.0 < rows[0]["difference"]["high"]
    assert rows[1]["n"] == [60, 120]
    bare = {group: replace(own, layers=None) for group, own in model(0.0).items()}
    others = [model(0.0), bare, model(0.0)]
    assert len(probed([model(1.0)], model(1.0), others, [np.arange(60)])[1]["retrained"]) == 2, "those that have states"
    assert probed([model(1.0)], model(1.0), [bare], [np.arange(60)]) == []
    pooled = probed([model(1.0)] * 2, model(1.0), [model(0.0)] * 3, [np.arange(60), np.arange(60)])
    assert pooled[1]["n"] == [120, 120], "each request brings its own records and its share of the unseen"
