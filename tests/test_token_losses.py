"""The mathematics of losses of answer tokens: hand-derived numbers, the limits papers claim, what holds for any input."""

from __future__ import annotations

from math import log

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from expunge import PDU, token_losses

# Two records, neither sorted nor contiguous. Record 7: tokens of probability 1/2 and 1/4, so 1/8 in all, 1/16 under the
# original model: ratio 2. Record 3: one token of 1/4, and 3/4 under the original: ratio 1/3.
INDEX = torch.tensor([7, 3, 7])
REFERENCE = torch.tensor([0.25, 0.75, 0.25], dtype=torch.float64).log()


def logp() -> Tensor:
    return torch.tensor([0.5, 0.25, 0.25], dtype=torch.float64).log().requires_grad_()


def gradient(loss: Tensor, by: Tensor) -> Tensor:
    return torch.autograd.grad(loss.sum(), by)[0]


# Records


def test_by_record_sums_in_ascending_order_of_index() -> None:
    sums, counts = token_losses.by_record(torch.tensor([1.0, 10.0, 2.0, 5.0]), torch.tensor([7, -3, 7, 0]))
    assert sums.tolist() == [10, 5, 3]
    assert counts.tolist() == [1, 1, 2]


# NPO


@pytest.mark.parametrize(
    ("beta", "expected"),
    [
        # -log sigmoid(-beta s) = log(1 + ratio^beta). beta 1: 2 * 1/2 [log(1 + 2) + log(1 + 1/3)] = log 4.
        (1.0, log(4)),
        # beta 2: 1 * 1/2 [log(1 + 4) + log(1 + 1/9)] = 1/2 log(50/9).
        (2.0, log(50 / 9) / 2),
    ],
)
def test_npo_by_hand(beta: float, expected: float) -> None:
    assert token_losses.npo(logp(), REFERENCE, INDEX, beta).item() == pytest.approx(expected)


def test_npo_gradient_by_hand() -> None:
    # w = 2 sigmoid(s) = 2 ratio / (1 + ratio): 4/3 for record 7 and 1/2 for record 3; over 2 records, 2/3 and 1/4.
    leaf = logp()
    found = gradient(token_losses.npo(leaf, REFERENCE, INDEX, 1.0), leaf)
    assert found.tolist() == pytest.approx([2 / 3, 1 / 4, 2 / 3])


def test_npo_is_gradient_ascent_as_beta_goes_to_zero() -> None:
    """Proposition 1: L - (2/beta) log 2 goes to the mean of s_r, whose gradient is that of ascent."""
    leaf, beta = logp(), 1e-6
    loss = token_losses.npo(leaf, REFERENCE, INDEX, beta)
    # Mean over records of s: 1/2 [log 2 + log 1/3] = 1/2 log(2/3); slope 1/2 for each token, of two records.
    assert loss.item() - 2 / beta * log(2) == pytest.approx(log(2 / 3) / 2, abs=1e-6)
    assert gradient(loss, leaf).tolist() == pytest.approx([0.5] * 3, rel=1e-5)


@pytest.mark.parametrize("beta", [0.05, 1.0, 10.0])
def test_npo_at_the_original_model_ascends_at_full_weight_whatever_beta(beta: float) -> None:
    leaf = REFERENCE.clone().requires_grad_()
    assert gradient(token_losses.npo(leaf, REFERENCE, INDEX, beta), leaf).tolist() == pytest.approx([0.5] * 3)


def test_npo_leaves_alone_what_is_already_forgotten() -> None:
    # Record 7 is 60 nats less likely than it was: w = 2 sigmoid(-60) = 2 e^-60; record 3 is pushed as before.
    leaf = (logp().detach() - torch.tensor([60.0, 0.0, 0.0])).requires_grad_()
    found = gradient(token_losses.npo(leaf, REFERENCE, INDEX, 1.0), leaf)
    assert (found[[0, 2]] < 1e-25).all()
    assert found[1].item() == pytest.approx(1 / 4)


# SimNPO


def test_simnpo_by_hand() -> None:
    # Mean losses: record 7: log(8) / 2 = 1.5 log 2; record 3: log 4 = 2 log 2. beta 2, delta log 2:
    # beta (loss - delta) = log 2 and log 4; -log sigmoid(log a) = log(1 + 1/a); 1 * 1/2 [log(3/2) + log(5/4)].
    loss = token_losses.simnpo(logp(), INDEX, beta=2.0, delta=log(2))
    assert loss.item() == pytest.approx(log(15 / 8) / 2)


