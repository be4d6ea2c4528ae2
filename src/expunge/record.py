"""RunRecord: the one JSON a run leaves. It holds no record text, and no raw id unless asked for."""

from __future__ import annotations

import dataclasses
import json
import platform
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from expunge.errors import Problem, UsageError
from expunge.record_shape import lacking

__all__ = ["SCHEMA", "Finding", "Measurement", "RunRecord", "environment"]

SCHEMA = 1
_TABLES = (
    "config", "environment", "data", "request", "models", "training", "cost", "not_measured", "verdict", "figures", "timings",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measurement:
    """One figure of an audit.

    Attributes:
        audit: Which audit took it.
        name: What it is, e.g. ``accuracy``.
        model: ``original``, ``unlearned`` or ``retrained`` (the mean of the retrained models).
        group: Records it is about: ``forget``, ``retain``, ``evaluation``, or ``forget vs evaluation``.
        value: The figure.
        low: Lower end of its confidence interval.
        high: Upper end.
        n: Records behind it.
        unit: What a value of 1 means.
        direction: ``higher`` or ``lower`` is better, or ``as retrained``.
        gap: Absolute difference to the retrained models' mean, where there is one.
        noise_floor: The same difference among the retrained models (mean over them, each against the mean of the
            others), where there are several.
        compared: What stands behind it: ``retrain-compared`` (models retrained without the records) or
            ``population-only`` (records never seen, if anything).
    """

    audit: str
    name: str
    model: str
    group: str
    value: float
    low: float
    high: float
    n: int
    unit: str
    direction: str
    gap: float | None = None
    noise_floor: float | None = None
    compared: str = "population-only"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finding:
    """Something an audit holds against the unlearned model: what a reader must see beside the verdict.

    Attributes:
        audit: Which audit found it.
        kind: ``remembered`` or ``over-forgotten`` (both give the forget records away), ``trace`` (outputs look right, the
            inside does not), ``incomplete`` (something of the request stayed), ``harm`` (damage to other records),
            ``came back`` (records of an earlier request).
        sentence: What was found, with its figures; no record text, no raw id.
    """

    audit: str
    kind: str
    sentence: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunRecord:
    """Everything a run has to tell, in plain values.

    Attributes:
        config: The resolved configuration.
        environment: Versions and platform.
        data: Counts and hashes of the data; how held-out was split.
        request: Counts of the request, its duplicates and missing ids.
        models: Where each model came from and the hash of its weights.
        training: Steps, parts of the loss, checks of the stop rule, why it ended.
        cost: Example-passes, and their ratio to retraining.
        measurements: What the audits measured.
        not_measured: Audit -> why it has no figure.
        verdict: Evidence class, outcome, criteria, and a sentence.
        figures: Data of the report's figures.
        findings: What audits hold against the unlearned model.
        history: Which request of the model this was, and what is known of the earlier ones; empty in records of versions
            that kept none.
        records: One row a forget record: shown id, and what the models say of it.
        timings: Wall-clock seconds a stage, and when the run began (seconds since 1970, UTC). The only part that differs
            between two equal runs.
        schema: Version of this layout.
    """

    config: dict[str, Any]
    environment: dict[str, str]
    data: dict[str, Any]
    request: dict[str, Any]
    models: dict[str, Any]
    training: dict[str, Any]
    cost: dict[str, Any]
    measurements: tuple[Measurement, ...]
    not_measured: dict[str, str]
    verdict: dict[str, Any]
    figures: dict[str, Any]
    records: tuple[dict[str, Any], ...]
    timings: dict[str, float]
    findings: tuple[Finding, ...] = ()
    history: dict[str, Any] = dataclasses.field(default_factory=dict)
    schema: int = SCHEMA

    def to_json(self) -> str:
        """Indented JSON with sorted keys; no NaN."""
        return (
            json.dumps(dataclasses.asdict(self), indent=1, sort_keys=True, allow_nan=False, ensure_ascii=False) + "\n"
        )

    @classmethod
    def from_json(cls, text: str) -> RunRecord:
        """Read what `to_json` wrote.

        Raises:
            UsageError: Not such a file, or of another schema.
        """
        try:
            values = json.loads(text)
            if values["schema"] != SCHEMA:
                what = f"it has schema {values['schema']}, this version reads {SCHEMA}"
                raise UsageError(Problem("record.json", what, "Use the version of Expunge that wrote it."))
            values["measurements"] = tuple(Measurement(**row) for row in values["measurements"])
            values["findings"] = tuple(Finding(**row) for row in values.get("findings", ()))
            values["records"] = tuple(values["records"])
            if wrong := [name for name in _TABLES if not isinstance(values[name], dict)]:
                raise ValueError(f'its "{wrong[0]}" is no table')
            if what := lacking(values):
                raise ValueError(f'it lacks something of "{what}"')
            if values["verdict"]["evidence"] not in values["verdict"]["classes"]:
                raise ValueError("its verdict is of no class")
            return cls(**values)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            reason = f" ({error})" if type(error) is ValueError else ""  # ours; json raises one of its own
            what = f"it is no run record{reason}"
            way_out = "Give a folder or a record.json that `expunge run` wrote."
            raise UsageError(Problem("record.json", what, way_out)) from None

    @classmethod
    def read(cls, path: str | Path) -> RunRecord:
        """The record in a folder written by a run, or in a record.json.

        Raises:
            UsageError: There is none.
        """
        try:
            file = Path(path) / "record.json" if Path(path).is_dir() else Path(path)
            return cls.from_json(file.read_text(encoding="utf-8"))
        except (OSError, UnicodeDecodeError):
            way_out = "Give a folder that `expunge run` wrote, or its record.json."
            raise UsageError(Problem(str(path), "there is no record.json to read", way_out)) from None

    def find(self, name: str, model: str, group: str) -> Measurement | None:
        """The measurement of that name, model and group, if there is one."""
        wanted = (name, model, group)
        return next((m for m in self.measurements if (m.name, m.model, m.group) == wanted), None)


def environment() -> dict[str, str]:
    """Versions of what a result depends on."""
    packages = ("expunge", "torch", "transformers", "accelerate", "tokenizers", "numpy", "scipy", "scikit-learn")
    found = {"python": platform.python_version(), "platform": f"{platform.system()} {platform.machine()}"}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            found[package] = "not installed"
    return found
