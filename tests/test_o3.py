"""O3's parts, worked out by hand: overlap of adapters, contrastive entropy, the weight's formula, distances, boundary."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf
from sklearn.svm import OneClassSVM

from expunge.errors import RunError
from expunge.o3.adapters import Gate, add_adapter, plain_weights, set_active, weights_of
from expunge.o3.detector import Detector, parted, too_few
from expunge.o3.likeness import Boundary, Distances
from expunge.o3.losses import contrastive_entropy, overlap
from expunge.o3.weight import Mixture
from expunge.testing import tiny_causal, tiny_classifier


def test_overlap_is_the_squared_norm_of_the_products() -> None:
    """Two layers, one earlier request.

    P = (1, 2)^T as one column, C = (3, 1)^T: P^T C = 5, squared 25. Second layer: P = I, C = [[1, 0], [2, 1]]: P^T C = C,
    squared norm 1 + 4 + 1 = 6. Together 31; a second earlier request of the same adds as much again.
    """
    current = [torch.tensor([[3.0], [1.0]]), torch.tensor([[1.0, 0.0], [2.0, 1.0]])]
    earlier = [torch.tensor([[1.0], [2.0]]), torch.eye(2)]
    assert overlap(current, [earlier]) == 31
    assert overlap(current, [earlier, earlier]) == 62
    assert overlap(current, []) == 0
    across = [torch.tensor([[-2.0], [1.0]]), torch.zeros(2, 2)]
    assert overlap(across, [earlier]) == 0, "at right angles: -2 + 2 = 0"


def test_overlap_takes_ranks_that_differ() -> None:
    """P^T C is (2, 1): P = I gives C itself, 9 + 16."""
    assert overlap([torch.tensor([[3.0], [4.0]])], [[torch.eye(2)]]) == 25


def test_contrastive_entropy_by_hand() -> None:
    """Two records, one layer.

    View 1 = (0, 0): products 0 and 0, so (1/2, 1/2) and entropy log 2. View 2 = (log 3, 0) with keys (1, 0) and (0, 1):
    products log 3 and 0, so (3/4, 1/4): entropy -(3/4 log 3/4 + 1/4 log 1/4) = log 4 - 3/4 log 3.
    """
    views = torch.tensor([[[0.0, 0.0]], [[math.log(3), 0.0]]])
    keys = torch.tensor([[[1.0, 0.0]], [[0.0, 1.0]]])
    wanted = math.log(2) + math.log(4) - 0.75 * math.log(3)
    assert float(contrastive_entropy(views, keys)) == pytest.approx(wanted, rel=1e-6)
    both = contrastive_entropy(torch.cat([views, views], dim=1), torch.cat([keys, keys], dim=1))
    assert float(both) == pytest.approx(2 * wanted, rel=1e-6), "a sum over layers"


def test_contrastive_entropy_stays_finite_where_one_record_takes_all() -> None:
    views = torch.tensor([[[1e4]], [[-1e4]]], requires_grad=True)
    loss = contrastive_entropy(views, torch.tensor([[[1.0]], [[-1.0]]]))
    loss.backward()
    assert float(loss.detach()) == 0
    assert torch.isfinite(views.grad).all()


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def test_the_weight_at_points_worked_out_by_hand() -> None:
    """Both means 0, spread 1, zeta 10: F is the normal distribution, x0 = 0.

    At 0: F = F' = 1/2, so sigmoid(10 * 1 - 2) = sigmoid(8). At +-0.6745 (the quartiles): F = 3/4, F' = 1/4:
    sigmoid(10 * (1 - 1/2) - 2) = sigmoid(3). Far off: F = 1, F' = 0: sigmoid(-2). Ours puts the first at 1 and the last at 0.
    """
    quartile = 0.6744897501960817
    places = np.array([0, quartile, -quartile, 40, -40])
    wanted = np.array([sigmoid(8), sigmoid(3), sigmoid(3), sigmoid(-2), sigmoid(-2)])
    np.testing.assert_allclose(Mixture(0.0, 0.0, 1.0, 10.0, "paper").weight(places), wanted, rtol=1e-9)
    middle = (sigmoid(3) - sigmoid(-2)) / (sigmoid(8) - sigmoid(-2))
    np.testing.assert_allclose(Mixture(0.0, 0.0, 1.0, 10.0).weight(places), [1, middle, middle, 0, 0], atol=1e-12)


def test_the_weight_between_two_means_far_apart() -> None:
    """Means 0 and 20, spread 1: x0 = 10. At 0 half of one half lies below: F = 1/4, F' = 3/4, sigmoid(3); at x0 sigmoid(8)."""
    two = Mixture(20.0, 0.0, 1.0, 10.0, "paper")
    np.testing.assert_allclose(two.weight(np.array([0.0, 20.0, 10.0])), [sigmoid(3), sigmoid(3), sigmoid(8)], rtol=1e-9)


