"""What is asked of a language model beside its records' own answers: other answers, written ones, gradients."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray

from expunge.data.records import Records
from expunge.generating import generate
from expunge.head import head_of
from expunge.scoring import ScoreTable
from expunge.tasks.base import Encoded
from expunge.token_metrics import rouge_l
from expunge.token_sums import cross_entropy

if TYPE_CHECKING:
    from expunge.stress import Material

__all__ = ["alternatives", "false_answers", "gradients", "other_answers", "written"]

Floats = NDArray[np.float64]


def alternatives(model: Any, material: Material) -> tuple[dict[str, ScoreTable], float]:
    """Scores of other answers to the same prompts.

    Returns:
        Tables ``"<group>, true"`` (the answer in other words, or as it is) and ``"<group>, false 1"`` and so on, each
        with the group's records in order; a record with fewer false answers than others has no token there. And the cost
        in example-passes.
    """
    tables: dict[str, ScoreTable] = {}
    passes = 0.0
    for group, several in material.alternatives.items():
        names = [f"{group}, true", *(f"{group}, false {k}" for k in range(1, len(several)))]
        found, cost = material.scored(model, dict(zip(names, several, strict=True)))
        tables |= found
        passes += cost
    return tables, passes


def other_answers(task: Any, records: Records) -> list[Encoded]:
    """Records with the true answer in other words (as it is where there are none), and with each false answer.

    A record with fewer false answers than others has no units in the last of these.
    """
    prompts = [parts[0] for parts in records.texts]
    said = [own[0] or parts[-1] for own, parts in zip(records.alternatives, records.texts, strict=True)]
    found = [task.encode_texts(list(zip(prompts, said, strict=True)))]
    for k in range(1, max(map(len, records.alternatives))):
        there = [len(own) > k for own in records.alternatives]
        said = [own[k] if len(own) > k else "" for own in records.alternatives]
        made = task.encode_texts(list(zip(prompts, said, strict=True)))
        found.append(replace(made, labels=_only(made.labels, there), units=_only(made.units, there)))
    return found


def _only(rows: Any, there: Sequence[bool]) -> list[Sequence[int]]:
    return [row if kept else [] for row, kept in zip(rows, there, strict=True)]


def false_answers(tables: Mapping[str, ScoreTable], group: str) -> list[ScoreTable]:
    """Tables of a group's false answers, as `alternatives` names them."""
    found: list[ScoreTable] = []
    while (name := f"{group}, false {len(found) + 1}") in tables:
        found.append(tables[name])
    return found


def written(model: Any, material: Material) -> tuple[dict[str, Floats], float]:
    """ROUGE-L recall of what a model writes to each prompt, taking the most probable token each time.

    As many tokens are written as the true answer has, half as many more and eight; of a plain text the second half is
    wanted. The texts written are not kept.

    Returns:
        Group -> (N,) recall, 0 to 1, NaN where the wanted answer has no word; and the cost: writing an answer is about
        one pass forward over it.
    """
    found: dict[str, Floats] = {}
    passes = 0.0
    for group, texts in material.texts.items():
        wanted = [_wanted(*parts) for parts in texts]
        lengths = [len(ids) for ids in material.task.tokenizer(wanted, add_special_tokens=False)["input_ids"]]
        most = [min(length * 3 // 2 + 8, material.task.max_length) for length in lengths]
        said = generate(model, material.task, texts, tokens=most, batch_size=material.batch_size)
        found[group] = rouge_l(said, wanted)
        passes += len(texts) / 3
    return found, passes


def _wanted(first: str, answer: str | None = None) -> str:
    return first[max(1, len(first) // 2) :] if answer is None else answer


def gradients(model: Any, material: Material) -> tuple[dict[str, Floats], float]:
    """Norm of the gradient of each record's mean loss with respect to all weights, in eval mode.

    One record at a time: the norm of a batch's gradient is not that of its records.

    Returns:
        ``forget`` and ``evaluation`` -> (N,) norms; and the cost in example-passes.
    """
    groups = {"forget": material.forget, "evaluation": material.evaluation}
    head = head_of(model, material.task, material.forget)
    where = next(model.parameters()).device
    was_training = model.training
    trained = {name: p.requires_grad for name, p in model.named_parameters()}
    model.eval().requires_grad_(True)
    found: dict[str, Floats] = {}
    try:
        for group, records in groups.items():
            norms = np.full(len(records), np.nan)
            for i in range(len(records)):
                batch = material.task.collate(records, [i]).to(where)
                if not len(batch.labels):
                    continue
                model.zero_grad(set_to_none=True)
                cross_entropy(head, head.run(model, batch), batch.labels).backward()
                parts = [
                    torch.linalg.vector_norm(p.grad, dtype=torch.float64)
                    for p in model.parameters()
                    if p.grad is not None
                ]
                norms[i] = float(torch.linalg.vector_norm(torch.stack(parts)))
            found[group] = norms
    finally:
        model.zero_grad(set_to_none=True)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(trained[name])
        model.train(was_training)
    return found, float(sum(map(len, groups.values())))
