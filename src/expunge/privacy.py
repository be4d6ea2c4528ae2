"""Names of erased records that say nothing without the user's salt."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import os
import secrets
import tempfile
from pathlib import Path

from expunge.config_paths import expanded
from expunge.errors import Problem, UsageError

__all__ = ["mark", "named_salt", "pseudonym", "read_salt", "salt_check", "salt_path", "salt_there"]

_LEAST_BYTES = 16


def named_salt(chosen: str | None = None) -> str | None:
    """The file that the user names: the one chosen, or ``$EXPUNGE_SALT_FILE``; None: the default one, which is made."""
    return chosen or os.environ.get("EXPUNGE_SALT_FILE") or None


def salt_path(chosen: str | None = None) -> Path:
    """Where the salt is: the file named, or ``expunge/salt`` in the user's config folder.

    Raises:
        UsageError: It can be no path.
    """
    if named := named_salt(chosen):
        return expanded(named, "privacy.salt_file" if chosen else "EXPUNGE_SALT_FILE")
    return expanded(os.environ.get("XDG_CONFIG_HOME") or "~/.config", "XDG_CONFIG_HOME") / "expunge" / "salt"


def salt_there(chosen: str | None = None) -> bool:
    """Whether there is a file; where nobody may look there is none to be seen, which `read_salt` tells.

    Raises:
        UsageError: It can be no path.
    """
    return os.path.exists(salt_path(chosen))


def read_salt(chosen: str | None = None) -> bytes:
    """The user's salt; made at first use (32 random bytes, readable by the user alone) in the default place only.

    Who has the salt and a list of candidate ids can tell which of them were erased: keep it as you keep a key. Who
    loses it can no longer match reports to ids.

    Raises:
        UsageError: A chosen file cannot be read or is too short, or the default place cannot be written.
    """
    path = salt_path(chosen)
    try:
        if named_salt(chosen) is None and not os.path.exists(path):
            _made(path)
        salt = path.read_bytes()
    except OSError as error:
        way_out = (
            "Give a file of at least 16 secret bytes: privacy.salt_file (--salt-file) or EXPUNGE_SALT_FILE; "
            "openssl rand -out FILE 32 makes one."
        )
        problem = Problem("privacy.salt_file", f'the salt "{path}" cannot be used ({error.strerror})', way_out)
        raise UsageError(problem) from None
    if len(salt) < _LEAST_BYTES:
        what = f'the salt "{path}" has {len(salt)} bytes'
        raise UsageError(Problem("privacy.salt_file", what, f"Give at least {_LEAST_BYTES} secret bytes."))
    return salt


def _made(path: Path) -> None:
    """Write a salt whole; where another process was first, its salt stays."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    handle, beside = tempfile.mkstemp(dir=path.parent, prefix=".salt.")  # readable by the user alone
    try:
        with os.fdopen(handle, "wb") as file:
            file.write(secrets.token_bytes(32))
        with contextlib.suppress(FileExistsError):
            os.link(beside, path)
    finally:
        os.unlink(beside)


def mark(salt: bytes, record_id: str) -> str:
    """HMAC-SHA256(salt, id), by which a history knows an erased record."""
    return hmac.new(salt, record_id.encode(), hashlib.sha256).hexdigest()


def salt_check(salt: bytes) -> str:
    """A word that tells this salt from others."""
    return mark(salt, "expunge: salt of a history")


def pseudonym(salt: bytes, record_id: str) -> str:
    """The first 12 hexadecimal digits of `mark`."""
    return mark(salt, record_id)[:12]
