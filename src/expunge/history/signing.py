"""Ed25519 signatures of links (RFC 8032), by `cryptography`, which is an optional extra."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from expunge.errors import Problem, UsageError
from expunge.history.link import Link, canonical

__all__ = ["INSTALL", "PASSWORD", "Signer", "available", "fingerprint", "is_valid", "read_public_key", "read_signer"]

INSTALL = "Install it: pip install cryptography."
PASSWORD = "EXPUNGE_KEY_PASSWORD"  # the name of an environment variable
_MAKE = (
    "openssl genpkey -algorithm ed25519 -out key.pem makes one, and openssl pkey -in key.pem -pubout its public half."
)


@dataclass(frozen=True)
class Signer:
    """A private key that signs links.

    Attributes:
        key: Of `cryptography`.
        public: Its public half, 32 bytes in hexadecimal.
    """

    key: Any
    public: str

    @property
    def fingerprint(self) -> str:
        """What the link itself says of its signer."""
        return fingerprint(self.public)

    def sign(self, content: Mapping[str, Any]) -> Link:
        """The link with this content, signed."""
        signature = self.key.sign(canonical(content)).hex()
        return Link(content, {"public_key": self.public, "signature": signature})


def available() -> bool:
    """Whether `cryptography` is installed."""
    return find_spec("cryptography") is not None


def fingerprint(public: str) -> str:
    """SHA-256 of a public key's 32 bytes."""
    return hashlib.sha256(bytes.fromhex(public)).hexdigest()


def read_signer(path: str | Path, *, where: str = "--sign") -> Signer:
    """The private key in a PEM file (PKCS #8); an encrypted one is opened with ``$EXPUNGE_KEY_PASSWORD``.

    Raises:
        UsageError: It cannot be read, is no Ed25519 key, or `cryptography` is missing.
    """
    from_pem = _serialization(where).load_pem_private_key
    data, password = _read(path, where), os.environ.get(PASSWORD)
    try:
        key = from_pem(data, password=password.encode() if password else None)
    except Exception as error:  # as many kinds as there are broken keys
        hint = f"A key with a password needs it in {PASSWORD}. {_MAKE}"
        what = f'"{path}" is no private key that can be read ({type(error).__name__})'
        raise UsageError(Problem(where, what, hint)) from None
    return Signer(key, _ed25519(key, path, where, private=True))


def read_public_key(path: str | Path, *, where: str = "--public-key") -> str:
    """The public key in a PEM file, 32 bytes in hexadecimal.

    Raises:
        UsageError: It cannot be read, is no Ed25519 key, or `cryptography` is missing.
    """
    from_pem = _serialization(where).load_pem_public_key
    data = _read(path, where)
    try:
        key = from_pem(data)
    except Exception as error:  # as above
        what = f'"{path}" is no public key that can be read ({type(error).__name__})'
        raise UsageError(Problem(where, what, _MAKE)) from None
    return _ed25519(key, path, where, private=False)


def is_valid(link: Link) -> bool:
    """Whether the signature of a link is that of the key it carries, and the key the one that its content names."""
    from cryptography.exceptions import InvalidSignature
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

    try:
        public, signature = (bytes.fromhex((link.signature or {})[name]) for name in ("public_key", "signature"))
        Ed25519PublicKey.from_public_bytes(public).verify(signature, canonical(link.content))
    except (InvalidSignature, ValueError, KeyError, TypeError):
        return False
    return link.content.get("signed_by") == fingerprint(public.hex())


def _serialization(where: str) -> Any:
    if not available():
        raise UsageError(Problem(where, "signatures need cryptography, which is not installed", INSTALL))
    from cryptography.hazmat.primitives import serialization

    return serialization


def _read(path: str | Path, where: str) -> bytes:
    try:
        return Path(path).expanduser().read_bytes()
    except OSError as error:
        raise UsageError(Problem(where, f'"{path}" cannot be read ({error.strerror})', _MAKE)) from None


def _ed25519(key: Any, path: str | Path, where: str, *, private: bool) -> str:
    from cryptography.hazmat.primitives.asymmetric import ed25519

    kind = ed25519.Ed25519PrivateKey if private else ed25519.Ed25519PublicKey
    if not isinstance(key, kind):
        raise UsageError(Problem(where, f'"{path}" holds a key of another kind than Ed25519', _MAKE))
    public = key.public_key() if isinstance(key, ed25519.Ed25519PrivateKey) else key
    return public.public_bytes_raw().hex()
