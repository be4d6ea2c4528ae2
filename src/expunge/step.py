"""One optimisation step as a method sees it: the scores of its units, forget and retain."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from expunge import losses
from expunge.collectives import everywhere
from expunge.errors import UndeclaredNeedError
from expunge.scoring import margins
from expunge.token_head import TokenHead, in_parts
from expunge.token_sums import label_logp, made_once, summed

if TYPE_CHECKING:
    from expunge.reference import Reference

__all__ = ["Scores", "Step"]


class Scores:
    """What a model says of one group's units, flat: a row is a view of a unit.

    Where units are tokens, logits exist only a part of the units at a time: `logp`, `cross_entropy`, `kl`, `kl_from`,
    `total` and `per_unit` never hold them all; reading `logits` does.

    Attributes:
        labels: (U,) class of each unit.
        record_index: (U,) position of the unit's record among all records of its group; views share it.
        unit_index: (U,) number of the unit among all units of its group; views share it.
        several_units: Whether units are parts of records, as a tagger's words are.
        head: Makes the logits of tokens; None for classifiers, whose logits are at hand.

    Args:
        own: Which units are of this process, where several share a step; left out: all.
    """

    def __init__(
        self,
        *,
        hidden: Tensor,
        logits: Tensor | None,
        labels: Tensor,
        record_index: Tensor,
        unit_index: Tensor,
        allowed: Iterable[str],
        group: str,
        several_units: bool = False,
        reference: Reference | None = None,
        queued: tuple[Tensor, Tensor] | None = None,
        head: TokenHead | None = None,
        layer: Tensor | None = None,
        own: slice = slice(None),
    ) -> None:
        self._hidden = hidden
        self._logits = logits
        self.labels = labels
        self.record_index = record_index
        self.unit_index = unit_index
        self._allowed = frozenset(allowed)
        self._group = group
        self.several_units = several_units
        self._reference = reference
        self._queued = queued
        self.head = head
        self._layer = layer
        self._own = own
        self._known_logp: Tensor | None = None

    def _declared(self, what: str) -> None:
        need = f"{self._group}.{what}"
        if need not in self._allowed:
            raise UndeclaredNeedError(f'the method reads "{need}" without naming it in its needs')

    @property
    def hidden(self) -> Tensor:
        """(U, H) input of the last linear layer."""
        self._declared("hidden")
        return self._hidden

    @property
    def partners(self) -> tuple[Tensor, Tensor]:
        """(P, H) `hidden` and (P,) labels of what a contrastive term compares with.

        The units, and behind them without a graph: of classifiers recent ones of the classes that these units lack, of tokens
        the rows of the output layer that stand for the tokens of the step.
        """
        self._declared("hidden")
        if self._queued is None:
            return self._hidden, self.labels
        hidden, labels = self._queued
        return torch.cat([self._hidden, hidden.to(self._hidden.dtype)]), torch.cat([self.labels, labels])

    def of_units(self, values: Tensor) -> Tensor:
        """(U, ...) rows of a method's state, which has one a unit of the group, that belong to these units."""
        return values.to(self.unit_index.device)[self.unit_index]

    def averaged_over(self, average: str) -> Tensor | None:
        """(U,) classes to average a term over first, or None for its plain mean over units.

        Args:
            average: ``"classes"``, ``"units"``, or ``"auto"``: classes where records have several units that are no tokens.
        """
        auto = self.several_units and self.head is None
        return self.labels if average == "classes" or (average == "auto" and auto) else None

    @property
    def logits(self) -> Tensor:
        """(U, C) outputs of the last linear layer."""
        self._declared("logits")
        if self._logits is None:
            assert self.head is not None
            return self._in_parts(self.head.logits, self._hidden)
        return self._logits

    @property
    def layer(self) -> Tensor:
        """(U, H) states behind the layer that the method names."""
        self._declared("layer")
        assert self._layer is not None
        return self._layer

    def per_unit(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """``function(logits, *rows)`` of all units, where they are tokens a part of them at a time.

        Args:
            function: Takes (n, C) logits and n rows of each of `rows`; gives (n, ...).
            rows: (U, ...) each.

        Returns:
            (U, ...).
        """
        self._declared("logits")
        head = self.head
        if head is None:
            return function(self.logits, *rows)

        def part(hidden: Tensor, *own: Tensor) -> Tensor:
            return function(head.logits(hidden), *own)

        return self._in_parts(part, self._hidden, *rows)

    def _in_parts(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """`in_parts` over all units, of which each process does its own."""
        assert self.head is not None
        vocabulary = self.head.module.out_features
        mine = [row[self._own] for row in rows]
        return everywhere(in_parts(function, len(mine[0]), vocabulary, *mine))

    def total(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """Sum over units of what `per_unit` gives, cheaper where they are tokens: their logits are made once, not twice.

        Args:
            function: Takes (n, C) logits and n rows of each of `rows`; gives (n,).
            rows: (U, ...) each, without a gradient.
        """
        return self._total(function, *rows)[0]

    def _total(self, function: Callable[..., Tensor], *rows: Tensor) -> tuple[Tensor, Tensor]:
        """As `total`; and the (U,) terms, without a gradient."""
        self._declared("logits")
        head = self.head
        if head is None or not made_once(head):
            terms = self.per_unit(function, *rows)
            return terms.sum(), terms.detach()
        value, terms = summed(head, function, self._hidden[self._own], *(row[self._own] for row in rows))
        return everywhere(value[None]).sum(), everywhere(terms)

    def per_unit_with_reference(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """As `per_unit`, for ``function(logits, reference logits, *rows)``."""
        return self.per_unit(*self._with_reference(function), *rows)

    def total_with_reference(self, function: Callable[..., Tensor], *rows: Tensor) -> Tensor:
        """As `total`, for ``function(logits, reference logits, *rows)``."""
        return self.total(*self._with_reference(function), *rows)

    def _with_reference(self, function: Callable[..., Tensor]) -> tuple[Callable[..., Tensor], Tensor]:
        """The function of what is kept of the original, and that."""
        self._declared("reference")
        assert self._reference is not None, "these scores were made without a reference"
        if self.head is None:
            return function, self.reference
        frozen, hidden = self._reference.hidden(self._group, self.record_index, self.unit_index)

        def both(logits: Tensor, before: Tensor, *own: Tensor) -> Tensor:
            return function(logits, frozen(before).to(logits.dtype), *own)

        return both, hidden

    def logp(self, labels: Tensor | None = None) -> Tensor:
        """(U,) log-probabilities of the labels, or of (U,) others, in nats."""
        wanted = self.labels if labels is None else labels
        if self.head is not None and made_once(self.head):
            self._declared("logits")
            found = everywhere(label_logp(self.head, self._hidden[self._own], wanted[self._own]))
        else:
            found = self.per_unit(_logp, wanted)
        if labels is None:
            self._known_logp = found.detach()
        return found

    @property
    def reference_logp(self) -> Tensor:
        """(U,) log-probabilities of the labels under the untouched original, in nats, without a graph."""
        self._declared("reference_logp")
        assert self._reference is not None, "these scores were made without a reference"
        return self._reference.logp(self._group, self.record_index, self.unit_index, self.labels)

    @property
    def reference_layer(self) -> Tensor:
        """(U, H) states of the untouched original behind the layer that the method names, without a graph."""
        self._declared("reference_layer")
        assert self._reference is not None, "these scores were made without a reference"
        return self._reference.hidden(self._group, self.record_index, self.unit_index)[1]

    @property
    def place_in_record(self) -> Tensor:
        """(U,) how many units of its record come before each unit."""
        if not len(self.unit_index):
            return self.unit_index
        _, place = self.record_index.unique(return_inverse=True)
        first = torch.full((int(place.max()) + 1,), int(self.unit_index.max()), device=place.device)
        return self.unit_index - first.scatter_reduce(0, place, self.unit_index, "amin")[place]

    def kl(self) -> Tensor:
        """Mean over units of KL(original || model), in nats; 0 without units."""
        return self.total_with_reference(_kl) / max(1, len(self.labels))

    def records(self) -> np.ndarray:
        """(rows,) positions, among all records of the group, of the rows that `record_margins` gives."""
        each = self._logits is not None and not self.several_units
        return (self.record_index if each else self.record_index.unique()).cpu().numpy()

    def record_margins(self) -> np.ndarray:
        """(rows,) log-odds of each row's record, in nats, as `ScoreTable.record_margins`; for those who only look on.

        Of tokens, what the method's loss has read already is not made again: ask after it.
        """
        with torch.no_grad():
            if self._logits is None:
                assert self.head is not None
                head, known = self.head, self._known_logp
                losses_ = -(
                    self._in_parts(lambda h, labels: _logp(head.logits(h), labels), self._hidden, self.labels)
                    if known is None
                    else known
                ).double()
            else:
                found = margins(self._logits.double(), self.labels)
                if not self.several_units:
                    return found.cpu().numpy()
                losses_ = functional.softplus(-found)
            _, place = self.record_index.unique(return_inverse=True)
            sums, counts = (
                torch.zeros(int(place.max()) + 1, dtype=losses_.dtype, device=losses_.device).index_add(
                    0, place, values
                )
                for values in (losses_, torch.ones_like(losses_))
            )
            loss = (sums / counts).clamp(min=1e-300)
            return (-loss - torch.log(-torch.expm1(-loss))).cpu().numpy()

    @property
    def reference(self) -> Tensor:
        """(U, C) logits of the untouched original, in eval mode and without a graph."""
        self._declared("reference")
        if self._reference is None:
            raise UndeclaredNeedError(f"these {self._group} scores were made without a reference")
        found = self._reference.logits(self._group, self.record_index, self.unit_index)
        return found.to(self._hidden.dtype)

    def cross_entropy(self, labels: Tensor | None = None) -> Tensor:
        """Mean negative log-probability of the labels, or of (U,) others, over the units, in nats; 0 without units."""
        wanted = self.labels if labels is None else labels
        if self.head is not None:
            value, terms = self._total(_logp, wanted)
            if labels is None:
                self._known_logp = terms
            return -value / max(1, len(wanted))
        return functional.cross_entropy(self.logits, wanted, reduction="sum") / max(1, len(wanted))

    def kl_from(self, teacher: Tensor, temperature: float = 1.0) -> Tensor:
        """Mean over units of KL(teacher || model), in nats, for (U, C) teacher logits, both divided by the temperature."""
        return losses.kl(teacher.to(self.logits.dtype) / temperature, self.logits / temperature)


def _logp(logits: Tensor, labels: Tensor) -> Tensor:
    return logits.log_softmax(dim=-1).gather(1, labels[:, None]).squeeze(1)


def _kl(logits: Tensor, reference: Tensor) -> Tensor:
    p, q = reference.log_softmax(dim=-1), logits.log_softmax(dim=-1)
    return functional.kl_div(q, p, reduction="none", log_target=True).sum(dim=-1)


@dataclass(frozen=True)
class Step:
    """One optimisation step as a method sees it: all anchors and all partners of the global step.

    Attributes:
        forget: Units of the records to forget, each record as often as the method asks for views.
        retain: Units of the retained partners drawn for them.
        number: Count of optimisation steps done before this one.
        state: What the method's `prepare` made.
        alternate: Units of the forget records with other answers, where the method makes some.
    """

    forget: Scores
    retain: Scores
    number: int
    state: Mapping[str, Tensor] = field(default_factory=dict)
    alternate: Scores | None = None
