"""Hashes of a model folder's files and of the code that wrote it."""

from __future__ import annotations

import hashlib
from pathlib import Path

__all__ = ["ERASURE", "code_sha256", "file_hashes", "is_weights", "sha256_of", "unlisted_weights"]

ERASURE = "erasure"
"""Folder of the history inside a model folder."""

_NOT_HASHED = (
    "report.html",
    "README.md",
)  # drawn again, and written by their readers; neither says anything of the model
_LOADED = (
    ".safetensors",
    ".safetensors.index.json",
    ".bin",
    ".pt",
    ".pth",
    ".ckpt",
    ".gguf",
    ".onnx",
    ".h5",
    ".msgpack",
)


def file_hashes(folder: Path) -> dict[str, str]:
    """SHA-256 of each file of a model folder by its path there: all but the history itself, report and README."""
    found = {}
    for file in sorted(folder.rglob("*")):
        name = file.relative_to(folder).as_posix()
        if file.is_file() and not name.startswith(f"{ERASURE}/") and name not in _NOT_HASHED:
            found[name] = sha256_of(file)
    return found


def sha256_of(file: Path) -> str:
    """SHA-256 of a file, read block by block."""
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def is_weights(name: str) -> bool:
    """Whether a file of that name holds a model's weights, or says which files do."""
    return name.endswith(_LOADED)


def unlisted_weights(folder: Path, listed: dict[str, str]) -> list[str]:
    """Files that a loader could take for weights or for a model's code and that are not listed."""
    files = (file for file in sorted(folder.rglob("*")) if file.is_file())
    names = (file.relative_to(folder).as_posix() for file in files)
    return [name for name in names if (is_weights(name) or name.endswith(".py")) and name not in listed]


def code_sha256() -> str:
    """Hash of Expunge's own source files, as installed: names and bytes, in name order."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for file in sorted(package.rglob("*")):
        if file.suffix in (".py", ".jinja") and "__pycache__" not in file.parts:
            digest.update(f"{file.relative_to(package).as_posix()}\n{file.stat().st_size}\n".encode())
            digest.update(file.read_bytes())
    return digest.hexdigest()
