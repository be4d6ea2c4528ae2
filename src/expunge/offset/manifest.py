"""What an offset folder says of itself (offset.json)."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expunge.versioned import read_versioned

__all__ = ["FILE", "Large", "Manifest"]

FILE = "offset.json"
_VERSION = 1


@dataclass(frozen=True, kw_only=True)
class Large:
    """The large model.

    Attributes:
        path: Whole path of its folder, or hub id; empty where it is in this folder, or a black box.
        sha256: Hash of its weights in `dtype` (`expunge.models.weights_sha256`); empty for a black box.
        dtype: Precision they were saved in.
        copied: Whether a copy of it is in this folder.
    """

    path: str = ""
    sha256: str = ""
    dtype: str = "float32"
    copied: bool = False


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All that is needed to put the three models together again. It holds no text and no id.

    Attributes:
        alpha: Weight of the offset.
        auto_class: Name of the transformers auto class of all three.
        small: What the small pair was made from, in words.
        large: The large model.
    """

    alpha: float
    auto_class: str
    small: str
    large: Large

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
            return cls(large=Large(**values.pop("large")), **values)

        return read_versioned(folder, FILE, _VERSION, built, where=where, noun="the offset folder")