@pytest.mark.parametrize(("least", "lowest"), [("zero", 0.0), ("paper", 1 / (1 + math.exp(2)))])
def test_the_weight_is_symmetric_within_bounds_and_falls_from_the_centre(least: Any, lowest: float) -> None:
    mixture = Mixture(1.5, -0.5, 0.7, 10.0, least)
    away = np.linspace(0, 6, 200)
    right, left = mixture.weight(mixture.centre + away), mixture.weight(mixture.centre - away)
    np.testing.assert_allclose(right, left, rtol=1e-9)
    assert (np.diff(right) <= 1e-12).all()
    assert right[0] > 0.999
    assert (right >= lowest).all()
    assert (right <= 1).all()
    assert right[-1] == pytest.approx(lowest, abs=1e-6)


def test_mahalanobis_is_that_of_scikit_learn() -> None:
    """With fewer records than numbers, where the plain covariance has no inverse, and with more."""
    rng = np.random.default_rng(0)
    for records, size in ((9, 20), (60, 5)):
        states, others = rng.normal(size=(records, 2, size)) * 3 + 1, rng.normal(size=(7, 2, size)) * 4
        found = Distances.fit(states, 1000.0).mahalanobis(others)
        for layer in range(2):
            wanted = LedoitWolf().fit(states[:, layer]).mahalanobis(others[:, layer])
            np.testing.assert_allclose(found[:, layer], wanted, rtol=1e-8)


def test_the_distance_has_the_papers_sign() -> None:
    """d_Maha + gamma * d_Cos with d_Cos = -max cos: a known record's second term is -gamma, and both grow farther off."""
    states = np.random.default_rng(1).normal(size=(12, 1, 4)) * 0.1 + np.array([5.0, 0, 0, 0])
    fitted = Distances.fit(states, 1000.0)
    known = fitted.of_states(states)
    np.testing.assert_allclose(known - fitted.mahalanobis(states), -1000, rtol=1e-9)
    opposite = -states[:1]
    apart = fitted.of_states(opposite)
    cosine = float(np.max(states[:, 0] @ opposite[0, 0] / np.linalg.norm(states[:, 0], axis=1))) / np.linalg.norm(
        opposite
    )
    np.testing.assert_allclose(apart - fitted.mahalanobis(opposite), -1000 * cosine, rtol=1e-9)
    assert apart > known.max()


def test_records_all_alike_are_refused() -> None:
    with pytest.raises(RunError, match="one state; are they one text"):
        Distances.fit(np.ones((10, 2, 3)), 1000.0)


def test_the_boundary_is_the_svm_and_falls_with_every_distance() -> None:
    rng = np.random.default_rng(2)
    used, rest = rng.normal(size=(40, 3)) * [5, 1, 2] - 900, rng.normal(size=(10, 3)) * [5, 1, 2] - 890
    found = Boundary.fit(used, rest, 0.1)
    every = np.concatenate([used, rest])
    turned = (every.max(axis=0) - every) / every.std(axis=0)
    svm = OneClassSVM(nu=0.1, kernel="linear").fit(turned[:40])
    np.testing.assert_allclose(found.score(every), svm.decision_function(turned), rtol=1e-9, atol=1e-12)
    here = np.array([[-900.0, -900.0, -900.0]])
    for layer in range(3):
        further = here.copy()
        further[0, layer] += 50
        assert found.score(further)[0] < found.score(here)[0]


@pytest.mark.parametrize("shift", [-900.0, 0.0, 4000.0])
def test_where_the_distances_lie_does_not_matter(shift: float) -> None:
    """A wide encoder's Mahalanobis term may outweigh the cosine's: in the request's own distances only places change."""
    rng = np.random.default_rng(3)
    used, rest, far = (rng.normal(size=(n, 2)) + at for n, at in ((40, 0.0), (10, 1.0), (5, 30.0)))
    one, other = Boundary.fit(used, rest, 0.1), Boundary.fit(used + shift, rest + shift, 0.1)
    np.testing.assert_allclose(one.score(far), other.score(far + shift), rtol=1e-6)
    assert other.score(far + shift).max() < other.score(rest + shift).min()


@pytest.mark.parametrize("layers", ["last", "all"])
@pytest.mark.parametrize(("least", "lowest"), [("zero", 0.0), ("paper", 1 / (1 + math.exp(2)))])
def test_a_detector_knows_its_records_and_survives_as_arrays(layers: Any, least: Any, lowest: float) -> None:
    rng = np.random.default_rng(4)
    used, rest = rng.normal(size=(40, 2, 16)) + 3, rng.normal(size=(10, 2, 16)) + 3
    others = rng.normal(size=(50, 2, 16)) - 3
    made = Detector.fit(used, rest, gamma=1000.0, nu=0.1, zeta=10.0, layers=layers, least=least)
    assert made.weights(used).mean() > 0.8
    np.testing.assert_allclose(made.weights(others), lowest, atol=1e-4)
    again = Detector.of(made.arrays())
    np.testing.assert_array_equal(again.weights(others), made.weights(others))
    assert again.mixture == made.mixture
    assert {a.dtype for a in made.arrays().values()} == {np.dtype("float64")}


