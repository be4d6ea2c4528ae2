"""Calibrated DeepCUT for language models: distil forget records from the model on its way back to its base."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from expunge.errors import Problem, UsageError
from expunge.methods.base import Method, MethodContext, State
from expunge.options import NonNegative, Positive, PositiveInt, option
from expunge.retain_term import RETAIN, Retain, retained

if TYPE_CHECKING:
    from torch import Tensor

    from expunge.step import Step

__all__ = ["RewoundDeepCUT"]


@dataclass(frozen=True, kw_only=True)
class RewoundDeepCUT(Method):
    """Give each token of a forget record the distribution that a model would give it that knows the manner, not the record.

    The teacher is the original itself with its weights moved back toward its base (`retrain.base`), just so far that forget
    records have the loss there that records never seen have under the original: memory of single records fades sooner on the
    way back than the manner of all of them. Formula::

        L = retain_weight * KL(original || model)(retain) + gamma * KL(teacher || model)(forget)
              + contrast * mean_i CE(w_i, softmax(s_i / tau))

    The first two are means over tokens. The third is DeepCUT's term in the latent space with partners weighted by what the
    token should be, not all pushed away: s_ic is the cosine of the last hidden state and the output layer's row of token c,
    over the tokens of the step, w_i the teacher's probabilities of these.

    How far: the share a of the way from base to original at which the mean loss of the forget records is that of as many
    calibration records under the original, by four looks (`expunge.rewinding`). No retrained model and no evaluation
    record is used.

    Source: after DeepCUT (He et al. 2025, arXiv 2503.14900); the rewound model is WiSE-FT's interpolation (Wortsman et al.,
    arXiv 2109.01903) read the other way.

    Ours: all of it. Teacher and original are never held as second models: their last hidden states at the units and their
    output layers give their logits exactly.

    Failure signs: forget records that differ in kind from the calibration records get the wrong loss; where the base knows
    them as well as the original does, nothing is to be moved.

    Example:
        >>> RewoundDeepCUT(contrast=0.0).retain
        'kl'
    """

    gamma: NonNegative = option(1.0, "weight of the teacher's distributions of forget records")
    contrast: NonNegative = option(0.0, "weight of the contrastive term toward rows weighted by the teacher")
    temperature: Positive = option(0.1, "tau of the contrastive term")
    retain: Retain = option("kl", RETAIN)
    retain_weight: NonNegative = option(1.0, "weight of what holds the retained records")
    retain_ratio: PositiveInt = option(1, "retained records drawn for each forget record")
    dropout: bool = option(False, "dropout during unlearning")

    units: ClassVar[frozenset[str]] = frozenset({"tokens"})
    rewinds: ClassVar[bool] = True
    needs: ClassVar[frozenset[str]] = frozenset({"forget.logits"})

    @property
    def reads(self) -> frozenset[str]:
        return super().reads | ({"forget.hidden"} if self.contrast else set())

    def prepare(self, context: MethodContext) -> State:
        import torch

        from expunge.rewinding import rewound_to

        assert context.states is not None, "language models give states of their tokens"
        if not len(context.unseen):
            way_out = "Give held-out records (data.held_out): half of them are calibration records."
            raise UsageError(Problem("method", "deepcut-rewound needs records that were never trained on", way_out))

        def at(share: float) -> tuple[Tensor, Tensor]:
            assert context.states is not None
            model = context.rewound(share)
            if model is None:
                way_out = "Name the model the original was fine-tuned from: --base PATH (retrain.base)."
                raise UsageError(Problem("method", "deepcut-rewound needs the base model", way_out))
            return context.states(model, context.forget)

        wanted = -float(context.states(context.model, context.unseen)[0].mean())
        learnt = -float(context.states(context.model, context.forget)[0].mean())
        share = rewound_to(wanted, lambda share: -float(at(share)[0].mean()), learnt=learnt)
        teacher = context.rewound(share)
        assert teacher is not None
        _, hidden = context.states(teacher, context.forget)
        layer = teacher.get_output_embeddings()
        state = {"hidden": hidden, "head": layer.weight.detach().clone(), "share": torch.tensor(share)}
        return state if layer.bias is None else {**state, "bias": layer.bias.detach().clone()}

    def loss(self, step: Step) -> dict[str, Tensor]:
        import torch
        from torch.nn import functional

        from expunge import losses

        forget, state = step.forget, step.state
        hidden = forget.of_units(state["hidden"])
        head = state["head"].to(hidden.device)
        bias = state["bias"].to(hidden.device) if "bias" in state else None

        def apart(logits: Tensor, teacher: Tensor) -> Tensor:
            told = functional.linear(teacher.to(head.dtype), head, bias).to(logits.dtype).log_softmax(dim=-1)
            return functional.kl_div(logits.log_softmax(dim=-1), told, reduction="none", log_target=True).sum(dim=-1)

        terms = forget.per_unit(apart, hidden)
        parts = {
            **retained(step, self.retain, self.retain_weight),
            "forget": self.gamma * terms.sum() / max(1, len(terms)),
        }
        if self.contrast and len(terms):
            assert forget.head is not None
            tokens = torch.cat([forget.labels, step.retain.labels]).unique()
            rows = forget.head.module.weight.detach()[tokens]
            told = functional.linear(hidden.to(head.dtype), head[tokens], None if bias is None else bias[tokens])
            similarity = losses.cosine(forget.hidden, rows.to(forget.hidden.dtype)) / self.temperature
            away = -(told.softmax(dim=-1).to(similarity.dtype) * similarity.log_softmax(dim=-1)).sum(dim=-1)
            parts["contrast"] = self.contrast * away.mean()
        return parts

    def counts(self, step: Step) -> dict[str, float]:
        return {"rewound_to": float(step.state["share"])}
