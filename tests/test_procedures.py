"""Methods that move weights by themselves, with numbers worked out by hand."""

from __future__ import annotations

from types import SimpleNamespace

import torch

from expunge import Rewind, TaskVector
from expunge.methods.base import ProcedureContext
from expunge.models import between
from expunge.stopping import Check


def test_task_vector_by_hand() -> None:
    # theta = 1, fine-tuned 3: the vector is 2. theta - alpha 2 = 0 for alpha 1/2, and -3 for alpha 2.
    # Confidence on forget records is made to be 0.9 at 1, 0.5 at 0 and 0.2 at -3; on calibration records 0.6 throughout:
    # 0.5 is nearest to 0.6, so alpha is 1/2.
    seen, tuned = [], []

    def tune(model, records, epochs, learning_rate) -> None:
        tuned.append((records, epochs, learning_rate))
        torch.nn.init.constant_(model.weight, 3.0)

    def check(model, number) -> Check:
        seen.append((number, model.weight.item()))
        return Check(number, 0.0, 0.0, {1.0: 0.9, 0.0: 0.5, -3.0: 0.2}[model.weight.item()], 0.6)

    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 1.0)
    given = ProcedureContext(
        model=model, task=None, forget="forget", retain=None, forget_ids=(), retain_ids=(), classes=2, seed=0, fit=None,
        tune=tune, check=check, spend=lambda _: None, prepared=lambda: None, note=lambda _: None, keep=lambda _: None,
    )  # fmt: skip
    found = TaskVector(alphas=(0.5, 2.0), epochs=7.0, learning_rate=0.1).run(given)
    assert tuned == [("forget", 7.0, 0.1)]
    assert seen == [(0, 1.0), (1, 0.0), (2, -3.0)]
    assert found.weight.item() == 0.0


def test_rewind_by_hand() -> None:
    """A weight of 4 whose base has 0 is 1 at a quarter of the way; training, which doubles it here, starts from there."""
    seen, tuned = [], []

    def tune(model, records, epochs, learning_rate) -> None:
        tuned.append((model.weight.item(), records, epochs, learning_rate))
        torch.nn.init.constant_(model.weight, 2 * model.weight.item())

    def check(model, number) -> Check:
        seen.append((number, model.weight.item()))
        return Check(number, 0.0, 0.0, 0.5, 0.6)

    model = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.constant_(model.weight, 4.0)
    prepared = SimpleNamespace(rewound=lambda kept: between({"weight": torch.zeros(1, 1)}, model, kept))
    given = ProcedureContext(
        model=model, task=None, forget="forget", retain="retain", forget_ids=(), retain_ids=(), classes=2, seed=0, fit=None,
        tune=tune, check=check, spend=lambda _: None, prepared=lambda: prepared, note=lambda _: None, keep=lambda _: None,
    )  # fmt: skip
    found = Rewind(kept=0.25, epochs=0.5, learning_rate=0.1).run(given)
    assert tuned == [(1.0, "retain", 0.5, 0.1)]
    assert seen == [(0, 4.0), (1, 2.0)]
    assert found is model
    assert found.weight.requires_grad
    assert Rewind(epochs=0.5).expected(forget=8, retain=200, calibration=50, classes=2) == (100.0, 2)
