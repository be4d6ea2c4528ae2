"""Leave-out: targets and loss by hand, and what they leave on a small language model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn

import expunge
from expunge.config import AuditConfig, Recipe, StopConfig, TrainingConfig
from expunge.errors import UsageError
from expunge.fit import train
from expunge.head import head_of
from expunge.methods.leave_out import LeaveOut
from expunge.models import load_model, weights_of_base
from expunge.step import Scores, Step
from expunge.summary import facts
from expunge.tasks.base import Encoded
from expunge.tasks.generation import Generation
from expunge.testing import byte_tokenizer, tiny_causal, toy_answers
from expunge.token_head import TokenHead
from expunge.token_scoring import hidden_of

EVERY = toy_answers(152)
ROWS, HELD, OTHERS = EVERY[:48], EVERY[48:88], EVERY[88:]
FORGET = [row["id"] for row in ROWS[:8]]
TASK = Generation(byte_tokenizer(), 64, tuple(map(str, range(259))))


def encoded(rows: list[dict[str, str]]) -> Encoded:
    return TASK.encode_texts([(row["prompt"], row["answer"]) for row in rows])


def test_the_loss_by_hand() -> None:
    """Two records, of two tokens and of one, each token with logits (log 3, 0): a loss of log(4/3) = .288 where it is the
    first, of log 4 = 1.386 where it is the second. Means: (.288 + 1.386) / 2 = .837 and .288. Targets 1.837 and .388: beyond
    beta = .2 a distance d counts d - beta/2 = .9, within it d^2 / (2 beta) = .025. Mean .4625, twice that with gamma 2."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.eye(2)
    method = LeaveOut(gamma=2.0, beta=0.2, retain="none")
    forget = Scores(
        hidden=torch.tensor([[3.0, 1.0]] * 3).log(), logits=None, labels=torch.tensor([0, 1, 0]),
        record_index=torch.tensor([4, 4, 7]), unit_index=torch.arange(3), allowed=method.reads, group="forget",
        head=TokenHead(layer),
    )  # fmt: skip
    likely, not_likely = torch.tensor(4 / 3).log(), torch.tensor(4.0).log()
    long, short = (likely + not_likely) / 2 + 1, likely + 0.1
    step = Step(forget, forget, 0, {"losses": torch.stack([long, long, short])})
    assert {name: part.item() for name, part in method.loss(step).items()} == pytest.approx({"forget": 0.925}, rel=1e-5)


def records(count: int) -> Encoded:
    return Encoded([[0, 0, 0]] * count, None, [(0, 0)] * count, units=[(1, 2)] * count)


def test_a_target_is_the_loss_of_never_seen_records_at_the_same_place() -> None:
    """To the base 49 calibration records have losses of 1.1 to 5.9 in steps of a tenth, to the original half as much. A forget
    record with the loss of the tenth, the middle one or the fortieth belongs where these stand to the original. Each has two
    tokens, one of the loss and a half more, one of as much less."""
    never = 1.1 + torch.arange(49) / 10
    own = never[[9, 24, 39]]
    told = {("base", 49): never, ("original", 49): never / 2, ("base", 3): own}

    def states(model: str, part: Encoded) -> tuple[torch.Tensor, None]:
        losses = told[model, len(part)]
        return -torch.stack([losses + 0.5, losses - 0.5], dim=1).flatten(), None

    context: Any = SimpleNamespace(
        forget=records(3), model="original", rewound=lambda share: "base" if share == 0 else None, states=states,
        drawn=lambda what, most: records(49) if what == "calibration" else None,
    )  # fmt: skip
    state = LeaveOut().prepare(context)
    assert state["losses"].numpy() == pytest.approx((own / 2).repeat_interleave(2).numpy(), abs=1e-5)


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A Llama of two layers that knows how such records are written, of 64 others."""
    return saved(tmp_path_factory.mktemp("base") / "model", tiny_causal(), OTHERS, 8.0)


@pytest.fixture(scope="module")
def original(base: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same after it has learnt its own records by heart."""
    return saved(
        tmp_path_factory.mktemp("original") / "model", load_model(str(base), TASK.auto_class, where="base"), ROWS, 60.0
    )


def saved(folder: Path, model: object, rows: list[dict[str, str]], epochs: float) -> Path:
    recipe = Recipe(epochs=epochs, learning_rate=5e-3, batch_size=16)
    made = train(model, TASK, encoded(rows), recipe, seed=0)
    made.save_pretrained(folder)
    TASK.tokenizer.save_pretrained(folder)
    return folder


def losses(model: object, rows: list[dict[str, str]]) -> float:
    records = encoded(rows)
    return -float(hidden_of(model, head_of(model, TASK, records), records, TASK)[0].mean())


def erased(original: Path, base: Path | None, **changes: object) -> expunge.Erased:
    training = {"epochs": 60.0, "min_steps": 1, "batch_size": 4, "learning_rate": 1e-3, **changes}
    return expunge.unlearn(
        str(original), ROWS, LeaveOut(), forget=FORGET, held_out=HELD, id="id",
        training=TrainingConfig(**training),  # pyright: ignore[reportArgumentType]
        base=None if base is None else str(base), stop=StopConfig(rule="none"),
        audit=AuditConfig(audits=("membership",), bootstrap=50),
    )  # fmt: skip