def test_simnpo_gradient_by_hand() -> None:
    # 2 sigmoid(-x) / |y| / R with x = log 2 and log 4: 2 * 1/3 / 2 / 2 = 1/6 for record 7, 2 * 1/5 / 2 = 1/5 for record 3.
    leaf = logp()
    found = gradient(token_losses.simnpo(leaf, INDEX, beta=2.0, delta=log(2)), leaf)
    assert found.tolist() == pytest.approx([1 / 6, 1 / 5, 1 / 6])


def test_simnpo_has_the_margin_of_the_paper_times_beta() -> None:
    beta, gamma, tokens = 2.5, 0.8, logp()
    means = torch.stack([tokens[1], tokens[[0, 2]].mean()])
    paper = (-2 / beta * torch.sigmoid(-beta * means - gamma).log()).mean()
    torch.testing.assert_close(token_losses.simnpo(tokens, INDEX, beta, gamma / beta), paper)


def test_a_greater_margin_pushes_further() -> None:
    leaf = logp()
    pushes = [gradient(token_losses.simnpo(leaf, INDEX, 2.0, delta), leaf) for delta in (0.0, 1.0, 3.0)]
    assert (pushes[0] < pushes[1]).all()
    assert (pushes[1] < pushes[2]).all()


# DPO


def test_dpo_by_hand() -> None:
    # Chosen: record 7: 1/2 of 1/4, ratio 2; record 3: 1/4 of 1/8, ratio 2. Rejected: 2 and 1/3, as above.
    # Margins log(2 / 2) = 0 and log(2 / (1/3)) = log 6; beta 1: 2 * 1/2 [log(1 + 1) + log(1 + 1/6)] = log(7/3).
    chosen = torch.tensor([0.5, 0.5, 0.5], dtype=torch.float64).log()
    original = torch.tensor([0.25, 0.25, 0.5], dtype=torch.float64).log()
    loss = token_losses.dpo(chosen, original, torch.tensor([3, 7, 3]), logp(), REFERENCE, INDEX, 1.0)
    assert loss.item() == pytest.approx(log(7 / 3))


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_dpo_at_the_original_model_raises_the_chosen_and_lowers_the_rejected_alike(beta: float) -> None:
    # -(2/beta) log sigmoid(0) = (2/beta) log 2; slope -(2/beta) beta / 2 = -1 for chosen, over 2 records.
    chosen, rejected = REFERENCE.clone().requires_grad_(), REFERENCE.clone().requires_grad_()
    loss = token_losses.dpo(chosen, REFERENCE, INDEX, rejected, REFERENCE, INDEX, beta)
    assert loss.item() == pytest.approx(2 / beta * log(2))
    up, down = torch.autograd.grad(loss, [chosen, rejected])
    assert up.tolist() == pytest.approx([-0.5] * 3)
    assert down.tolist() == pytest.approx([0.5] * 3)


def test_dpo_pairs_answers_by_record_and_not_by_place() -> None:
    """A record with a rejected answer alone is pushed as by NPO, and shifts no other record's pair."""
    first = token_losses.dpo(
        REFERENCE[:1], logp()[:1], torch.tensor([3]), logp()[1:2], REFERENCE[1:2], torch.tensor([3]), 1.0
    )
    alone = token_losses.npo(logp()[:1], REFERENCE[:1], torch.tensor([2]), 1.0)
    both = token_losses.dpo(
        REFERENCE[:1], logp()[:1], torch.tensor([3]), logp()[:2], REFERENCE[:2], torch.tensor([2, 3]), 1.0
    )
    torch.testing.assert_close(both, (first + alone) / 2)


# UNDIAL and CE-U: probabilities 1/2, 1/4, 1/4; the label is the first.

LOGITS = torch.tensor([[log(2), 0.0, 0.0]], dtype=torch.float64)
LABEL = torch.tensor([0])


def test_undial_by_hand() -> None:
    # log 2 off the label's logit leaves (0, 0, 0): q uniform. -1/3 [log 1/2 + 2 log 1/4] = 5/3 log 2; p - q by logits.
    leaf = LOGITS.clone().requires_grad_()
    loss = token_losses.undial(leaf, LOGITS, LABEL, strength=log(2))
    assert loss.tolist() == pytest.approx([5 / 3 * log(2)])
    assert gradient(loss, leaf)[0].tolist() == pytest.approx([1 / 6, -1 / 12, -1 / 12])


