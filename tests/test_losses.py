"""The mathematics of each loss: hand-derived numbers first, then what holds for every input."""

from __future__ import annotations

import math
from math import exp, log

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from expunge import losses

SIMILARITY = torch.tensor([[0.5, 0.0, 0.1, -0.2]], dtype=torch.float64)
SAME = torch.tensor([[True, True, False, False]])
OTHER = ~SAME


def test_reversed_focl_by_hand() -> None:
    # tau = 0.5: same-class terms e^1 + e^0 = 3.718282; other-class terms e^0.2 = 1.221403 and e^-0.4 = 0.670320.
    # L = -1/2 [ log(1.221403 / (1.221403 + 3.718282)) + log(0.670320 / (0.670320 + 3.718282)) ]
    #   = 1/2 [ 1.397303 + 1.879009 ] = 1.638156
    values, counts = losses.reversed_focl(SIMILARITY, SAME, OTHER, tau=0.5)
    assert values.item() == pytest.approx(1.638156, abs=1e-5)
    assert counts.tolist() == [True]


def test_reversed_focl_with_mixed_partners_by_hand() -> None:
    # One mixed partner of similarity 0.8 adds e^1.6 = 4.953032 to both denominators: 3.718282 + 4.953032 = 8.671314.
    # L = 1/2 [ log((1.221403 + 8.671314) / 1.221403) + log((0.670320 + 8.671314) / 0.670320) ]
    #   = 1/2 [ 2.091787 + 2.634480 ] = 2.363134
    mixed = torch.tensor([[0.8]], dtype=torch.float64)
    values, _ = losses.reversed_focl(SIMILARITY, SAME, OTHER, tau=0.5, mixed=mixed)
    assert values.item() == pytest.approx(2.363134, abs=1e-5)


def test_mixed_partners_by_hand() -> None:
    # Anchor (1, 0); same-class partners (0, 1) and (-1, 0): the hardest is (0, 1). One mixed partner, alpha 0.4:
    # a = 0.4 * 0.5 = 0.2; o = (0.2, 0.8) / sqrt(0.68); its cosine with the anchor is 0.2 / sqrt(0.68) = 0.242536.
    anchors = torch.tensor([[1.0, 0.0]], dtype=torch.float64)
    partners = torch.tensor([[0.0, 1.0], [-1.0, 0.0]], dtype=torch.float64)
    similarity = losses.cosine(anchors, partners)
    mixed = losses.mixed_similarities(anchors, partners, similarity, torch.tensor([[True, True]]), 1, 0.4)
    assert mixed.tolist() == [[pytest.approx(0.242536, abs=1e-6)]]


def test_contrastive_unlearning_by_hand() -> None:
    # Sample form, tau = 0.5: log(e^1 + e^0) - mean(0.2, -0.4) = 1.313262 + 0.1 = 1.413262.
    values, _ = losses.contrastive_unlearning(SIMILARITY, SAME, OTHER, tau=0.5)
    assert values.item() == pytest.approx(1.413262, abs=1e-6)
    # Class form: the denominator is |N| = 2: log 2 + 0.1 = 0.793147.
    values, _ = losses.contrastive_unlearning(SIMILARITY, SAME, OTHER, tau=0.5, class_form=True)
    assert values.item() == pytest.approx(log(2) + 0.1, abs=1e-6)


def test_masked_logsumexp_by_hand() -> None:
    values = torch.tensor([[1.0, 0.0, 9.0], [1.0, 2.0, 3.0]], dtype=torch.float64, requires_grad=True)
    mask = torch.tensor([[True, True, False], [False, False, False]])
    result = losses.masked_logsumexp(values, mask)
    assert result[0].item() == pytest.approx(log(exp(1) + 1))
    assert result[1].item() == float("-inf")
    result[0].backward()
    # d/dx_i log sum exp = softmax_i = 0.731059, 0.268941; masked entries and the empty row exactly 0.
    assert values.grad is not None
    assert values.grad.tolist() == [
        [pytest.approx(0.731059, abs=1e-6), pytest.approx(0.268941, abs=1e-6), 0],
        [0, 0, 0],
    ]


def test_anchor_without_other_class_is_dropped_and_without_same_class_is_zero() -> None:
    similarity = torch.tensor([[0.5, 0.4], [0.3, 0.2]], dtype=torch.float64, requires_grad=True)
    same = torch.tensor([[True, True], [False, False]])
    values, counts = losses.reversed_focl(similarity, same, ~same, tau=0.1)
    assert values.tolist() == [0.0, 0.0]
    assert counts.tolist() == [False, True]
    losses.mean_over(values, counts).backward()
    assert similarity.grad is not None
    assert torch.equal(similarity.grad, torch.zeros_like(similarity))


@st.composite
def batches(draw: st.DrawFn) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor, float]:
    anchors, partners = draw(st.integers(1, 5)), draw(st.integers(1, 8))
    seed = draw(st.integers(0, 10_000))
    generator = torch.Generator().manual_seed(seed)
    similarity = torch.rand(anchors, partners, generator=generator, dtype=torch.float64) * 2 - 1
    classes = draw(st.integers(1, 4))
    own = torch.randint(classes, (anchors, 1), generator=generator)
    theirs = torch.randint(classes, (1, partners), generator=generator)
    return similarity, own == theirs, own != theirs, draw(st.sampled_from([0.05, 0.1, 0.7, 5.0]))


def _all_losses(similarity: torch.Tensor, same: torch.Tensor, other: torch.Tensor, tau: float) -> list[torch.Tensor]:
    return [
        losses.reversed_focl(similarity, same, other, tau)[0],
        losses.contrastive_unlearning(similarity, same, other, tau)[0],
        losses.contrastive_unlearning(similarity, same, other, tau, class_form=True)[0],
    ]