@pytest.mark.parametrize("lora_rank", [0, 8])
def test_forget_records_end_where_records_never_seen_are(original: Path, base: Path, lora_rank: int) -> None:
    rate = 5e-3 if lora_rank else 1e-3
    made = erased(original, base, lora_rank=lora_rank, learning_rate=rate)
    before = load_model(str(original), TASK.auto_class, where="original")
    never = losses(before, HELD)
    learnt, now = losses(before, ROWS[:8]), losses(made.model, ROWS[:8])
    assert learnt < 0.2 * never, "it knew them by heart"
    assert now == pytest.approx(never, rel=0.25)
    assert losses(made.model, ROWS[8:]) < 0.4 * never, "the others are still known"


def test_a_base_is_found_under_an_adapter(base: Path, original: Path) -> None:
    from expunge.adapter import with_adapter

    model = load_model(str(original), TASK.auto_class, where="original")
    plain = weights_of_base(str(base), model, TASK.auto_class)
    adapted = weights_of_base(str(base), with_adapter(model, 4, 0), TASK.auto_class)
    assert len(adapted) == len(plain) > 10
    assert all(any(torch.equal(p, q) for q in plain.values()) for p in adapted.values())


def test_rewinding_at_the_end_moves_every_weight_toward_the_base(original: Path, base: Path) -> None:
    """All but the step that training.rewind takes last is the same run; the record says what that did."""
    made, back = erased(original, base), erased(original, base, rewind=0.25)
    start = load_model(str(base), TASK.auto_class, where="base")
    for name, there in dict(start.named_parameters()).items():
        whole, part = made.model.get_parameter(name), back.model.get_parameter(name)
        torch.testing.assert_close(part, whole + 0.25 * (there - whole), rtol=1e-5, atol=1e-6)
    look = back.record.training["rewound"]
    assert look["step"] == back.record.training["kept_step"]
    assert look["forget_confidence"] < back.record.training["checks"][0]["forget_confidence"]
    assert "rewound" not in made.record.training
    assert any("25% of the way back to the base" in line for line in facts(back.record))
    following = back.forget_next([ROWS[9]["id"]], method="task-vector")
    assert following.record.config["training"]["rewind"] == 0, "it trains models of its own: nothing is moved back"


@pytest.mark.parametrize("lora_rank", [0, 4])
def test_steps_may_begin_on_the_way_back(original: Path, base: Path, lora_rank: int) -> None:
    """Steps of no length show where they begin. The first look, targets and references are still the original's."""
    made = erased(original, base, rewind_first=0.25, learning_rate=1e-12, epochs=1.0, lora_rank=lora_rank)
    plain = erased(original, base, learning_rate=1e-12, epochs=1.0, lora_rank=lora_rank)
    start, before = (load_model(str(folder), TASK.auto_class, where="model") for folder in (base, original))
    for name, there in dict(start.named_parameters()).items():
        own = before.get_parameter(name)
        torch.testing.assert_close(made.model.get_parameter(name), own + 0.25 * (there - own), rtol=1e-5, atol=1e-6)
    (first, last), (unmoved, _) = (run.record.training["checks"] for run in (made, plain))
    assert first == unmoved, "the original"
    assert last["forget_confidence"] < 0.9 * first["forget_confidence"]
    assert made.record.cost["total"] == plain.record.cost["total"]
    assert any("began 25% of the way back to the base" in line for line in facts(made.record))
    # in eval mode and before the first step the distance to the targets is a function of weights alone
    row, other = made.record.training["history"][0], plain.record.training["history"][0]
    assert row["forget"] < other["forget"], "nearer to targets that were made of the original"
    following = made.forget_next([ROWS[9]["id"]], method="task-vector")
    assert following.record.config["training"]["rewind_first"] == 0


@pytest.mark.parametrize("setting", ["rewind", "rewind_first"])
def test_rewinding_wants_a_base_and_steps(original: Path, base: Path, setting: str) -> None:
    training = TrainingConfig(**{setting: 0.3})  # pyright: ignore[reportArgumentType]
    with pytest.raises(UsageError, match=rf"training\.{setting} needs the base model, and none is named"):
        expunge.unlearn(
            str(original), ROWS, expunge.NPO(), forget=FORGET, held_out=HELD, id="id", training=training,
        )  # fmt: skip
    with pytest.raises(UsageError, match=rf"training\.{setting}: task-vector trains models of its own"):
        expunge.unlearn(
            str(original), ROWS, expunge.TaskVector(), forget=FORGET, held_out=HELD, id="id", base=str(base),
            training=training,
        )  # fmt: skip


def test_without_a_base_it_is_refused_before_weights_load(original: Path) -> None:
    with pytest.raises(UsageError, match="leave-out needs the base model, and none is named"):
        erased(original, None)
    first = expunge.unlearn(
        str(original), ROWS, expunge.NPO(), forget=FORGET, held_out=HELD, id="id",
        training=TrainingConfig(epochs=1.0, min_steps=1), audit=AuditConfig(audits=("membership",), bootstrap=50),
    )  # fmt: skip
    with pytest.raises(UsageError, match="leave-out needs the base model, and none is named"):
        first.forget_next([ROWS[9]["id"]], method="leave-out")
