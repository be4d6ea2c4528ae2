"""Tensors and plain values that a later process goes on from: a folder, written whole or not at all, checked when read."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from expunge.errors import RunError
from expunge.folders import whole_folder
from expunge.history.hashes import sha256_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["BrokenSnapshotError", "Snapshot", "linked"]

_VERSION = 1
_TENSORS, _VALUES = "state.safetensors", "state.json"


class BrokenSnapshotError(RunError):
    """A folder is no snapshot, or its files are not what was written."""


@dataclass
class Snapshot:
    """What is kept: safetensors and JSON, never pickle.

    Attributes:
        tensors: By name; parts of a name are set apart by ``/``.
        values: What JSON can hold; numbers come back as they were, to the bit.
        files: Further files by the name they take in the folder; linked where the disk can, else copied.
        texts: Text files, likewise.
    """

    tensors: dict[str, Tensor] = field(default_factory=dict)
    values: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Path] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)

    def add(self, name: str, other: Snapshot) -> None:
        """Put another snapshot into this one under a name."""
        self.tensors |= {f"{name}/{key}": tensor for key, tensor in other.tensors.items()}
        self.values[name] = other.values
        self.files |= other.files

    def part(self, name: str) -> Snapshot:
        """What `add` put in; without anything where that name was never put in. Files stay with the whole."""
        return Snapshot(dict(self._under(name)), dict(self.values.get(name, {})), self.files)

    def _under(self, name: str) -> Iterator[tuple[str, Tensor]]:
        for key, tensor in self.tensors.items():
            if key.startswith(f"{name}/"):
                yield key.removeprefix(f"{name}/"), tensor

    def write(self, folder: Path) -> None:
        """Write the folder; it has its name only once it is whole and on the disk.

        Raises:
            RunError: Writing failed; nothing of that name is there.
        """
        with whole_folder(folder) as place:
            self.write_into(place)

    def write_into(self, place: Path) -> None:
        """Write the files into a folder that is there, which then may be half written if this fails.

        Raises:
            RunError: The tensors cannot be written, or a value is none that JSON holds.
        """
        from safetensors import SafetensorError
        from safetensors.torch import save_file

        try:
            save_file(
                {name: tensor.detach().cpu().contiguous() for name, tensor in self.tensors.items()}, place / _TENSORS
            )
        except SafetensorError as error:  # what safetensors makes of a full disk
            raise RunError(f'writing "{place / _TENSORS}" failed ({error}).') from error
        for name, source in self.files.items():
            linked(source, place / name)
        for name, text in self.texts.items():
            (place / name).write_text(text, encoding="utf-8")
        hashes = {name: sha256_of(place / name) for name in (_TENSORS, *self.files, *self.texts)}
        try:
            text = json.dumps({"version": _VERSION, "files": hashes, "values": self.values})
        except TypeError as error:
            raise RunError(f"the state of this run cannot be kept ({error}).") from error
        (place / _VALUES).write_text(text, encoding="utf-8")

    @classmethod
    def read(cls, folder: Path) -> Snapshot:
        """What was written into a folder; tensors lie in memory that torch has laid out, as in a run that never ended.

        Raises:
            BrokenSnapshotError: A file is missing, cut off or changed.
        """
        from safetensors import SafetensorError
        from safetensors.torch import load_file

        try:
            found = json.loads((folder / _VALUES).read_text(encoding="utf-8"))
            if found["version"] != _VERSION:
                raise BrokenSnapshotError(f'"{folder}" is of another version of Expunge.')
            for name, written in found["files"].items():
                if sha256_of(folder / name) != written:
                    raise BrokenSnapshotError(f'"{folder / name}" is not what was written.')
            tensors = {name: tensor.clone() for name, tensor in load_file(folder / _TENSORS).items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
            raise BrokenSnapshotError(f'"{folder}" cannot be read ({error}).') from error
        return cls(tensors, found["values"], {name: folder / name for name in found["files"] if name != _TENSORS})


def linked(source: Path, target: Path) -> None:
    """Give a file another name too, or copy it where the disk cannot; who replaces either leaves the other as it is."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copyfile(source, target)
