"""Planted failures on made-up scores: each is found by the right audit, on the right side; a good model by none."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from expunge import testing
from expunge.audits.agreement import Agreement
from expunge.audits.base import AuditContext, Tables
from expunge.audits.likelihood import Likelihood
from expunge.audits.membership import Membership
from expunge.audits.retained_side import RetainedSide
from expunge.audits.rmia import RMIA
from expunge.scoring import ScoreTable

SIZES = {"forget": 200, "retain": 1000, "calibration": 500, "evaluation": 600}
AUDITS = [Membership(), RMIA(), Agreement(), Likelihood(), RetainedSide()]
_HARD = {group: np.random.default_rng([9, size]).normal(0, 1, size * 3) for group, size in SIZES.items()}


def model(seed: int, units: int = 1, **raised: float) -> Tables:
    """Each unit has a hardness of its own and a margin of 1.5 less it, raised by 2.5 for groups trained on."""
    tables = {}
    for place, (group, size) in enumerate(SIZES.items()):
        rng = np.random.default_rng([seed, place])
        count = size * units
        above = raised.get(group, 2.5 if group == "retain" else 0.0)
        margins = 1.5 - 1.5 * _HARD[group][:count] + above + rng.normal(0, 0.6, count)
        labels = np.random.default_rng(place).integers(3, size=count)
        tables[group] = ScoreTable(
            labels=labels, predictions=np.where(margins > 0, labels, (labels + 1) % 3), margins=margins,
            losses=np.logaddexp(0, -margins), hidden=np.zeros((count, 0), np.float32), offsets=np.arange(size + 1) * units,
            several_units=units > 1,
        )  # fmt: skip
    return tables


def context(unlearned: Tables, retrained: int, units: int = 1) -> AuditContext:
    return AuditContext(
        models={
            "original": [model(1, units, forget=2.5)],
            "unlearned": [unlearned],
            "retrained": [model(100 + seed, units) for seed in range(retrained)],
        },
        classes=3,
        resamples=100,
    )


def kinds(found: AuditContext) -> dict[str, set[str]]:
    return {type(audit).__name__: {f.kind for f in audit.run(found).findings} for audit in AUDITS}


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("retrained", [0, 1, 3])
def test_the_original_passed_off_as_unlearned_is_remembered(retrained: int, units: int) -> None:
    found = kinds(context(model(1, units, forget=2.5), retrained, units))
    for name in ("Membership", "Agreement", "Likelihood", *(["RMIA"] if retrained else [])):
        assert found[name] == {"remembered"}, name
    assert found["RetainedSide"] == set()


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("retrained", [0, 1, 3])
def test_over_forgetting_is_found_as_loudly(retrained: int, units: int) -> None:
    found = kinds(context(model(2, units, forget=-2.5), retrained, units))
    for name in ("Membership", "Agreement", "Likelihood", *(["RMIA"] if retrained else [])):
        assert found[name] == {"over-forgotten"}, name


@pytest.mark.parametrize("units", [1, 3])
@pytest.mark.parametrize("retrained", [0, 1, 3])
@pytest.mark.parametrize("seed", [2, 3, 4])
def test_a_model_like_the_retrained_is_let_go(retrained: int, units: int, seed: int) -> None:
    assert set().union(*kinds(context(model(seed, units), retrained, units)).values()) == set()


def test_harder_records_are_no_finding_where_retrained_models_say_so() -> None:
    """Forget records that are by nature easier than held-out ones: held-out alone misleads, retrained models do not."""
    easier = {"original": [model(1, forget=3.5)], "unlearned": [model(2, forget=1.0)]}
    retrained = [model(100 + seed, forget=1.0) for seed in range(3)]
    alone = AuditContext(models={**easier, "retrained": []}, classes=3, resamples=100)
    beside = AuditContext(models={**easier, "retrained": retrained}, classes=3, resamples=100)
    assert kinds(alone)["Membership"] == {"remembered"}
    assert set().union(*kinds(beside).values()) == set()


def test_damage_to_retained_records_is_harm() -> None:
    hurt = model(2)
    worse = hurt["retain"].margins.copy()
    worse[:200] -= 6
    labels = hurt["retain"].labels
    hurt["retain"] = ScoreTable(
        labels, np.where(worse > 0, labels, (labels + 1) % 3), worse, np.logaddexp(0, -worse), hurt["retain"].hidden,
        hurt["retain"].offsets,
    )  # fmt: skip
    assert kinds(context(hurt, 0))["RetainedSide"] == {"harm"}
    assert kinds(context(model(2, retain=4.5), 3))["RetainedSide"] == {"harm"}, "easier to recognise than before"


def test_the_table_of_records_says_which_are_told_apart_and_which_were_memorised() -> None:
    unlearned = model(2)
    left = unlearned["forget"].margins.copy()
    left[:10] += 5  # ten records are still there
    labels = unlearned["forget"].labels
    unlearned["forget"] = ScoreTable(
        labels, np.where(left > 0, labels, (labels + 1) % 3), left, np.logaddexp(0, -left), unlearned["forget"].hidden,
        unlearned["forget"].offsets,
    )  # fmt: skip
    columns = Likelihood().run(context(unlearned, 3)).per_record
    told = np.array(columns["told apart"])
    assert (told[:10] == "remembered").all()
    assert np.mean(told[10:] == "no") > 0.85
    assert np.mean(np.array(columns["memorised by the original"]) == "yes") > 0.9
    ratio = np.array(columns["log ratio, retrained"])
    assert ratio[:10].min() > 0
    assert np.median(ratio[10:]) < -2
    assert (np.array(columns["log ratio, retrained, low"]) <= ratio).all()
    plain = Likelihood().run(context(unlearned, 0)).per_record
    assert "log ratio, retrained" not in plain
    assert np.corrcoef(plain["log ratio, population"], left)[0, 1] > 0.8


def test_agreement_record_by_record() -> None:
    found = Agreement().run(context(model(2), 5)).measurements
    by = {(m.name, m.model): m for m in found}
    ratio = by["margin difference over its noise floor", "unlearned"]
    assert ratio.low < 1 < ratio.high, "as good as retraining again"
    assert ratio.compared == "retrain-compared"
    assert by["margin difference over its noise floor", "original"].low > 2
    # Two normals of sd .6: |N(0, .36 + .36/4)| has mean .6 sqrt(1.25) sqrt(2 / pi) = .535.
    assert by["margin difference to retrained, per record", "retrained"].value == pytest.approx(0.535, abs=0.03)
    shift = by["mean standardised shift", "original"]
    assert shift.value == pytest.approx(2.5 / 0.6, abs=0.3)
    churn = by["prediction churn", "unlearned"]
    assert churn.noise_floor == pytest.approx(by["prediction churn", "retrained"].value)
    assert churn.low < churn.noise_floor < churn.high


def test_klom_and_epsilon_come_with_32_models_a_side() -> None:
    many: Mapping[str, list[Tables]] = {
        "original": [model(1, forget=2.5)],
        "unlearned": [model(200 + seed) for seed in range(32)],
        "retrained": [model(300 + seed) for seed in range(32)],
    }
    found = AuditContext(models=many, classes=3, resamples=20)
    names = {m.name for audit in (Agreement(), Membership()) for m in audit.run(found).measurements}
    assert {"mean KLoM", "mean epsilon (NeurIPS 2023 challenge)"} <= names
    few = context(model(2), 3)
    assert "3 retrained" in Membership().run(few).left_out["epsilon"]
    assert "3 retrained" in Agreement().run(few).left_out["KLoM"]


def test_what_cannot_be_measured_is_said() -> None:
    plain = context(model(2), 0)
    assert "reference models" in (RMIA().run(plain).not_measured or "")
    assert "1000 evaluation records" in Membership().run(plain).left_out["TPR at 0.1 % FPR"]
    assert "TPR at 1 % FPR" in {m.name for m in Membership().run(plain).measurements}
    assert "no retrained model" in Agreement().run(plain).left_out["per record"]
    assert {m.compared for audit in AUDITS for m in audit.run(plain).measurements} == {"population-only"}


@pytest.mark.parametrize("audit", AUDITS, ids=lambda audit: type(audit).__name__)
def test_the_audits_keep_the_rules(audit) -> None:
    testing.check_audit(audit)
