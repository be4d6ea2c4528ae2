"""Membership attacks on the tokens of a causal language model."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from expunge.audits.base import Audit, AuditContext, AuditResult, attack
from expunge.options import Share, option
from expunge.record import Finding, Measurement
from expunge.scoring import ScoreTable
from expunge.stats import auc
from expunge.token_attacks import min_k, min_k_plus_plus, priv_leak, zlib

__all__ = ["TokenMembership"]

Read = Callable[[ScoreTable], np.ndarray]


@dataclass(frozen=True, kw_only=True)
class TokenMembership(Audit):
    """What attackers who look at single tokens make of forget records beside records never seen.

    zlib: the loss beside the size of the compressed text (Carlini et al., arXiv 2012.07805). Min-K: the mean of the least
    probable tokens (Shi et al., arXiv 2310.16789). Min-K++: the same, each token standardised by the whole distribution at its
    place (Zhang et al., arXiv 2404.02936). The loss alone is the audit `membership`. Each with its AUC (0.5 when forget records
    look like records never seen; DeLong's interval) and TPR at 1 % FPR (Clopper-Pearson). Beside retrained models also PrivLeak
    (MUSE, arXiv 2407.06460) of Min-K: the AUC's distance to theirs in per cent of it, 0 when it is the same, below 0 when
    records are remembered, above it when they are over-forgotten.

    Finding: the AUC's interval lies off 0.5; beside retrained models, that of the difference to them off 0.
    """

    share: Share = option(0.2, "share of a record's tokens that Min-K and Min-K++ look at")

    def run(self, context: AuditContext) -> AuditResult:
        groups = ["forget", "evaluation"]
        first = context.models["original"][0]
        if not all(first[group].of_tokens for group in groups):
            return AuditResult(not_measured="the model writes no tokens")
        attacks: dict[str, Read] = {"Min-K": self._min_k, "Min-K++": self._min_k_plus_plus}
        if all(first[group].compressed is not None for group in groups):
            attacks["zlib"] = _zlib
        rows: list[Measurement] = []
        findings: list[Finding] = []
        left_out: dict[str, str] = {}
        for name, read in attacks.items():
            found = attack(context, "token-membership", name, read)
            rows += found.measurements
            findings += found.findings
            left_out |= found.left_out
        if context.models["retrained"]:
            rows += self._priv_leak(context)
        else:
            left_out["PrivLeak"] = "takes a retrained model"
        return AuditResult(rows, findings=findings, left_out=left_out)

    def _min_k(self, table: ScoreTable) -> np.ndarray:
        return min_k(-table.losses, table.offsets, self.share)

    def _min_k_plus_plus(self, table: ScoreTable) -> np.ndarray:
        assert table.spread is not None
        return min_k_plus_plus(-table.losses, table.spread[:, 0], table.spread[:, 1], table.offsets, self.share)

    def _priv_leak(self, context: AuditContext) -> list[Measurement]:
        groups = ["forget", "evaluation"]
        base = float(np.mean(context.values("retrained", groups, self._min_k, auc)))
        rows = []
        for model in ("original", "unlearned"):
            found = context.auc(model, groups, self._min_k)
            ends = sorted(priv_leak(value, base) for value in (found.low, found.high))
            value = priv_leak(found.value, base)
            if not np.isfinite([value, *ends]).all():
                return []
            rows.append(Measurement(
                audit="token-membership", name="PrivLeak of Min-K", model=model, group="forget vs evaluation",
                value=value, low=ends[0], high=ends[1], n=sum(len(context.models[model][0][g]) for g in groups),
                unit="per cent", direction="as retrained", gap=abs(value), noise_floor=None, compared="retrain-compared",
            ))  # fmt: skip
        return rows


def _zlib(table: ScoreTable) -> np.ndarray:
    assert table.compressed is not None
    return zlib(-table.losses, table.offsets, table.compressed)