def test_undial_of_strength_zero_rests_at_the_original_model_with_its_entropy_left() -> None:
    # Entropy of (1/2, 1/4, 1/4): 1/2 log 2 + 2 * 1/4 log 4 = 3/2 log 2.
    leaf = LOGITS.clone().requires_grad_()
    loss = token_losses.undial(leaf, LOGITS, LABEL, strength=0.0)
    assert loss.tolist() == pytest.approx([1.5 * log(2)])
    assert gradient(loss, leaf).abs().max() < 1e-15


def test_ceu_by_hand() -> None:
    # q = (0, 1/2, 1/2): -[log 1/4 + log 1/4] / 2 = log 4; p - q by logits: the label down, the others up.
    leaf = LOGITS.clone().requires_grad_()
    loss = token_losses.ceu(leaf, LABEL)
    assert loss.tolist() == pytest.approx([log(4)])
    assert gradient(loss, leaf)[0].tolist() == pytest.approx([1 / 2, -1 / 4, -1 / 4])


def test_ceu_is_finite_where_the_model_is_certain() -> None:
    # p of the label is 1 in float32, and p - q = (1, -1/2, -1/2).
    leaf = torch.tensor([[100.0, 0.0, 0.0]], requires_grad=True)
    loss = token_losses.ceu(leaf, LABEL)
    assert loss.tolist() == pytest.approx([100])
    assert gradient(loss, leaf)[0].tolist() == pytest.approx([1, -0.5, -0.5])


# Weights of WGA and SatImp


def test_weights_by_hand() -> None:
    # p = 1/2, 1/4, 1/4. p^2 = 1/4, 1/16; times (1 - p): 1/4 * 1/2 = 1/8, 1/16 * 3/4 = 3/64.
    assert token_losses.wga_weights(logp(), 2.0).tolist() == pytest.approx([1 / 4, 1 / 16, 1 / 16])
    assert token_losses.satimp_weights(logp(), 2.0, 1.0).tolist() == pytest.approx([1 / 8, 3 / 64, 3 / 64])


def test_weights_carry_no_gradient() -> None:
    """The gradient of the weighted ascent is the weight itself, and nothing through it."""
    for weights in (token_losses.wga_weights(logp(), 2.0), token_losses.satimp_weights(logp(), 2.0, 1.0)):
        assert not weights.requires_grad
        leaf = logp()
        assert torch.equal(gradient(weights * leaf, leaf), weights)


def test_wga_of_beta_zero_is_plain_ascent() -> None:
    assert token_losses.wga_weights(logp(), 0.0).tolist() == [1, 1, 1]


def test_satimp_spares_the_certain_and_the_forgotten_alike() -> None:
    # Greatest at p = 5 / (5 + 1).
    p = torch.linspace(0.01, 0.99, 99, dtype=torch.float64)
    weights = token_losses.satimp_weights(p.log(), 5.0, 1.0)
    assert p[weights.argmax()].item() == pytest.approx(0.83)
    ends = token_losses.satimp_weights(torch.tensor([-100.0, 0.0, 1e-7]), 5.0, 0.1)
    assert ends.tolist() == [0, 0, 0]


# PDU


def test_flatness_by_hand() -> None:
    # (3 - 1)^2 = 4; 2 * 2 * (1 - 1/3, -1/3, -1/3); rows of equal logits are flat at any height.
    leaf = torch.tensor([[3.0, 0.0, 0.0], [7.0, 7.0, 7.0]], dtype=torch.float64, requires_grad=True)
    loss = token_losses.flatness(leaf)
    assert loss.tolist() == [4, 0]
    found = gradient(loss, leaf)
    assert found[0].tolist() == pytest.approx([8 / 3, -4 / 3, -4 / 3])
    assert found[1].tolist() == pytest.approx([0, 0, 0])


@pytest.mark.parametrize(("violation", "expected"), [(2.0, 2.0), (-1.0, 0.5), (-4.0, 0.0)])
def test_the_multiplier_rises_while_the_constraint_is_broken_and_never_below_zero(
    violation: float, expected: float
) -> None:
    # 1 + 0.5 * 2 = 2; 1 - 0.5 * 1 = 0.5; 1 - 0.5 * 4 = -1, so 0.
    step = token_losses.dual_step(torch.tensor(1.0), torch.tensor(violation, requires_grad=True), rate=0.5)
    assert step.item() == expected
    assert not step.requires_grad


