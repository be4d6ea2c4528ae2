"""The latent probe finds what is planted in hidden states, and nothing where nothing is."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from sklearn.linear_model import Ridge

from expunge.audits.base import AuditContext
from expunge.audits.latent_probe import LatentProbe
from expunge.comparing import combined_auc, excess
from expunge.probe import folds, label_margins, probe_scores
from expunge.scoring import ScoreTable
from expunge.stats import auc

FORGET, EVALUATION, WIDTH = 80, 120, 24


def table(count: int, seed: list[int], shift: float = 0.0, drift: float = 0.0, classes: int = 3) -> ScoreTable:
    """Noise at the embeddings and two layers; `shift` moves the last layer's first axis, `drift` that of every one."""
    rng = np.random.default_rng(seed)
    states = rng.normal(size=(count, 3, WIDTH))
    states[:, :, 0] += drift
    states[:, 2, 0] += shift
    margins = rng.normal(size=count)
    return ScoreTable(
        labels=np.arange(count) % classes, predictions=np.zeros(count, dtype=int), margins=margins,
        losses=np.logaddexp(0, -margins), hidden=np.zeros((count, 0), dtype=np.float32),
        offsets=np.arange(count + 1), layers=states.astype(np.float16), layer_units=np.arange(count),
    )  # fmt: skip


def tables(seed: int, shift: float = 0.0, drift: float = 0.0) -> dict[str, ScoreTable]:
    return {
        "forget": table(FORGET, [seed, 0], shift, drift),
        "evaluation": table(EVALUATION, [seed, 1]),
        "retain": table(EVALUATION, [seed, 2], shift),
    }


def context(seed: int, unlearned: dict[str, float], retrained: int = 2, **natural: float) -> AuditContext:
    models = {
        "original": [tables(10 * seed, 2.0, **natural)],
        "unlearned": [tables(10 * seed + 1, **unlearned, **natural)],
        "retrained": [tables(10 * seed + 2 + i, **natural) for i in range(retrained)],
    }
    return AuditContext(models=models, classes=3, resamples=100, seed=seed)


def test_classes_by_the_ten_thousand_take_no_square_of_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a language model's vocabulary has them."""
    monkeypatch.setattr(np, "eye", None)
    rng = np.random.default_rng(0)
    states, labels = rng.normal(size=(60, 4)), rng.integers(0, 3, 60)
    few, many = (label_margins((states, labels), [(states, labels)], count)[0] for count in (3, 20_000))
    assert np.isfinite(many).all()
    assert (many <= few + 1e-9).all(), "more others, of which none has a unit"


def test_a_planted_trace_is_found_at_its_layer() -> None:
    for retrained in (0, 1, 2):
        result = LatentProbe().run(context(1, {"shift": 2.0}, retrained))
        assert [f.kind for f in result.findings] == ["trace"]
        sentence = result.findings[0].sentence
        assert "membership probe tells forget from held-out records at the layer 2 with AUC 0.9" in sentence
        assert "outputs look unseen" in sentence
        assert ("no retrained model was given" in sentence) is (retrained == 0)
        by = {(m.name, m.model): m for m in result.measurements}
        # Two normals two standard deviations apart: AUC at best Phi(2 / sqrt 2) = 0.921.
        assert by["membership probe AUC, layer 2", "unlearned"].value == pytest.approx(0.921, abs=0.05)
        assert (
            by["membership probe AUC, layer 0", "unlearned"].low
            < 0.5
            < by["membership probe AUC, layer 0", "unlearned"].high
        )
        assert by["membership probe AUC, layer 2", "original"].n == FORGET + EVALUATION
        figure = result.figure["latent_probe"]["membership"]
        assert figure["layers"] == ["layer 0", "layer 1", "layer 2"]
        assert figure["above"]["original"][2][1] > 0, "the original fails, so the probe has power"
        if retrained:
            assert figure["like_retrained"][2] == "no"


