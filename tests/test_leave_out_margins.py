"""Leave-out margins: targets and loss by hand, and what they leave on a small language model."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import expunge
from expunge.config import AuditConfig, Recipe, StopConfig, TrainingConfig
from expunge.errors import UsageError
from expunge.fit import train
from expunge.methods.leave_out_margins import LeaveOutMargins
from expunge.models import head_of, load_model, weights_of_base
from expunge.step import Scores, Step
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
    """Two tokens with logits (log 3, 0) have the log-odds log 3 of the first. Targets log 3 - 1 and log 3 - .2: beyond beta a
    distance d counts d - beta/2 = .75, within it d^2 / (2 beta) = .04. Mean .395, twice that with gamma 2."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.eye(2)
    method = LeaveOutMargins(gamma=2.0, beta=0.5, retain="none")
    own = torch.tensor(3.0).log()
    place = torch.arange(2)
    forget = Scores(
        hidden=torch.tensor([[3.0, 1.0], [3.0, 1.0]]).log(), logits=None, labels=torch.zeros(2, dtype=torch.long),
        record_index=place, unit_index=place, allowed=method.reads, group="forget", head=TokenHead(layer),
    )  # fmt: skip
    step = Step(forget, forget, 0, {"margins": torch.stack([own - 1, own - 0.2])})
    assert {name: part.item() for name, part in method.loss(step).items()} == pytest.approx({"forget": 0.79})


def records(count: int) -> Encoded:
    return Encoded([[0, 0]] * count, None, [(0,)] * count, units=[(1,)] * count)


def test_a_target_is_what_the_original_gives_tokens_never_seen_at_the_same_place() -> None:
    """To the base 49 calibration tokens have log-odds -24 to 24 tenths, to the original 3 more each. A forget token where the
    tenth, the middle one and the fortieth stand to the base belongs where these stand to the original, whatever the
    original makes of it."""
    never = torch.arange(-24, 25) / 10
    own = never[[9, 24, 39]]
    told = {("base", 49): never, ("original", 49): never + 3.0, ("base", 3): own}
    context: Any = SimpleNamespace(
        forget=records(3), model="original", rewound=lambda share: "base" if share == 0 else None,
        drawn=lambda what, most: records(49) if what == "calibration" else None,
        states=lambda model, part: (functional.logsigmoid(told[model, len(part)].double()), None),
    )  # fmt: skip
    state = LeaveOutMargins().prepare(context)
    assert state["margins"].numpy() == pytest.approx((own + 3.0).numpy(), abs=0.06), "within a step of a tenth"


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
        str(original), ROWS, LeaveOutMargins(), forget=FORGET, held_out=HELD, id="id",
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


def test_without_a_base_it_is_refused_before_weights_load(original: Path) -> None:
    with pytest.raises(UsageError, match="leave-out-margins needs the base model, and none is named"):
        erased(original, None)
