"""The Gauss-Newton step: rows, kernel and change of weights are those of the written-out Jacobian."""

from __future__ import annotations

import copy

import pytest
import torch

from expunge.errors import UsageError
from expunge.head import head_of
from expunge.kernel_step import Rows, rows_of
from expunge.scoring import score
from expunge.tiny_jobs import TinyJob, tag_job, text_job


@pytest.fixture(params=[text_job, tag_job], ids=["texts", "tags"])
def job(request: pytest.FixtureRequest) -> TinyJob:
    return request.param()


def rows(job: TinyJob, model, **settings) -> Rows:
    return rows_of(
        model, head_of(model, job.task, job.forget), job.task, [job.forget, job.retain.take(range(9))], **settings
    )


def linear(model) -> dict[str, torch.nn.Linear]:
    named = {n: m for n, m in model.named_modules() if isinstance(m, torch.nn.Linear)}
    return {n: m for n, m in named.items() if n != "classifier"}


def jacobian(job: TinyJob, model) -> torch.Tensor:
    """(R, P) gradients of each record's log-odds, one backward pass a record, from its mean loss."""
    weights = [p for m in linear(model).values() for p in (m.weight, m.bias)]
    head, found = head_of(model, job.task, job.forget), []
    for encoded in (job.forget, job.retain.take(range(9))):
        for place in range(len(encoded)):
            batch = job.task.collate(encoded, [place])
            loss = torch.nn.functional.cross_entropy(head.run(model, batch)[1], batch.labels)
            margin = -loss - torch.log(-torch.expm1(-loss))
            found.append(torch.cat([g.flatten() for g in torch.autograd.grad(margin, weights)]))
    return torch.stack(found)


def test_margins_are_those_of_the_score_table(job: TinyJob) -> None:
    model = job.model(0).eval()
    table = score(model, head_of(model, job.task, job.forget), job.forget, job.task)
    assert rows(job, model).margins[: len(job.forget)].numpy() == pytest.approx(table.record_margins, abs=1e-5)


def test_layers_that_run_several_times_count_each_time() -> None:
    """ALBERT's layers are one, run again and again."""
    from transformers import AlbertConfig, AlbertForSequenceClassification

    job = text_job()
    torch.manual_seed(0)
    config = AlbertConfig(
        vocab_size=len(job.task.tokenizer), embedding_size=12, hidden_size=16, num_hidden_layers=3, num_attention_heads=2,
        intermediate_size=24, num_labels=3, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0,
    )  # fmt: skip
    model = AlbertForSequenceClassification(config).eval()
    whole = jacobian(job, model)
    found = rows(job, model, width=10_000)
    assert torch.allclose(found.kernel, (whole @ whole.T).float(), rtol=1e-3, atol=1e-5)
    before = copy.deepcopy(model)
    coefficients = torch.linspace(-1e-3, 1e-3, 16)
    found.apply(coefficients)
    moved = [
        (p - q).flatten()
        for m, b in zip(linear(model).values(), linear(before).values(), strict=True)
        for p, q in ((m.weight, b.weight), (m.bias, b.bias))
    ]
    assert torch.allclose(torch.cat(moved), coefficients @ whole, atol=1e-6)


@pytest.mark.parametrize("most_bytes", [2**31, 0], ids=["kept", "made-again"])
def test_layers_that_records_do_not_run_through_are_left_alone(most_bytes: int) -> None:
    """DeBERTa's projections of relative positions take in a table."""
    from transformers import DebertaConfig, DebertaForSequenceClassification

    job = text_job()
    torch.manual_seed(0)
    config = DebertaConfig(
        vocab_size=len(job.task.tokenizer), hidden_size=16, num_hidden_layers=2, num_attention_heads=2, intermediate_size=24,
        num_labels=3, relative_attention=True, pos_att_type=["c2p", "p2c"], pooler_hidden_size=16,
    )  # fmt: skip
    model = DebertaForSequenceClassification(config).eval()
    tables = {name: p.clone() for name, p in model.named_parameters() if "pos_" in name}
    found = rows(job, model, width=10_000, most_bytes=most_bytes)
    coefficients = torch.linspace(-1e-3, 1e-3, 16)
    found.apply(coefficients)
    assert tables
    assert all(torch.equal(p, dict(model.named_parameters())[name]) for name, p in tables.items())
    moved = rows(job, model).margins - found.margins
    assert moved.abs().max() > 1e-4
    assert torch.allclose(moved, found.kernel @ coefficients, rtol=0.05, atol=1e-5)