def test_the_limit_is_that_of_the_first_step() -> None:
    method = PDU(slack=0.05)
    state = method.prepare(None)  # pyright: ignore[reportArgumentType]
    for loss in (0.8, 0.6, 1.0):
        state = method.after_step(state, {"retain": loss * float(state["multiplier"])})
        assert float(state["limit"]) == pytest.approx(0.85)


# RMU


def test_steered_by_hand() -> None:
    # 5 * (0.6, 0.8) = (3, 4): [(1 - 3)^2 + (2 - 4)^2] / 2 = 4; the target itself is at 0.
    hidden = torch.tensor([[1.0, 2.0], [3.0, 4.0]], dtype=torch.float64)
    direction = torch.tensor([0.6, 0.8], dtype=torch.float64)
    assert token_losses.steered(hidden, direction, 5.0).tolist() == pytest.approx([4, 0])


def test_held_by_hand() -> None:
    # [(1 - 1)^2 + (2 - 0)^2] / 2 = 2.
    assert token_losses.held(torch.tensor([[1.0, 2.0]]), torch.tensor([[1.0, 0.0]])).tolist() == [2]


# What holds for any batch


@st.composite
def batches(draw: st.DrawFn) -> tuple[Tensor, Tensor, Tensor, float]:
    """`logp` and `reference` of records of one to five units each, under any distinct integers; and beta."""
    lengths = draw(st.lists(st.integers(1, 5), min_size=1, max_size=6))
    names = draw(st.lists(st.integers(-99, 99), min_size=len(lengths), max_size=len(lengths), unique=True))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    tokens, original = -torch.rand(2, sum(lengths), generator=generator, dtype=torch.float64) * 12
    index = torch.tensor(names).repeat_interleave(torch.tensor(lengths))
    return tokens, original, index, draw(st.sampled_from([0.01, 0.1, 1.0, 4.5, 50.0]))


def of_records(tokens: Tensor, original: Tensor, index: Tensor, beta: float) -> list[Tensor]:
    return [
        token_losses.npo(tokens, original, index, beta),
        token_losses.simnpo(tokens, index, beta, 0.5),
        token_losses.dpo(original, tokens, index, tokens, original, index, beta),
    ]


def of_units(tokens: Tensor, original: Tensor) -> list[Tensor]:
    """Losses of units whose logits, and hidden states, are made of the batch."""
    logits = torch.stack([tokens, original, tokens - original], dim=1)
    labels = (tokens.abs() * 7).long() % 3
    return [
        token_losses.undial(logits, logits.flip(1), labels, 2.0),
        token_losses.ceu(logits, labels),
        token_losses.flatness(logits),
        token_losses.wga_weights(tokens, 0.7),
        token_losses.satimp_weights(tokens, 5.0, 0.1),
        token_losses.steered(logits, torch.tensor([0.0, 0.6, 0.8], dtype=torch.float64), 20.0),
        token_losses.held(logits, logits.flip(1)),
    ]


@given(batches(), st.randoms(use_true_random=False))
def test_the_order_of_units_does_not_matter(batch, random) -> None:
    tokens, original, index, beta = batch
    order = list(range(len(tokens)))
    random.shuffle(order)
    shuffled = of_records(tokens[order], original[order], index[order], beta)
    for mine, theirs in zip(of_records(tokens, original, index, beta), shuffled, strict=True):
        torch.testing.assert_close(mine, theirs, rtol=1e-10, atol=1e-10)
    for mine, theirs in zip(of_units(tokens, original), of_units(tokens[order], original[order]), strict=True):
        torch.testing.assert_close(mine[order], theirs, rtol=1e-12, atol=1e-12)


@given(batches(), st.data())
def test_a_batch_is_the_mean_of_its_records_however_it_is_split(batch, data) -> None:
    """No record's loss depends on the others: parts of a batch, weighted by records, make the whole."""
    tokens, original, index, beta = batch
    records = index.unique()
    chosen = torch.tensor(data.draw(st.lists(st.booleans(), min_size=len(records), max_size=len(records))))
    mask = torch.isin(index, records[chosen])
    share = chosen.double().mean()
    parts = [of_records(tokens[part], original[part], index[part], beta) for part in (mask, ~mask)]
    for whole, first, second in zip(of_records(tokens, original, index, beta), *parts, strict=True):
        torch.testing.assert_close(whole, share * first + (1 - share) * second, rtol=1e-10, atol=1e-10)