@given(batches())
def test_every_loss_and_gradient_is_finite_for_any_label_mix(batch) -> None:
    similarity, same, other, tau = batch
    for form in range(3):
        leaf = similarity.clone().requires_grad_()
        values = _all_losses(leaf, same, other, tau)[form]
        values.sum().backward()
        assert torch.isfinite(values).all()
        assert leaf.grad is not None
        assert torch.isfinite(leaf.grad).all()


@given(batches())
def test_other_classes_are_pulled_and_the_same_class_is_pushed(batch) -> None:
    """The gradient by similarity: never positive for other classes, never negative for the same class."""
    similarity, same, other, tau = batch
    leaf = similarity.clone().requires_grad_()
    losses.reversed_focl(leaf, same, other, tau)[0].sum().backward()
    assert leaf.grad is not None
    assert (leaf.grad[other] <= 0).all()
    assert (leaf.grad[same] >= 0).all()
    both = (same.any(1) & other.any(1)).unsqueeze(1)
    assert (leaf.grad[other & both] < 0).all()
    assert (leaf.grad[same & both] > 0).all()


@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_partners_does_not_matter(batch, random) -> None:
    similarity, same, other, tau = batch
    order = list(range(similarity.shape[1]))
    random.shuffle(order)
    for mine, theirs in zip(
        _all_losses(similarity, same, other, tau),
        _all_losses(similarity[:, order], same[:, order], other[:, order], tau),
        strict=True,
    ):
        torch.testing.assert_close(mine, theirs, rtol=1e-12, atol=1e-12)


@given(batches(), st.integers(1, 4))
def test_masked_partners_change_nothing(batch, extra) -> None:
    """Partners in neither mask (padding) leave the loss as it is and get no gradient."""
    similarity, same, other, tau = batch
    anchors = similarity.shape[0]
    padded = torch.cat([similarity, torch.full((anchors, extra), 0.9, dtype=torch.float64)], dim=1).requires_grad_()
    nothing = torch.zeros(anchors, extra, dtype=torch.bool)
    for form, mine in enumerate(_all_losses(similarity, same, other, tau)):
        padded.grad = None
        theirs = _all_losses(padded, torch.cat([same, nothing], 1), torch.cat([other, nothing], 1), tau)[form]
        torch.testing.assert_close(mine, theirs.detach(), rtol=1e-12, atol=1e-12)
        theirs.sum().backward()
        assert padded.grad is not None
        assert (padded.grad[:, similarity.shape[1] :] == 0).all()


@settings(max_examples=50)
@given(batches(), st.integers(1, 6))
def test_mixed_partners_are_at_least_as_hard_as_what_they_are_mixed_from(batch, count) -> None:
    """Mixing an anchor into a partner brings it nearer to the anchor, and adds to the push."""
    _, same, other, tau = batch
    generator = torch.Generator().manual_seed(count)
    anchors = torch.randn(same.shape[0], 6, generator=generator, dtype=torch.float64)
    partners = torch.randn(same.shape[1], 6, generator=generator, dtype=torch.float64)
    similarity = losses.cosine(anchors, partners)
    mixed = losses.mixed_similarities(anchors, partners, similarity, same, count, 0.4)
    hardest = similarity.masked_fill(~same, float("-inf")).topk(mixed.shape[1], dim=1).values
    real = torch.isfinite(hardest)
    assert (mixed[real] >= hardest[real] - 1e-9).all()
    assert torch.isinf(mixed[~real]).all()
    plain, _ = losses.reversed_focl(similarity, same, other, tau)
    harder, _ = losses.reversed_focl(similarity, same, other, tau, mixed)
    assert (harder >= plain - 1e-12).all()


def test_soft_contrastive_by_hand() -> None:
    """tau .5; class 0: log of the mean of e^(.6/.5) and e^(.2/.5); class 1: .1/.5. q = (.7, .3)."""
    similarity = torch.tensor([[0.6, 0.1, 0.2]])
    classes = torch.tensor([0, 1, 0])
    wanted = torch.tensor([[0.7, 0.3, 0.7]]).log()
    first, second = math.log((math.exp(1.2) + math.exp(0.4)) / 2), 0.2
    both = math.log(math.exp(first) + math.exp(second))
    values, counts = losses.soft_contrastive(similarity, wanted, classes, tau=0.5)
    assert values.item() == pytest.approx(-(0.7 * (first - both) + 0.3 * (second - both)), abs=1e-6)
    assert counts.tolist() == [True]


def test_soft_contrastive_comes_to_rest_where_classes_stand_as_wanted() -> None:
    """Its gradient is the class softmax minus q: zero where they agree, and it pushes no further."""
    wanted = torch.tensor([[0.7, 0.3]])
    similarity = wanted.log().mul(0.5).requires_grad_()
    losses.soft_contrastive(similarity, wanted.log(), torch.tensor([0, 1]), tau=0.5)[0].sum().backward()
    assert similarity.grad is not None
    assert similarity.grad.abs().max() < 1e-6


@pytest.mark.parametrize("classes", [[], [1, 1]])
def test_soft_contrastive_without_two_classes_counts_nothing(classes: list[int]) -> None:
    partners = len(classes)
    values, counts = losses.soft_contrastive(
        torch.zeros(3, partners), torch.zeros(3, partners), torch.tensor(classes, dtype=torch.long), tau=0.5
    )
    assert not counts.any()
    assert torch.isfinite(values).all()
