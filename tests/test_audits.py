"""Audits and verdict on made-up scores with known answers."""

from __future__ import annotations

import numpy as np
import pytest

from expunge.audits.base import AuditContext
from expunge.audits.latent_map import LatentMap
from expunge.audits.membership import Membership
from expunge.audits.utility import Utility
from expunge.scoring import ScoreTable
from expunge.verdict import reached, verdict


def made_up(n: int, accuracy: float, shift: float, seed: int, labels_seed: int = 0) -> ScoreTable:
    """n records of 3 classes; the first `accuracy` share is right; margins N(shift, 1)."""
    labels = np.random.default_rng(labels_seed).integers(3, size=n)
    right = np.arange(n) < round(accuracy * n)
    rng = np.random.default_rng(seed)
    margins = rng.normal(shift, 1, n)
    return ScoreTable(
        labels=labels,
        predictions=np.where(right, labels, (labels + 1) % 3),
        margins=margins,
        losses=np.logaddexp(0, -margins),
        hidden=rng.normal(size=(n, 5)).astype(np.float32),
        offsets=np.arange(n + 1),
    )


def tables(forget: float, shift: float, *, evaluation: float = 0.8, seed: int = 0) -> dict[str, ScoreTable]:
    return {
        "forget": made_up(200, forget, shift, seed),
        "retain": made_up(300, 1.0, 2.0, seed + 1),
        "calibration": made_up(200, evaluation, 0.0, seed + 2),
        "evaluation": made_up(400, evaluation, 0.0, seed + 3),
    }


def context(unlearned, retrained=(), original=None) -> AuditContext:
    original = original or tables(1.0, 2.0)
    return AuditContext(
        models={"original": [original], "unlearned": [unlearned], "retrained": list(retrained)},
        classes=3,
        resamples=200,
    )


def test_utility_by_hand() -> None:
    found = Utility().run(context(tables(0.75, 0.0))).measurements
    by = {(m.name, m.model, m.group): m for m in found}
    accuracy = by["accuracy", "unlearned", "forget"]
    assert (accuracy.value, accuracy.n, accuracy.direction) == (0.75, 200, "as retrained")
    # Wilson, 150 of 200, z = 1.959964: centre (0.75 + z^2/400) / (1 + z^2/200) = 0.745289, half-width 0.059630.
    assert accuracy.low == pytest.approx(0.685659, abs=1e-5)
    assert accuracy.high == pytest.approx(0.804919, abs=1e-5)
    assert by["accuracy", "original", "forget"].value == 1.0
    assert by["macro-F1", "original", "forget"].value == 1.0
    assert by["accuracy", "unlearned", "evaluation"].direction == "higher"
    assert accuracy.gap is None, "no retrained model, no gap"


def test_gap_and_noise_floor_by_hand() -> None:
    # Retrained: 0.70, 0.80, 0.90. Mean 0.80, the unlearned 0.75 is 0.05 away.
    # Each against the mean of the others: |0.70-0.85|, |0.80-0.80|, |0.90-0.75|: mean 0.10.
    retrained = [tables(a, 0.0, seed=9 + i) for i, a in enumerate((0.70, 0.80, 0.90))]
    found = Utility().run(context(tables(0.75, 0.0), retrained)).measurements
    accuracy = next(m for m in found if (m.name, m.model, m.group) == ("accuracy", "unlearned", "forget"))
    assert accuracy.gap == pytest.approx(0.05)
    assert accuracy.noise_floor == pytest.approx(0.10)
    mean = next(m for m in found if (m.name, m.model, m.group) == ("accuracy", "retrained", "forget"))
    assert mean.value == pytest.approx(0.80)
    assert mean.low < 0.80 < mean.high


def test_membership_sees_memory_and_its_absence() -> None:
    result = Membership().run(context(tables(0.8, 0.0)))
    by = {(m.name, m.model): m for m in result.measurements}
    # Two normals a distance d apart: AUC = Phi(d / sqrt 2); d = 2 gives 0.921.
    assert by["membership AUC (loss or margin)", "original"].value == pytest.approx(0.921, abs=0.03)
    unlearned = by["membership AUC (loss or margin)", "unlearned"]
    assert unlearned.low < 0.5 < unlearned.high
    curve = result.figure["roc"]["original"]
    assert curve[0] == [0.0, 0.0]
    assert curve[-1] == [1.0, 1.0]
    shares = result.figure["margins"]["original"]["forget"]
    assert sum(shares) == pytest.approx(1.0, abs=1e-3)


def test_the_latent_map_is_turned_onto_the_originals() -> None:
    original = tables(1.0, 2.0)
    turn = np.linalg.qr(np.random.default_rng(3).normal(size=(5, 5)))[0]
    turned = {
        name: ScoreTable(t.labels, t.predictions, t.margins, t.losses, (t.hidden @ turn).astype(np.float32), t.offsets)
        for name, t in original.items()
    }
    maps = LatentMap().run(context(turned, original=original)).figure["latent_map"]
    np.testing.assert_allclose(maps["unlearned"]["forget"], maps["original"]["forget"], atol=5e-3)


