"""What is done to models, or to their input, beside the shared pass: int8, relearning, other wordings and answers."""

from __future__ import annotations

import copy
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from expunge.audits.base import Tables
from expunge.deep.fact_file import FactFile
from expunge.deep.probing import answered
from expunge.head import head_of
from expunge.scoring import ScoreTable, score
from expunge.tasks.base import Encoded
from expunge.token_stress import alternatives, gradients, written
from expunge.token_sums import cross_entropy

__all__ = ["MOST", "RELEARNING_STEPS", "STRESSES", "Material", "quantised"]

MOST = 500
"""Held-out records that a relearning model is scored on, at most."""
RELEARNING_STEPS = (0, 1, 4, 16)
"""Steps after which a relearning model is scored."""
_RELEARNING_BATCH = 16


@dataclass(frozen=True)
class Material:
    """The records that stresses work with, the same for every model.

    Attributes:
        task: Collates records.
        forget: The forget records.
        calibration: Held-out records that relearning may train on.
        evaluation: Held-out records nothing is trained on.
        rewordings: How they were reworded -> group (``forget``, ``evaluation``) -> records in the order of that group.
        learning_rate: Learning rate of relearning: that of the fine-tuning, where it is known.
        batch_size: Records a forward pass.
        seed: Seed of relearning's split and order.
        alternatives: Group -> its records with the true answer in other words, and with each false answer.
        texts: Group -> its records' texts, which answers are written to.
        facts: Facts that a language model is asked, with their rules.
        targets: Positions of the facts that are forget records.
    """

    task: Any
    forget: Encoded
    calibration: Encoded
    evaluation: Encoded
    rewordings: Mapping[str, Mapping[str, Encoded]] = field(default_factory=dict)
    learning_rate: float = 5e-5
    batch_size: int = 64
    seed: int = 0
    alternatives: Mapping[str, Sequence[Encoded]] = field(default_factory=dict)
    texts: Mapping[str, Sequence[tuple[str, ...]]] = field(default_factory=dict)
    facts: FactFile | None = None
    targets: Sequence[int] = ()

    def scored(self, model: Any, groups: Mapping[str, Encoded]) -> tuple[Tables, float]:
        """Score tables of these groups (an empty one is left out), and their cost in example-passes."""
        groups = {name: records for name, records in groups.items() if len(records)}
        head = head_of(model, self.task, self.forget)

        def scored(records: Encoded) -> ScoreTable:
            return score(model, head, records, self.task, batch_size=self.batch_size, keep_hidden=False)

        return {name: scored(records) for name, records in groups.items()}, sum(map(len, groups.values())) / 3


def int8(model: Any, material: Material) -> tuple[Tables, float]:
    """Forget and evaluation records under the model at 8 bits."""
    return material.scored(quantised(model), {"forget": material.forget, "evaluation": material.evaluation})


def quantised(model: Any) -> Any:
    """A copy whose linear layers compute as dynamic int8 quantisation does.

    Weights are rounded to 255 symmetric steps an output channel, and a layer's input to as many a token when it runs.
    It is worked out in floating point, so that every device gives the same; torch's own `quantize_dynamic` is for CPUs,
    one scale a tensor, and deprecated.
    """
    from transformers.pytorch_utils import Conv1D

    made = copy.deepcopy(model)
    for module in made.modules():
        if isinstance(module, nn.Linear | Conv1D):
            with torch.no_grad():  # Conv1D keeps its weight the other way round: (inputs, outputs)
                module.weight.copy_(_rounded(module.weight, 0 if isinstance(module, Conv1D) else 1))
            module.register_forward_pre_hook(lambda _, args: (_rounded(args[0], -1), *args[1:]))
    return made


def _rounded(values: Tensor, dim: int) -> Tensor:
    step = values.abs().amax(dim=dim, keepdim=True) / 127
    return (values / torch.where(step > 0, step, 1)).round() * step


