"""O3: an adapter and a detector a request, so that requests can keep coming where the retained data are gone."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from expunge.methods.base import Procedure, ProcedureContext
from expunge.options import Fraction, NonNegative, Positive, PositiveInt, option
from expunge.preference import REFUSALS, reanswering

if TYPE_CHECKING:
    from expunge.methods.base import MethodContext
    from expunge.tasks.base import Encoded

__all__ = ["O3"]

_DETECTOR = ("gamma", "nu", "zeta", "layers", "least")


@dataclass(frozen=True, kw_only=True)
class O3(Procedure):
    """Train a LoRA adapter to answer the request wrongly, and a detector that says for which inputs to load it.

    Formula: ``h' = W h + sum_t w_t(x) A_t B_t h`` in every linear layer, w_t(x) by request t's detector. An adapter:
    ``CE(forget, wrong targets) + orthogonality * sum over layers and earlier requests of ||A_prev^T A||_F^2``; targets are a
    class drawn evenly from the others, or a refusal. A detector: an encoder fitted with contrastive entropy plus masked
    tokens, Mahalanobis plus gamma times cosine distance in its layers, a one-class SVM on these, and the weight of Eq. 13.
    The parts are in `expunge.o3`.

    Source: Gao et al. 2025, "On Large Language Model Continual Unlearning", ICLR, arXiv 2407.10223, Eq. 3 to 13.

    Ours: each adapter is loaded by its own request's detector. The paper has ``W h + w(x) A B h`` with ``w(x) = max_t
    w_t(x)``, one weight for all (``load = "all"``); there a later request's adapter, loaded too, can bring back what an
    earlier one took. The paper's penalty is on the up-projection (its A), its code's on the down-projection: ``projection``.
    Wrong classes are never the record's own; the code may draw it. An adapter a request, which no later one changes; the code
    goes on with one. All epochs and no choice among checkpoints; the code keeps the one that is best on retained topics. No
    thresholds on w; the released evaluation has some set by hand. The detector looks at the encoder's last layer, the paper's
    at every one (``layers = "all"``); w falls to 0, the paper's to an eighth (``least = "paper"``). Covariance by Ledoit and
    Wolf; distances counted from the farthest record, with the paper's sign; both spreads pooled; in the end distances are
    from all of the request's records. Rank, orthogonality, gamma, nu and zeta are the paper's, epochs of the adapter too;
    learning rates are not.

    Failure signs: it changes no weight of the original: all that was known is still in the folder, and who loads the original
    without adapters has it. Records of the request's kind that nobody asked to forget are answered wrongly too. An input
    worded unlike the request is not detected. Inputs from elsewhere that are like the request load a part of its adapter, and
    with many requests that adds up. A detector keeps states of the request's records, and costs every input a pass.

    Example:
        >>> O3(rank=4).projection
        'up'
    """

    rank: PositiveInt = option(8, "rank of the adapters")
    orthogonality: NonNegative = option(0.1, "lambda: weight of the overlap with earlier requests' adapters")
    projection: Literal["up", "down"] = option(
        "up", "projection that is kept apart: up, as in the paper; down, as in its code"
    )
    epochs: Positive = option(15.0, "passes over the request; all are made")
    learning_rate: Positive = option(1e-3, "learning rate of the adapter")
    batch_size: PositiveInt = option(16, "records a step")
    answers: tuple[str, ...] = option(REFUSALS, "causal LM: answers to give instead, one drawn for each record")
    load: Literal["own", "all"] = option(
        "own", "adapters by their own request's detector each; all: all of them by the largest weight, as in the paper"
    )
    encoder: str | None = option(
        None, "the detector's encoder: folder or hub id; left out: the model's own, where it is an encoder"
    )
    encoder_epochs: Positive = option(2.0, "passes over the request that fit the encoder")
    encoder_learning_rate: Positive = option(1e-4, "learning rate of the encoder's adapter")
    encoder_rank: PositiveInt = option(8, "its rank")
    masked: Fraction = option(0.15, "share of tokens masked in it")
    gamma: NonNegative = option(1000.0, "weight of the cosine beside the Mahalanobis distance")
    nu: Fraction = option(0.1, "share of the request that the one-class SVM may leave outside, at most")
    zeta: Positive = option(10.0, "how sharply the weight falls with the distance")
    layers: Literal["last", "all"] = option(
        "last", "layers of the encoder that the detector looks at; all: the paper's"
    )
    least: Literal["zero", "paper"] = option(
        "zero", "what the weight falls to far from the request; paper: sigmoid(-2), an eighth"
    )

    audits: ClassVar[tuple[str, ...]] = ("detector",)

    def run(self, context: ProcedureContext) -> Any:
        from expunge.o3.encoder import Tuning
        from expunge.o3.request import Learning, append

        return append(
            context.model, context.task, records=context.forget, targets=self._targets(context.prepared()),
            ids=context.forget_ids,
            learning=Learning(
                self.rank, self.orthogonality, self.projection, self.epochs, self.learning_rate, self.batch_size
            ),
            tuning=Tuning(self.encoder_epochs, self.encoder_learning_rate, self.encoder_rank, self.masked),
            encoder=self.encoder, load=self.load, detector={name: getattr(self, name) for name in _DETECTOR},
            settings={name: value for name, value in self.values().items() if name not in ("encoder", "answers")},
            seed=context.seed, spend=context.spend, note=context.note, paused=context.paused,
        )  # fmt: skip

    def _targets(self, context: MethodContext) -> Encoded:
        """The request's records with what they are to be answered with."""
        if context.tokens:
            drawn = [self.answers[int(u * len(self.answers))] for u in context.uniform_by_record("o3")]
            return reanswering(context, "o3")(drawn)
        classes = context.other_classes("o3").tolist()
        ends = context.forget.offsets
        return replace(context.forget, labels=[classes[a:b] for a, b in pairwise(ends)])