def test_a_detector_knows_the_records_it_was_not_fitted_on_too() -> None:
    """A record apart from all others: before distances are taken from it too, its weight is next to 0."""
    rng = np.random.default_rng(6)
    used, rest = rng.normal(size=(32, 1, 12)) + 4, rng.normal(size=(8, 1, 12)) + 4
    rest[0] += 3 * rng.normal(size=(1, 12))
    made = Detector.fit(used, rest, gamma=1000.0, nu=0.1, zeta=10.0, layers="last", least="zero")
    apart = made.mixture.weight(made.boundary.score(Distances.fit(used, 1000.0).of_states(rest[:1])))
    assert apart[0] < 0.01
    assert made.weights(np.concatenate([used, rest])).min() > 0.8


def test_a_detector_of_the_last_layer_does_not_hang_on_the_others() -> None:
    rng = np.random.default_rng(5)
    used, rest, asked = (rng.normal(size=(n, 3, 8)) for n in (30, 8, 20))
    settings: dict[str, Any] = {"gamma": 1000.0, "nu": 0.1, "zeta": 10.0, "least": "zero"}
    last = Detector.fit(used, rest, layers="last", **settings)
    elsewhere = asked.copy()
    elsewhere[:, :2] += 100
    np.testing.assert_array_equal(last.weights(asked), last.weights(elsewhere))
    every = Detector.fit(used, rest, layers="all", **settings)
    assert every.weights(asked).max() > 0.5
    np.testing.assert_allclose(every.weights(elsewhere), 0, atol=1e-9)


def test_a_request_is_parted_by_its_ids_and_not_by_their_order() -> None:
    ids = [f"r{i}" for i in range(25)]
    used, rest = parted(ids, 3)
    assert (len(used), len(rest)) == (20, 5)
    assert sorted([*used, *rest]) == list(range(25))
    turned = ids[::-1]
    assert {turned[i] for i in parted(turned, 3)[0]} == {ids[i] for i in used}
    assert parted(ids, 4) != (used, rest)


def test_how_many_records_a_detector_takes() -> None:
    assert not too_few(10)
    (found,) = too_few(9)
    assert "the request has 9 records, too few to fit a detector" in str(found)
    assert "Give 10 or more" in str(found)
    assert "1 record," in str(too_few(1)[0])


@pytest.mark.parametrize("made", [tiny_classifier, lambda: tiny_classifier("gpt2"), tiny_causal])
def test_adapters_by_name_load_as_far_as_the_gate_says(made) -> None:
    """h' = W h + w A B h: w = 0 is the original to the bit, w = 1 the whole, and rows of a batch have their own."""
    model = made().eval()
    ids = torch.arange(5, 17).reshape(3, 4)
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    with torch.inference_mode():
        plain = model(input_ids=ids).logits
        gate = Gate()
        for number in (1, 2):
            until_now = model(input_ids=ids).logits
            add_adapter(model, f"request-{number}", 2, number, gate)
            assert torch.equal(model(input_ids=ids).logits, until_now), "a new one changes nothing"
            for name, parameter in weights_of(model, f"request-{number}").items():
                if ".lora_B." in name:
                    parameter.normal_(generator=torch.Generator().manual_seed(number))
            plain_again = plain_weights(model)
            assert plain_again.keys() == before.keys()
            assert all(torch.equal(plain_again[name], before[name]) for name in before)
            gate.weight = torch.zeros(3)
            assert torch.equal(model(input_ids=ids).logits, plain)
            gate.weight = None
        whole = model(input_ids=ids).logits
        gate.weight = torch.ones(3)
        torch.testing.assert_close(model(input_ids=ids).logits, whole)
        weights = torch.tensor([0.0, 0.3, 1.0])
        gate.weight = weights
        mixed = model(input_ids=ids).logits
        torch.testing.assert_close(mixed[0], plain[0])
        torch.testing.assert_close(mixed[2], whole[2])
        for row in range(3):
            gate.weight = weights[row : row + 1]
            torch.testing.assert_close(model(input_ids=ids[row : row + 1]).logits[0], mixed[row])
        set_active(model, [])
        assert torch.equal(model(input_ids=ids).logits, plain)


def test_a_gated_layer_is_the_formula() -> None:
    """One layer by hand: W h + w * 2 * B A h, with peft's A down, B up, and a scale of 2."""
    model = tiny_classifier().eval()
    gate = Gate()
    add_adapter(model, "request-1", 2, 0, gate)
    layer = model.bert.encoder.layer[0].attention.self.query
    with torch.no_grad():
        layer.lora_B["request-1"].weight.normal_()
        h = torch.randn(2, 3, 32)
        gate.weight = torch.tensor([0.25, 0.5])
        up, down = layer.lora_B["request-1"].weight, layer.lora_A["request-1"].weight
        wanted = layer.base_layer(h) + gate.weight[:, None, None] * 2 * (h @ down.T @ up.T)
        torch.testing.assert_close(layer(h), wanted)


def test_no_adapter_on_heads_and_poolers() -> None:
    from expunge.o3.adapters import adapted

    names = adapted(tiny_classifier())
    assert "bert.encoder.layer.0.attention.self.query" in names
    assert len(names) == 12, "six linear layers in each of two"
    assert not [name for name in names if "pooler" in name or "classifier" in name]
    assert "lm_head" not in adapted(tiny_causal())
