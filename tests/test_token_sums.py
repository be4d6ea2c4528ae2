"""Terms over tokens whose gradient is made in the same sweep: the same as plain autograd's, whatever the parts."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from expunge import token_head, token_sums
from expunge.token_head import TokenHead
from expunge.token_losses import undial
from expunge.token_sums import cross_entropy, label_logp, made_once, summed

UNITS, HIDDEN, VOCABULARY = 7, 5, 11


def made(*, bias: bool = False, trained: bool = True) -> tuple[TokenHead, Tensor, Tensor]:
    """A head, its inputs and labels, in float64."""
    torch.manual_seed(0)
    module = nn.Linear(HIDDEN, VOCABULARY, bias=bias, dtype=torch.float64).requires_grad_(trained)
    hidden = torch.randn(UNITS, HIDDEN, dtype=torch.float64, requires_grad=True)
    return TokenHead(module), hidden, torch.randint(VOCABULARY, (UNITS,))


def gradients(value: Tensor, head: TokenHead, hidden: Tensor) -> list[Tensor]:
    return list(torch.autograd.grad(value, [hidden, *(p for p in head.module.parameters() if p.requires_grad)]))


def plain_logp(head: TokenHead, hidden: Tensor, labels: Tensor) -> Tensor:
    return head.module(hidden).log_softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)


@pytest.fixture(params=[2, 3, 100])
def parts(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """So many units' logits are held at once: 7 units are 4, 3 or 1 parts."""
    monkeypatch.setattr(token_head, "_ENTRIES", VOCABULARY * request.param)


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("kept", [0, 3 * VOCABULARY, 2**26])
@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize("trained", [False, True])
def test_log_probabilities_weighed_by_unit(
    monkeypatch: pytest.MonkeyPatch, kept: int, bias: bool, trained: bool
) -> None:
    """Whether probabilities are kept for the way back, some of them, or none."""
    monkeypatch.setattr(token_sums, "_KEPT", kept)
    head, hidden, labels = made(bias=bias, trained=trained)

    def weighed(logp: Tensor) -> Tensor:
        return -(-2.0 * (logp[:4].sum() - logp[4:].sum())).sigmoid().log()  # the form of NPO's

    found, expected = label_logp(head, hidden, labels), plain_logp(head, hidden, labels)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(
        gradients(weighed(found), head, hidden), gradients(weighed(expected), head, hidden), rtol=1e-12, atol=1e-12
    )


@pytest.mark.usefixtures("parts")
@pytest.mark.parametrize("trained", [False, True])
def test_sums_of_terms(trained: bool) -> None:
    head, hidden, labels = made(bias=True, trained=trained)
    before = torch.randn(UNITS, VOCABULARY, dtype=torch.float64)

    def term(logits: Tensor, reference: Tensor, labels: Tensor) -> Tensor:
        return undial(logits, reference, labels, 3.0)

    value, terms = summed(head, term, hidden, before, labels)
    expected = term(head.module(hidden), before, labels)
    torch.testing.assert_close(terms, expected.detach())
    assert not terms.requires_grad
    torch.testing.assert_close(
        gradients(0.25 * value, head, hidden), gradients(0.25 * expected.sum(), head, hidden), rtol=1e-12, atol=1e-12
    )


def test_logits_are_made_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Forward and backward: 7 units through the head, not 14."""
    head, hidden, labels = made()
    rows = 0
    plain = token_sums._logits

    def counted(head: TokenHead, hidden: Tensor) -> Tensor:
        nonlocal rows
        rows += len(hidden)
        return plain(head, hidden)

    monkeypatch.setattr(token_sums, "_logits", counted)
    makers: list[Callable[[], Tensor]] = [
        lambda: label_logp(head, hidden, labels).sum(),
        lambda: cross_entropy(head, (hidden, None), labels),
    ]
    for make in makers:
        rows = 0
        make().backward()
        assert rows == UNITS


def test_weights_shared_with_the_embedding_get_both_gradients() -> None:
    """As in plain autograd: the layer's own and, through the inputs, the embedding's."""
    torch.manual_seed(0)
    embedding = nn.Embedding(VOCABULARY, HIDDEN, dtype=torch.float64)
    module = nn.Linear(HIDDEN, VOCABULARY, bias=False, dtype=torch.float64)
    module.weight = embedding.weight
    head, ids = TokenHead(module), torch.tensor([3, 1, 4])
    found = torch.autograd.grad(label_logp(head, embedding(ids), ids.roll(1)).sum(), embedding.weight)
    expected = torch.autograd.grad(plain_logp(head, embedding(ids), ids.roll(1)).sum(), embedding.weight)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(
    "value", [lambda *given: label_logp(*given).sum(), lambda h, x, y: cross_entropy(h, (x, None), y)]
)
def test_a_second_backward_pass_is_refused(value: Callable[..., Tensor]) -> None:
    """What it would need was given away with the first."""
    head, hidden, labels = made()
    found = value(head, hidden, labels)
    torch.autograd.grad(found, hidden, retain_graph=True)
    with pytest.raises(RuntimeError, match="for one backward pass"):
        torch.autograd.grad(found, hidden)


def test_without_units_all_is_zero() -> None:
    head, hidden, labels = made()
    value, terms = summed(head, lambda logits, labels: logits[:, 0], hidden[:0], labels[:0])
    (value + label_logp(head, hidden[:0], labels[:0]).sum()).backward()
    assert value == 0
    assert terms.shape == (0,)
    assert not hidden.grad.any()  # pyright: ignore[reportOptionalMemberAccess]


def test_only_a_plain_linear_layer_is_taken_apart() -> None:
    head, _, _ = made()
    assert made_once(head)
    hooked = nn.Linear(HIDDEN, VOCABULARY)
    hooked.register_forward_hook(lambda *_: None)
    assert not made_once(TokenHead(hooked))
    assert not made_once(object())
    with torch.autocast("cpu", torch.bfloat16):  # casts of weights are kept by torch, with a graph of their own
        assert not made_once(head)
