"""What the untouched original says of tokens, taken before the first step: no second model is held in memory."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from expunge.collectives import of_all
from expunge.errors import RunError
from expunge.models import passes_of, weights_sha256
from expunge.snapshot import Snapshot
from expunge.tasks.base import Encoded
from expunge.token_head import TokenHead
from expunge.token_scoring import hidden_of

__all__ = ["TokenReference"]


class TokenReference:
    """A `Reference` for causal language models.

    One forward pass in eval mode over the records that a run will read, before its first step, so that the model itself is the
    original (an adapter that is new changes nothing yet). Kept are the log-probability of every label and, where methods
    compare whole distributions, the last hidden states: with a frozen copy of the output layer they give the original's
    logits exactly. All lies on disk, one file a group, under a hash of weights, tokens and units: what has another content has
    another name, so that nothing can be out of date.

    Args:
        model: The original.
        head: Its output layer.
        task: Collates records.
        groups: Group -> its records.
        wanted: Group -> positions of the records that will be read.
        folder: Where the files lie; those that are there already are read instead of made.
        retained: Where those of the group ``retain`` lie instead, for further runs: what the original says of a record to
            forget must not outlast its run.
        whole: Whether distributions are wanted, not log-probabilities of labels alone.
        layer: The layer behind which states are wanted, in place of all that.
        number: Which one it is.
        batch_size: Records a forward pass.
    """

    def __init__(
        self, model: Any, head: TokenHead, task: Any, groups: Mapping[str, Encoded], wanted: Mapping[str, Sequence[int]],
        folder: Path, *, whole: bool, retained: Path | None = None, layer: nn.Module | None = None, number: int = 0,
        batch_size: int = 16,
    ) -> None:  # fmt: skip
        self._forwards = 0.0
        self._frozen = head.frozen() if whole and layer is None else _unchanged
        whole = whole or layer is not None
        weights = weights_sha256(model)
        self._logp: dict[str, Tensor] = {}
        self._hidden: dict[str, Tensor] = {}
        self._places: dict[str, Tensor] = {}
        for group, positions in wanted.items():
            encoded = groups[group].take(list(positions))
            what = "logp" if not whole else "hidden" if layer is None else f"layer {number}"
            place = retained if retained is not None and group == "retain" else folder
            file = place / f"{_name(weights, encoded, what)}.safetensors"
            kept = _read(file)
            everywhere = all(of_all(kept is not None))
            if kept is None or not everywhere:
                self._forwards += len(encoded) * passes_of(model)
                logp, hidden = hidden_of(model, head, encoded, task, batch_size=batch_size, layer=layer)
                kept = _written(file, {"logp": logp, **({"hidden": hidden} if whole else {})})
            self._logp[group] = kept["logp"]
            if whole:
                self._hidden[group] = kept["hidden"]
            self._places[group] = _places(groups[group], encoded, positions)

    @property
    def passes(self) -> float:
        return self._forwards / 3

    def state(self) -> Snapshot:
        """What it cost: all else lies in the folder, or is made again as it was."""
        return Snapshot(values={"forwards": self._forwards})

    def restore(self, snapshot: Snapshot, device: Any) -> None:
        """Put back what `state` gave."""
        del device
        self._forwards = snapshot.values["forwards"]

    def _of(self, kept: Mapping[str, Tensor], group: str, units: Tensor) -> Tensor:
        places = self._places[group][units.cpu()]
        assert bool((places >= 0).all()), "a record comes up that was not among those to be read"
        return kept[group][places].to(units.device)

    def logits(self, group: str, records: Tensor, units: Tensor) -> Tensor:
        frozen, hidden = self.hidden(group, records, units)
        return frozen(hidden)

    def logp(self, group: str, records: Tensor, units: Tensor, labels: Tensor) -> Tensor:
        del records, labels
        return self._of(self._logp, group, units)

    def hidden(self, group: str, records: Tensor, units: Tensor) -> tuple[Callable[[Tensor], Tensor], Tensor]:
        del records
        return self._frozen, self._of(self._hidden, group, units)


def _places(whole: Encoded, part: Encoded, positions: Sequence[int]) -> Tensor:
    """Number of a unit among all of its group -> its row among those kept, or -1."""
    places = torch.full((whole.offsets[-1],), -1, dtype=torch.long)
    for row, position in enumerate(positions):
        places[whole.offsets[position] : whole.offsets[position + 1]] = torch.arange(
            part.offsets[row], part.offsets[row + 1]
        )
    return places


def _unchanged(states: Tensor) -> Tensor:
    return states


def _name(weights: str, encoded: Encoded, what: str) -> str:
    digest = hashlib.sha256(f"{weights} {what}".encode())
    assert encoded.units is not None
    for row in zip(encoded.input_ids, encoded.labels, encoded.units, strict=True):
        digest.update(json.dumps([list(part) for part in row]).encode())
    return digest.hexdigest()


def _written(file: Path, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Write the tensors in one move, and give them back as `_read` does."""
    from safetensors import SafetensorError
    from safetensors.torch import save_file

    part: Path | None = None
    try:
        file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=file.parent, prefix=".", suffix=".part")
        os.close(handle)
        part = Path(name)
        save_file({key: value.contiguous() for key, value in tensors.items()}, part)
        os.replace(part, file)
    except (OSError, SafetensorError) as error:
        what = f'keeping what the original says of the records in "{file.parent}" failed ({error})'
        raise RunError(f"{what}. Make room there, or name another folder: training.cache.") from error
    finally:
        if part is not None:
            part.unlink(missing_ok=True)
    found = _read(file)
    if found is None:
        raise RunError(f'"{file}" was lost while it was used. Name a folder that stays: training.cache.')
    return found


def _read(file: Path) -> dict[str, Tensor] | None:
    """The tensors, mapped from the file: what is not looked at takes no memory. None where there are none, or half of them."""
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(file, framework="pt") as kept:
            return {name: kept.get_tensor(name) for name in kept.keys()}  # noqa: SIM118 - it is no dict
    except (OSError, SafetensorError):
        return None
