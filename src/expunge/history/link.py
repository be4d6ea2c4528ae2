"""One link of a history: what a request did, in canonical JSON, with the hash that names it and perhaps a signature."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

__all__ = ["SCHEMA", "BrokenLinkError", "Link", "canonical"]

SCHEMA = 1


class BrokenLinkError(ValueError):
    """Bytes that are no link as one is written; the message says why, in a phrase."""


def canonical(value: Any) -> bytes:
    """The one way in which a value is written: UTF-8 JSON, keys sorted, no white space, floats as Python's `repr`."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return text.encode()


@dataclass(frozen=True)
class Link:
    """One request of a history.

    Attributes:
        content: What is recorded of it, in plain values; see `expunge.history.entry`.
        signature: ``public_key`` and ``signature`` (hexadecimal) over the content's canonical JSON, or None.
    """

    content: Mapping[str, Any]
    signature: Mapping[str, str] | None = None

    @property
    def number(self) -> int:
        """Which request of the model it is, from 1."""
        return self.content["number"]

    @property
    def previous(self) -> str | None:
        """Hash of the link before; None of the first."""
        return self.content["previous"]

    @property
    def marks(self) -> tuple[str, ...]:
        """HMAC-SHA256(salt, id) of the erased records, sorted."""
        return tuple(self.content["request"]["marks"])

    @property
    def sha256(self) -> str:
        """Hash of the content: the next link names it, and that of the last one is the head of the history."""
        return hashlib.sha256(canonical(self.content)).hexdigest()

    @property
    def file_name(self) -> str:
        """Its file in the folder ``erasure``."""
        return f"{self.number:04}.json"

    def to_bytes(self) -> bytes:
        """The file: content, its hash and the signature, canonical, and a line break."""
        whole = {"content": self.content, "sha256": self.sha256, "signature": self.signature}
        return canonical(whole) + b"\n"

    @classmethod
    def from_bytes(cls, data: bytes) -> Link:
        """Read what `to_bytes` wrote, and nothing else: any byte that differs is an error.

        Raises:
            BrokenLinkError: It is no such file.
        """
        try:
            values = json.loads(data)
            content, told, signature = values["content"], values["sha256"], values["signature"]
            schema, link = content["schema"], cls(content, signature)
            own, whole, complete = link.sha256, link.to_bytes(), _is_complete(content)
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            raise BrokenLinkError("it is no link of a history") from None
        if schema != SCHEMA:
            raise BrokenLinkError(f"it has schema {schema!r:.20}, this version reads {SCHEMA}")
        if own != told:
            raise BrokenLinkError("its content is not what its own hash says: it was edited")
        if whole != data:
            raise BrokenLinkError("it is not written as links are: it was edited")
        if not complete:
            raise BrokenLinkError("it lacks what a link must say")
        return link


def _is_complete(content: Mapping[str, Any]) -> bool:
    """Whether all that readers of a history rely on is there, and of the right kind."""
    number, previous, model, marks = (
        content["number"],
        content["previous"],
        content["model"],
        content["request"]["marks"],
    )
    return (
        isinstance(number, int)
        and number > 0
        and isinstance(previous, str | None)
        and isinstance(content["salt_check"], str)
        and isinstance(content["when"], str)
        and isinstance(content["request"]["ids"], str)
        and isinstance(content["request"]["records"], int)
        and isinstance(content["method"]["name"], str)
        and isinstance(content["audit"]["outcome"], str)
        and all(isinstance(mark, str) for mark in marks)
        and all(isinstance(model[side], str) for side in ("before", "after"))
        and isinstance(model["files"], dict | None)
        and all(isinstance(value, str) for value in (model["files"] or {}).values())
    )
