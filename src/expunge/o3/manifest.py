"""What an O3 folder says of itself (o3.json). It holds no text and no id."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from expunge.versioned import read_versioned

__all__ = ["FILE", "Manifest", "request_name"]

FILE = "o3.json"
_VERSION = 1


def request_name(number: int) -> str:
    """Name of a request's adapters and folder, counted from 1."""
    return f"request-{number}"


@dataclass(frozen=True, kw_only=True)
class Manifest:
    """All an O3 folder must know to forget more.

    Attributes:
        auto_class: Name of the original's transformers auto class.
        original_sha256: Hash of the original's weights, which no request changes.
        encoder: ``own``, or what the user called the detectors' encoder.
        encoder_sha256: Hash of its weights.
        load: ``own`` where each adapter is loaded by its own request's detector, ``all`` where all are by the largest weight.
        length: Tokens the detectors read, at most.
        frame: Tokens that the prompt template puts before and behind every prompt.
        requests: What was asked, and what it took: one a request.
    """

    auto_class: str
    original_sha256: str
    encoder: str
    encoder_sha256: str
    load: str
    length: int
    frame: tuple[tuple[int, ...], tuple[int, ...]] = ((), ())
    requests: tuple[dict[str, Any], ...] = ()

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
            before, behind = values.pop("frame")
            requests = tuple({**request, "rank": int(request["rank"])} for request in values.pop("requests"))
            return cls(frame=(tuple(before), tuple(behind)), requests=requests, **values)

        return read_versioned(folder, FILE, _VERSION, built, where=where, noun="the O3 folder")
