"""DeepCUT toward a rewound model: how far back, its loss by hand, and what it leaves on a small language model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

import expunge
from expunge.config import AuditConfig, Recipe, StopConfig, TrainingConfig
from expunge.errors import UsageError
from expunge.fit import train
from expunge.methods.deepcut_rewound import RewoundDeepCUT
from expunge.models import head_of, load_model, weights_of_base
from expunge.rewinding import rewound_to
from expunge.step import Scores, Step
from expunge.tasks.base import Encoded
from expunge.tasks.generation import Generation
from expunge.testing import byte_tokenizer, check_method, tiny_causal, toy_answers
from expunge.tiny_jobs import answer_job
from expunge.token_head import TokenHead
from expunge.token_scoring import hidden_of

EVERY = toy_answers(152)
ROWS, HELD, OTHERS = EVERY[:48], EVERY[48:88], EVERY[88:]
FORGET = [row["id"] for row in ROWS[:8]]
TASK = Generation(byte_tokenizer(), 64, tuple(map(str, range(259))))


def encoded(rows: list[dict[str, str]]) -> Encoded:
    return TASK.encode_texts([(row["prompt"], row["answer"]) for row in rows])


def test_it_goes_back_until_the_loss_is_as_wanted() -> None:
    """Loss 4 at the base, 1 at the original. A straight line 4 - 3 s has 2.5 half way, whatever is looked at."""
    looks: list[float] = []

    def line(share: float) -> float:
        looks.append(share)
        return 4 - 3 * share

    assert rewound_to(2.5, line, learnt=1.0) == pytest.approx(0.5)
    assert rewound_to(3.7, line, learnt=1.0) == pytest.approx(0.1)
    assert len(looks) == 8, "four looks each"
    # 4 - 3 s^2 is 2.5 at sqrt(1/2) = .707: halves enclose it by .625 and .75, and the chord between these cuts it.
    assert rewound_to(2.5, lambda s: 4 - 3 * s * s, learnt=1.0) == pytest.approx(0.5**0.5, abs=0.005)


def test_nothing_is_rewound_that_is_unknown_already_or_known_to_the_base() -> None:
    assert rewound_to(0.9, lambda _: 4.0, learnt=1.0) == 1.0
    assert rewound_to(4.5, lambda _: 4.0, learnt=1.0) == 0.0


def units(layer: nn.Linear, hidden: torch.Tensor, labels: list[int], group: str, reads: frozenset[str]) -> Scores:
    place = torch.arange(len(labels))
    return Scores(
        hidden=hidden, logits=None, labels=torch.tensor(labels), record_index=place, unit_index=place,
        allowed=reads, group=group, head=TokenHead(layer),
    )  # fmt: skip


def test_the_loss_by_hand() -> None:
    """Two tokens. Model logits (log 3, 0): p = (3/4, 1/4); teacher's (0, 0): q = (1/2, 1/2).
    KL(q || p) = 1/2 log(1/2 / 3/4) + 1/2 log(1/2 / 1/4) = 1/2 log(4/3).
    Contrast: the state (log 3, 0) lies along the first row and across the second: cosines 1 and 0, tau 1/2: the softmax of
    (2, 0) is s = 1 / (1 + e^-2) for the first. Wanted are halves: -1/2 (log s + log(1 - s))."""
    layer = nn.Linear(2, 2, bias=False)
    layer.weight.data = torch.eye(2)
    method = RewoundDeepCUT(gamma=2.0, contrast=3.0, temperature=0.5, retain="none")
    state = {"hidden": torch.zeros(1, 2), "head": torch.eye(2), "share": torch.tensor(0.4)}
    forget = units(layer, torch.tensor([[3.0, 1.0]]).log(), [0], "forget", method.reads)
    retain = units(layer, torch.zeros(1, 2), [1], "retain", method.reads)
    parts = method.loss(Step(forget, retain, 0, state))
    share = torch.sigmoid(torch.tensor(2.0))
    assert parts["forget"].item() == pytest.approx(2.0 * 0.5 * torch.tensor(4 / 3).log().item(), rel=1e-5)
    assert parts["contrast"].item() == pytest.approx(-1.5 * float(share.log() + (1 - share).log()), rel=1e-5)
    assert method.counts(Step(forget, retain, 0, state)) == {"rewound_to": pytest.approx(0.4)}


def test_it_conforms_with_its_contrastive_term_too() -> None:
    check_method(RewoundDeepCUT(contrast=0.3), tasks=[answer_job()])


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
        str(original), ROWS, RewoundDeepCUT(), forget=FORGET, held_out=HELD, id="id",
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
    assert 0.0 < made.record.training["history"][-1]["rewound_to"] < 1.0


def test_a_base_is_found_under_an_adapter(base: Path, original: Path) -> None:
    from expunge.adapter import with_adapter

    model = load_model(str(original), TASK.auto_class, where="original")
    plain = weights_of_base(str(base), model, TASK.auto_class)
    adapted = weights_of_base(str(base), with_adapter(model, 4, 0), TASK.auto_class)
    assert len(adapted) == len(plain) > 10
    assert all(any(torch.equal(p, q) for q in plain.values()) for p in adapted.values())


def test_without_a_base_it_is_refused_before_weights_load(original: Path) -> None:
    with pytest.raises(UsageError, match="deepcut-rewound needs the base model, and none is named"):
        erased(original, None)