def relearned(model: Any, material: Material) -> tuple[Tables, float]:
    """A copy trained for a few steps on half of the forget records and as many new ones; scored on the way.

    AdamW at a constant learning rate, 16 records a step, without dropout: every model gets the same records in the same
    order.

    Returns:
        Tables ``"<group> after <k> steps"`` for each k of `RELEARNING_STEPS`, and the cost in example-passes. Groups:
        ``part`` (the half trained on), ``new`` (calibration records trained on with it, of the same classes where
        there are such), ``rest`` (the other half), ``evaluation`` (`MOST` of them).
    """
    rng = np.random.default_rng([material.seed, 8])
    drawn = rng.permutation(len(material.forget)).tolist()
    part, rest = drawn[: -(-len(drawn) // 2)], drawn[-(-len(drawn) // 2) :]
    new = _matched([material.forget.labels[i] for i in part], material.calibration.labels, rng)
    sources = [material.forget.take(part), material.calibration.take(new)]
    groups = {
        "part": sources[0],
        "new": sources[1],
        "rest": material.forget.take(rest),
        "evaluation": material.evaluation.take(rng.permutation(len(material.evaluation))[:MOST].tolist()),
    }
    made = copy.deepcopy(model).requires_grad_(True).eval()
    head = head_of(made, material.task, material.forget)
    where = next(made.parameters()).device
    optimizer = torch.optim.AdamW(made.parameters(), lr=material.learning_rate, weight_decay=0.0)
    tables, passes = {}, 0.0
    queue: list[tuple[int, int]] = []
    for step in range(max(RELEARNING_STEPS) + 1):
        if step in RELEARNING_STEPS:
            found, cost = material.scored(made, groups)
            tables |= {f"{group} after {step} steps": table for group, table in found.items()}
            passes += cost
        if step == max(RELEARNING_STEPS):
            break
        while len(queue) < _RELEARNING_BATCH:  # shuffled anew whenever all have been seen
            everyone = [(source, i) for source, records in enumerate(sources) for i in range(len(records))]
            queue += [everyone[i] for i in rng.permutation(len(everyone))]
        chosen, queue = queue[:_RELEARNING_BATCH], queue[_RELEARNING_BATCH:]
        optimizer.zero_grad()
        for source, records in enumerate(sources):
            own = [i for number, i in chosen if number == source]
            if own:
                batch = material.task.collate(records, own).to(where)
                loss = cross_entropy(head, head.run(made, batch), batch.labels) * len(own) / _RELEARNING_BATCH
                loss.backward()
        nn.utils.clip_grad_norm_(made.parameters(), 1.0)
        optimizer.step()
        passes += _RELEARNING_BATCH
    return tables, passes


def _matched(wanted: Sequence[Sequence[int]], labels: Sequence[Sequence[int]], rng: np.random.Generator) -> list[int]:
    """As many positions as are wanted, each of the same labels where one is left, else any."""
    by_labels: dict[tuple[int, ...], list[int]] = defaultdict(list)
    for position in rng.permutation(len(labels)).tolist():
        by_labels[tuple(labels[position])].append(position)
    found: list[int] = []
    missed = 0
    for own in wanted:
        if by_labels[tuple(own)]:
            found.append(by_labels[tuple(own)].pop())
        else:
            missed += 1
    left = [position for positions in by_labels.values() for position in positions]
    return found + [left[i] for i in rng.permutation(len(left))[:missed]]


def reworded(model: Any, material: Material) -> tuple[Tables, float]:
    """Tables ``"<group>, <how>"`` of forget and evaluation records whose wording was changed a little."""
    groups = {f"{group}, {how}": own for how, both in material.rewordings.items() for group, own in both.items()}
    return material.scored(model, groups)


def detected(model: Any, material: Material) -> tuple[Mapping[str, Any], float]:
    """How far the newest request's detector of an O3 model would load its adapters: (N,) in (0, 1); nothing of other models."""
    if not hasattr(model, "detector_weights"):
        return {}, 0.0
    from expunge.o3.request import prompts

    groups = {"forget": material.forget, "evaluation": material.evaluation}
    found = {g: model.detector_weights(prompts(records, material.task))[-1] for g, records in groups.items()}
    return found, sum(map(len, groups.values())) / 3


def asked_facts(model: Any, material: Material) -> tuple[dict[str, Any], float]:
    """Which facts a language model answers, as `answered` tells; with the facts and the targets, for the audit.

    Nothing where no facts are named. Cost: about a pass forward a fact, two where an answer has to be written.
    """
    facts = material.facts
    if facts is None:
        return {}, 0.0
    asked = [question for question in facts.questions if question is not None]
    known = answered(model, material.task, asked, batch_size=material.batch_size)
    found = {"facts": facts, "known": known, "targets": tuple(material.targets)}
    return found, (len(asked) + float((~known).sum())) / 3


STRESSES: dict[str, Callable[[Any, Material], tuple[Mapping[str, Any], float]]] = {
    "alternatives": alternatives,
    "detected": detected,
    "facts": asked_facts,
    "gradients": gradients,
    "int8": int8,
    "relearned": relearned,
    "reworded": reworded,
    "written": written,
}
"""By the name an audit's `needs` gives: a model -> its tables or values, and what they cost in example-passes."""