@pytest.mark.parametrize(("retrained", "natural"), [(0, {"drift": 1.0}), (1, {}), (2, {"drift": 1.0})])
def test_without_a_trace_nothing_is_found(retrained: int, natural: dict[str, float]) -> None:
    """Forget records that differ by nature are told at every layer of every model: no trace. Of 15 runs
    at the 5 % level more than 3 have a finding once in 180 times."""
    audit = LatentProbe(repeats=1)
    found = sum(bool(audit.run(context(seed, {}, retrained, **natural)).findings) for seed in range(15))
    assert found <= 3


def test_labels_that_only_a_layer_still_holds_are_found() -> None:
    """Every model keeps the label of retained records on three axes; the unlearned one that of forget records too."""
    models = dict(context(4, {}, 2).models)
    for model, several in models.items():
        for own in several:
            for group, t in own.items():
                if group == "retain" or (group == "forget" and model in ("original", "unlearned")):
                    t.layers[np.arange(len(t)), 2, 5 + t.labels] += 3
    plain = context(4, {}, 2)
    result = LatentProbe().run(replace(plain, models=models))
    assert "label probe" in result.findings[0].sentence
    by = {(m.name, m.model): m.value for m in result.measurements}
    # The own axis lies 3 above; read well, a margin of that much is nearly always above one of the noise alone.
    assert by["label probe AUC, layer 2", "unlearned"] > 0.9
    assert by["label probe AUC, layer 2", "retrained"] == pytest.approx(0.5, abs=0.1)
    assert by["label probe AUC, layer 1", "unlearned"] == pytest.approx(0.5, abs=0.1)
    assert result.figure["latent_probe"]["label"]["like_retrained"][2] == "no"


def test_label_margins_by_hand() -> None:
    # States are the class itself on two axes: whoever lies on the own class's axis is 1 to 0 ahead but for the penalty.
    states = np.eye(2)[[0, 0, 1, 1]]
    labels = np.array([0, 0, 1, 1])
    (found,) = label_margins((states, labels), [(states[[0, 0]], np.array([0, 1]))], 3)
    # Standardised, both axes are +-1 and say the same: y = .5 +- 2 w with 4 * 2 w = 4 * .5 - .1 * 4 w: w = .5 / 2.1.
    assert found == pytest.approx([4 * 0.5 / 2.1, -4 * 0.5 / 2.1])


@pytest.mark.parametrize("classes", [5, 6, 9])
def test_classes_without_a_unit_to_fit_are_read_as_if_all_had_a_column(classes: int) -> None:
    """Beside the ridge regression of one-hot targets over all classes, of which only 1, 2 and 4 have units."""
    rng = np.random.default_rng(3)
    states, labels = rng.normal(size=(50, 6)), rng.choice([1, 2, 4], 50)
    read, own = rng.normal(size=(40, 6)), rng.integers(0, classes, 40)
    (found,) = label_margins((states, labels), [(read, own)], classes)
    counts = np.bincount(labels, minlength=classes)
    x, mean, spread = states, states.mean(axis=0), states.std(axis=0)
    model = Ridge(alpha=0.1 * 50).fit(
        (x - mean) / spread, np.eye(classes)[labels], sample_weight=50 / (3 * counts[labels])
    )
    scores = model.predict((read - mean) / spread)
    others = np.where(np.eye(classes)[own] == 1, -np.inf, scores)
    assert found == pytest.approx(scores[np.arange(40), own] - others.max(axis=1), abs=1e-12)


def test_over_forgotten_states_that_no_longer_show_a_natural_difference_are_no_trace() -> None:
    plain = context(3, {}, 2, drift=1.0)
    without = replace(plain, models={**plain.models, "unlearned": [tables(7)]})
    assert not LatentProbe().run(without).findings


def test_a_class_erased_whole_is_not_told_by_its_class() -> None:
    """States hold the class; forget units are all of class 0, evaluation units of three."""
    made = {}
    for place, model in enumerate(("original", "unlearned")):
        made[model] = [tables(20 + place)]
        for group in made[model][0].values():
            group.layers[:, :, 1] += 3 * group.labels[:, None]
    forget = made["unlearned"][0]["forget"]
    for several in made.values():
        only = np.flatnonzero(forget.labels == 0)
        several[0]["forget"] = replace(several[0]["forget"], layer_units=only, layers=several[0]["forget"].layers[only])
    found = LatentProbe().run(AuditContext(models={**made, "retrained": []}, classes=3, resamples=50))
    assert found.measurements[0].n == len(only) + EVALUATION // 3
    unlearned = [m for m in found.measurements if m.model == "unlearned" and m.name.startswith("membership")]
    assert all(m.low < 0.5 < m.high for m in unlearned)
    assert not found.findings