@given(batches())
def test_npo_and_dpo_see_answers_and_not_how_they_are_cut_into_tokens(batch) -> None:
    """Each token made two of half its log-probability: the same answers."""
    tokens, original, index, beta = batch
    cut = of_records((tokens / 2).repeat(2), (original / 2).repeat(2), index.repeat(2), beta)
    whole = of_records(tokens, original, index, beta)
    for kind in (0, 2):
        torch.testing.assert_close(cut[kind], whole[kind], rtol=1e-10, atol=1e-10)


@given(batches())
def test_npo_is_dpo_without_chosen_answers(batch) -> None:
    tokens, original, index, beta = batch
    mine = token_losses.dpo(tokens[:0], tokens[:0], index[:0], tokens, original, index, beta)
    torch.testing.assert_close(mine, token_losses.npo(tokens, original, index, beta))


@given(batches())
def test_losses_to_erase_push_every_token_down_and_are_finite(batch) -> None:
    tokens, original, index, beta = batch
    for kind in range(3):
        leaf = tokens.clone().requires_grad_()
        loss = of_records(leaf, original, index, beta)[kind]
        found = gradient(loss, leaf)
        assert torch.isfinite(loss)
        assert torch.isfinite(found).all()
        assert (found >= 0).all()


@given(batches())
def test_ceu_has_the_gradient_of_unlikelihood(batch) -> None:
    """p - q is that of -log(1 - p): the label down by p, the others up by as much in all."""
    tokens, original, _, _ = batch
    leaf = torch.stack([tokens, original, original - tokens], dim=1).requires_grad_()
    labels = torch.arange(len(tokens)) % 3
    found = gradient(token_losses.ceu(leaf, labels), leaf)
    p = leaf.softmax(dim=1).gather(1, labels[:, None])[:, 0]
    others = leaf.masked_fill(torch.nn.functional.one_hot(labels, 3).bool(), float("-inf"))
    unlikelihood = leaf.logsumexp(dim=1) - others.logsumexp(dim=1)
    torch.testing.assert_close(found, gradient(unlikelihood, leaf), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.gather(1, labels[:, None])[:, 0], p.detach(), rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(found.sum(dim=1), torch.zeros_like(p), rtol=0, atol=1e-12)


@given(batches(), st.floats(-20, 20))
def test_undial_has_the_gradient_of_model_less_target(batch, strength: float) -> None:
    """The target's odds of the label against any other token are those of the original, by e^-strength."""
    tokens, original, _, _ = batch
    leaf = torch.stack([tokens, original, original - tokens], dim=1).requires_grad_()
    teacher = leaf.detach().flip(1)
    labels = torch.zeros(len(tokens), dtype=torch.long)
    target = leaf.detach().softmax(dim=1) - gradient(token_losses.undial(leaf, teacher, labels, strength), leaf)
    expected = (teacher - torch.tensor([strength, 0.0, 0.0], dtype=torch.float64)).softmax(dim=1)
    torch.testing.assert_close(target, expected, rtol=1e-9, atol=1e-9)


@given(batches(), st.floats(-50, 50))
def test_flatness_does_not_see_a_shift_of_all_logits(batch, shift: float) -> None:
    tokens, original, _, _ = batch
    logits = torch.stack([tokens, original], dim=1)
    torch.testing.assert_close(token_losses.flatness(logits + shift), token_losses.flatness(logits))


def test_without_units_losses_are_zero_with_their_graph() -> None:
    leaf, index = torch.zeros(0, requires_grad=True), torch.zeros(0, dtype=torch.long)
    for loss in of_records(leaf, torch.zeros(0), index, 0.1):
        assert loss.item() == 0
        assert gradient(loss, leaf).shape == (0,)
    for values in of_units(torch.zeros(0, dtype=torch.float64), torch.zeros(0, dtype=torch.float64)):
        assert values.shape == (0,)
    sums, counts = token_losses.by_record(leaf, index)
    assert sums.shape == counts.shape == (0,)
    rows = torch.zeros(0, 5, requires_grad=True)
    assert gradient(token_losses.ceu(rows, index), rows).shape == (0, 5)
    assert gradient(token_losses.undial(rows, rows.detach(), index, 1.0), rows).shape == (0, 5)
