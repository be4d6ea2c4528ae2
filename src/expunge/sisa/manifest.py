"""What a SISA folder says of itself (sisa.json), and how it knows records without naming them."""

from __future__ import annotations

import hashlib
import hmac
import json
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from expunge.config import Recipe
from expunge.errors import Problem, UsageError
from expunge.options import Options, PositiveInt, option
from expunge.sisa.plan import Plan
from expunge.tasks.base import Encoded
from expunge.versioned import read_versioned

__all__ = ["FILE", "Ledger", "Manifest", "Members"]

FILE = "sisa.json"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Members(Options):
    """What the members of an ensemble are.

    Attributes:
        auto_class: Name of a transformers auto class.
        label_names: Class names in order: fixed once, whatever is erased.
    """

    adapter: Literal["none", "lora"] = option("none", "none: a full copy a shard; lora: a LoRA adapter a shard")
    rank: PositiveInt = option(8, "rank of the LoRA adapters")
    auto_class: str = option("AutoModelForSequenceClassification", "a transformers auto class")
    label_names: tuple[str, ...] = option((), "class names in order")

    @classmethod
    def section(cls) -> str:
        return "sisa"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All a SISA folder must know to forget more. It holds no text and no raw id.

    Attributes:
        plan: Shards, slices, seed and epochs.
        recipe: Learning rate, batch size and so on; its epochs and seed are the plan's.
        members: Full copies or adapters, and of what.
        max_length: Tokens a text is cut to.
        base: What the base model was called.
        base_sha256: Hash of its copy in the folder.
        salt_check: Tells whether a salt is the one the folder was made with.
        counts: Records in each slice of each shard, the erased left out.
        contents: HMAC of what is in each of them, likewise.
        erased: HMAC of the ids erased so far, sorted.
        passes: Example-passes that each stage of each shard was trained with.
        requests: What each request cost.
        made_with: What the bits of its weights hang on, beside all this: versions, device, threads.
    """

    plan: Plan
    recipe: Recipe
    members: Members
    max_length: int
    base: str
    base_sha256: str
    salt_check: str
    counts: tuple[tuple[int, ...], ...]
    contents: tuple[tuple[str, ...], ...]
    erased: tuple[str, ...] = ()
    passes: tuple[tuple[int, ...], ...] = ()
    requests: tuple[dict[str, Any], ...] = ()
    made_with: dict[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """As `read` takes it back."""
        return json.dumps({"version": _VERSION, **asdict(self)}, indent=1) + "\n"

    @classmethod
    def read(cls, folder: str | Path, *, where: str = "model.path") -> Manifest:
        """The manifest of a folder.

        Raises:
            UsageError: It is broken, or of a newer Expunge.
        """

        def built(values: dict[str, Any]) -> Manifest:
            return cls(
                plan=Plan.build(values.pop("plan")),
                recipe=Recipe.build(values.pop("recipe")),
                members=Members.build(values.pop("members")),
                counts=_rows(values.pop("counts")),
                contents=_rows(values.pop("contents")),
                passes=_rows(values.pop("passes")),
                erased=tuple(values.pop("erased")),
                requests=tuple(values.pop("requests")),
                **values,
            )

        noun, writer = "the SISA folder", "expunge train-sisa"
        return read_versioned(folder, FILE, _VERSION, built, where=where, noun=noun, writer=writer)


def _rows(values: Sequence[Sequence[Any]]) -> tuple[tuple[Any, ...], ...]:
    return tuple(tuple(row) for row in values)


@dataclass(frozen=True)
class Ledger:
    """Knows records by what only the user's salt can make of them.

    Attributes:
        salt: The user's salt.
    """

    salt: bytes

    def mark(self, record_id: str) -> str:
        """HMAC-SHA256(salt, id); its first 12 digits are the pseudonym in records and reports."""
        return self._hmac(record_id.encode())

    def erased(self, manifest: Manifest, ids: Iterable[str]) -> set[str]:
        """Those of `ids` that were erased before.

        Raises:
            UsageError: The salt is not the one the folder was made with.
        """
        self.must_fit(manifest)
        gone = set(manifest.erased)
        return {record_id for record_id in ids if self.mark(record_id) in gone} if gone else set()

    def must_fit(self, manifest: Manifest) -> None:
        """Refuse another salt than that of the folder.

        Raises:
            UsageError: It is another.
        """
        if not hmac.compare_digest(self.check(), manifest.salt_check):
            what = "it is not the salt the SISA folder was made with, so records erased before cannot be told"
            raise UsageError(Problem("privacy.salt_file", what, "Name that salt: --salt-file FILE."))

    def check(self) -> str:
        """A word that tells this salt from others."""
        return self._hmac(b"expunge: salt of a SISA folder")

    def contents(self, plan: Plan, ids: Sequence[str], encoded: Encoded) -> tuple[tuple[str, ...], ...]:
        """HMAC of the ids, tokens and labels in each slice of each shard, whatever their order."""
        rows: dict[tuple[int, int], list[str]] = {}
        for i, record_id in enumerate(ids):
            types = None if encoded.token_types is None else list(encoded.token_types[i])
            units = None if encoded.units is None else list(encoded.units[i])
            row = [record_id, list(encoded.input_ids[i]), types, list(encoded.labels[i]), units]
            rows.setdefault(plan.place(record_id), []).append(json.dumps(row))
        return tuple(
            tuple(
                self._hmac("\n".join(sorted(rows.get((shard, number), []))).encode())
                for number in range(1, plan.slices + 1)
            )
            for shard in range(plan.shards)
        )

    def _hmac(self, message: bytes) -> str:
        return hmac.new(self.salt, message, hashlib.sha256).hexdigest()