def test_what_cannot_be_probed_is_said() -> None:
    plain = context(1, {})
    few = {model: [dict(t) for t in several] for model, several in plain.models.items()}
    for several in few.values():
        for t in several:
            t["forget"] = replace(t["forget"], layers=t["forget"].layers[:5], layer_units=np.arange(5))
    assert "5 forget and 120" in (LatentProbe().run(replace(plain, models=few)).not_measured or "")
    bare = {**plain.models, "retrained": [{g: replace(t, layers=None) for g, t in tables(5).items()}]}
    assert "of the retrained model" in (LatentProbe().run(replace(plain, models=bare)).not_measured or "")


def test_units_of_a_record_share_a_fold() -> None:
    records = [np.repeat(np.arange(10), 3), np.repeat(np.arange(20), 2)]
    for own, found in zip(records, folds(records, 5, np.random.default_rng(0)), strict=True):
        assert all(len(set(found[own == r])) == 1 for r in np.unique(own))
        assert set(np.bincount(found)) == {len(own) // 5}


def test_records_copied_into_several_units_are_no_evidence() -> None:
    """Three copies of each record in one fold: neither the AUC nor its interval may gain by them."""
    rng = np.random.default_rng(0)
    forget, evaluation = rng.normal(size=(40, 8)), rng.normal(size=(60, 8))
    records = [np.repeat(np.arange(40), 3), np.repeat(np.arange(60), 3)]
    own = folds(records, 5, rng)
    scores = probe_scores(
        [np.repeat(forget, 3, axis=0), np.repeat(evaluation, 3, axis=0)], [np.ones(120), np.ones(180)], [own], 0.01
    )
    tripled = combined_auc([(1.0, *scores)], records=(records[0], records[1]))
    plain = combined_auc([(1.0, scores[0][::3], scores[1][::3])])
    assert tripled == pytest.approx(plain)


def test_auc_and_its_error_by_hand() -> None:
    # 2 beats {1}, 4 beats {1, 3}: AUC (1 + 2) / 4 = 0.75. Shares won .5 and 1 (variance .125); by the others
    # 1 and .5: error^2 = .125 / 2 + .125 / 2.
    value, error = combined_auc([(1.0, np.array([2.0, 4.0]), np.array([1.0, 3.0]))])
    assert (value, error) == pytest.approx((0.75, 0.125**0.5))
    rng = np.random.default_rng(1)
    a, b = rng.integers(0, 9, 50), rng.integers(0, 9, 70)
    assert combined_auc([(1.0, a, b)])[0] == pytest.approx(auc(a, b), abs=1e-12)
    assert combined_auc([(1.0, a, b), (-1.0, a, b)]) == pytest.approx((0.0, 0.0), abs=1e-12)
    # A weight of 2 is the record twice.
    weights = (np.ones(50), np.r_[np.full(10, 2.0), np.ones(60)])
    assert combined_auc([(1.0, a, b)], weights=weights)[0] == pytest.approx(auc(a, np.r_[b[:10], b]), abs=1e-12)


def test_excess_holds_the_luck_of_the_seeds_by_hand() -> None:
    # s^2 of (.4, .6) is .02, times 1 + 1/2 is .03; the error's .01 is added: sqrt .04 = .2.
    found = excess(0.3, 0.1, [0.4, 0.6])
    assert (found.low, found.high) == pytest.approx((0.3 - 1.95996 * 0.2, 0.3 + 1.95996 * 0.2), abs=1e-4)
    assert not found.clear, "1.5 standard errors"
    assert excess(0.3, 0.1).clear
    assert not excess(0.3, 0.15, figures=10).clear, "2 standard errors, and ten figures share the level"
    assert not excess(0.0, 0.0).clear