def test_the_kernel_is_that_of_the_jacobian(job: TinyJob) -> None:
    """Exactly where the projections are as wide as the layers, and nearly with narrower ones."""
    model = job.model(0).eval()
    whole = jacobian(job, model)
    exact = (whole @ whole.T).float()
    assert torch.allclose(rows(job, model, width=10_000).kernel, exact, rtol=1e-4, atol=1e-5)
    size = exact.diagonal().mean()
    several = torch.stack([rows(job, model, width=12, seed=seed).kernel for seed in range(150)])
    assert (several.mean(dim=0) - exact).abs().mean() < 0.08 * size, "right on average"
    assert not torch.equal(several[0], several[1])


@pytest.mark.parametrize("most_bytes", [2**31, 0], ids=["kept", "made-again"])
def test_the_change_of_weights_is_that_of_the_jacobian(job: TinyJob, most_bytes: int) -> None:
    model = job.model(0).eval()
    before = copy.deepcopy(model)
    coefficients = torch.linspace(-1e-3, 1e-3, 16)
    found = rows(job, model, most_bytes=most_bytes)
    assert found.passes == (16 if most_bytes else 32)
    expected = coefficients.double() @ jacobian(job, model)
    found.apply(coefficients)
    moved = [
        (p - q).flatten()
        for m, b in zip(linear(model).values(), linear(before).values(), strict=True)
        for p, q in ((m.weight, b.weight), (m.bias, b.bias))
    ]
    assert torch.allclose(torch.cat(moved), expected, atol=1e-7)
    untouched = {n for n, p in model.named_parameters() if torch.equal(p, dict(before.named_parameters())[n])}
    assert {n for n in untouched if "embeddings" in n or "LayerNorm" in n or "classifier" in n} == untouched
    assert "classifier.weight" in untouched, "the head stays as it is"


def test_a_small_step_moves_margins_as_wanted(job: TinyJob) -> None:
    """Some records up, others down or not at all, as far as their rows differ: what any change of weights can do."""
    model = job.model(0).eval()
    found = rows(job, model, width=10_000)
    wanted = found.kernel @ torch.linspace(-1, 1, 16)
    wanted *= 0.01 / wanted.abs().max()
    found.apply(found.solve(wanted, torch.full((16,), 1e-6)))
    assert torch.allclose(rows(job, model).margins - found.margins, wanted, atol=1e-3)


def test_damping_says_how_little_a_record_is_insisted_on() -> None:
    """K = 4 I: with damping d times its mean diagonal a record goes 1 / (1 + d) of its way."""
    rows = Rows(torch.zeros(2), 4 * torch.eye(2), 2.0, [], [], None)
    assert (4 * rows.solve(torch.tensor([1.0, 1.0]), torch.tensor([0.0, 1.0]))).tolist() == pytest.approx([1.0, 0.5])


def test_the_model_is_left_as_it_was(job: TinyJob) -> None:
    model = job.model(0).train()
    frozen = next(iter(linear(model).values())).weight.requires_grad_(False)
    before = {n: p.detach().clone() for n, p in model.named_parameters()}
    rows(job, model)
    assert model.training
    assert all(torch.equal(before[n], p) and p.grad is None for n, p in model.named_parameters())
    assert [p for p in model.parameters() if not p.requires_grad] == [frozen]


def test_a_model_without_linear_layers_to_move_is_refused(job: TinyJob) -> None:
    model = job.model(0)
    for module in linear(model).values():
        module.weight.requires_grad_(False)
    with pytest.raises(UsageError, match="no linear layers"):
        rows(job, model)