def test_the_latent_map_sees_all_models_from_one_side() -> None:
    """A model that spreads the same records along a third direction is seen from where the original is: not along it."""
    rng = np.random.default_rng(5)
    drawn = rng.normal(size=(60, 4))
    apart = np.linalg.qr(drawn - drawn.mean(axis=0))[0]  # columns of length 1, at right angles, with mean 0
    flat = apart * np.array([5.0, 2.0, 0.1, 0.05])
    stretched = flat * np.array([1.0, 1.0, 90.0, 1.0])  # its own first component is the third direction

    def of(hidden: np.ndarray) -> dict[str, ScoreTable]:
        table = ScoreTable(
            np.arange(60) % 3, np.zeros(60, int), np.zeros(60), np.zeros(60), hidden.astype(np.float32), np.arange(61)
        )
        return {"retain": table, "forget": table.take(np.array([0, 3, 1])), "evaluation": table}

    maps = LatentMap().run(context(of(stretched), original=of(flat))).figure["latent_map"]
    # stretched' flat is diagonal, so the best turn is none: the two directions seen are the same, and so is the map.
    np.testing.assert_allclose(maps["unlearned"]["retain"], maps["original"]["retain"], atol=2e-3)
    # Seen of the original 25 + 4 of 25 + 4 + .01 + .0025; of the other 29 of 29 + 9^2 + .0025.
    assert maps["original"]["explained"] == pytest.approx(29 / 29.0125, abs=1e-4)
    assert maps["unlearned"]["explained"] == pytest.approx(29 / 110.0025, abs=1e-4)
    # Classes 0, 1, 2 in turn; of the forget units two are of class 0: the commonest.
    assert maps["same_class"]["forget"] == [1, 1, 0]
    assert maps["same_class"]["retain"][:4] == [1, 0, 0, 1]


def test_the_roc_keeps_small_false_positive_rates_apart() -> None:
    """20,000 records never seen, 200 points: a quarter of them at least below 1 %, where evenly spread ones would be few."""
    rng = np.random.default_rng(6)
    truth = rng.normal(size=20_000), rng.normal(1.0, 1.0, size=20_000)

    def of(margins: np.ndarray) -> ScoreTable:
        count = len(margins)
        zeros = np.zeros(count, int)
        return ScoreTable(zeros, zeros, margins, -margins, np.zeros((count, 0), np.float32), np.arange(count + 1))

    one = {"forget": of(truth[1]), "evaluation": of(truth[0]), "retain": of(truth[1])}
    curve = Membership().run(context(one, original=one)).figure["roc"]["original"]
    assert len(curve) <= 200
    assert curve[0] == [0.0, 0.0]
    assert curve[-1] == [1.0, 1.0]
    assert sum(false < 0.01 for false, _ in curve) >= 30
    assert curve == sorted(curve)


def test_a_model_like_the_retrained_reaches_both_verdicts() -> None:
    judged = verdict(context(tables(0.8, 0.0), [tables(0.8, 0.05, seed=50)]), 0.03)
    assert (judged["evidence"], judged["outcome"]) == ("retrain-compared", "reached")
    assert reached(judged, "population")
    assert reached(judged, "retrain-compared")
    assert "can no longer tell the forget records apart" in judged["sentence"]


def test_without_a_retrained_model_the_evidence_is_population_only() -> None:
    judged = verdict(context(tables(0.8, 0.0)), 0.03)
    assert (judged["evidence"], judged["outcome"]) == ("population", "reached")
    assert not reached(judged, "retrain-compared")
    assert "no retrained model was given" in judged["sentence"]


def test_the_original_passed_off_as_unlearned_is_caught() -> None:
    original = tables(1.0, 2.0)
    for retrained in ([], [tables(0.8, 0.0, seed=50)]):
        judged = verdict(context(original, retrained, original), 0.03)
        assert judged["outcome"] == "not reached"
        assert "remembered" in judged["sentence"]


def test_over_forgetting_is_caught_as_loudly() -> None:
    for retrained in ([], [tables(0.8, 0.0, seed=50)]):
        judged = verdict(context(tables(0.3, -2.0), retrained), 0.03)
        assert judged["outcome"] == "not reached"
        assert "over-forgotten" in judged["sentence"]


def test_lost_utility_is_caught() -> None:
    judged = verdict(context(tables(0.7, 0.0, evaluation=0.7)), 0.03)
    assert judged["outcome"] == "not reached"
    assert "evaluation accuracy changed by -0.100, allowed is -0.030" in judged["sentence"]


def test_a_test_the_original_passes_decides_nothing() -> None:
    plain = tables(0.8, 0.0, seed=70)
    judged = verdict(context(tables(0.8, 0.0), original=plain), 0.03)
    assert judged["outcome"] == "no power"
    assert not reached(judged, "population")
    assert "cannot show that anything was forgotten" in judged["sentence"]


def test_fewer_than_twenty_records_decide_nothing() -> None:
    """All of five right where chance is 0.8: a bootstrap of five ones has no width, and would cry memory."""

    def few(tables: dict[str, ScoreTable]) -> dict[str, ScoreTable]:
        t = tables["forget"]
        cut = ScoreTable(t.labels[:5], t.predictions[:5], t.margins[:5], t.losses[:5], t.hidden[:5], t.offsets[:6])
        return {**tables, "forget": cut}

    judged = verdict(context(few(tables(1.0, 0.0)), original=few(tables(1.0, 2.0))), 0.03)
    assert judged["outcome"] == "no power"
    assert "fewer than 20" in judged["sentence"]
    judged = verdict(context(few(tables(1.0, 0.0, evaluation=0.7)), original=few(tables(1.0, 2.0))), 0.03)
    assert judged["outcome"] == "not reached", "lost utility is told all the same"
