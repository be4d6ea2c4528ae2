"""What frozen models said of rows, kept by content: each row is run once, whatever batch it comes in again."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable

import torch
from torch import Tensor

from expunge.errors import RunError
from expunge.tasks.base import Batch

__all__ = ["Kept"]


class Kept:
    """Outputs at the units of rows, in a temporary file that vanishes when it is closed.

    A row is known by its tokens, its segments and where its units are read, so that views of a record, and a record that comes
    back in another batch, are one row. A row is run in whatever batch it first comes up in: padding changes its outputs by
    rounding alone.

    Attributes:
        rows: How many were run.
    """

    def __init__(self) -> None:
        self._file = tempfile.TemporaryFile(prefix="expunge-")  # noqa: SIM115 - see close
        self._places: dict[bytes, tuple[int, int]] = {}
        self._end = 0
        self.rows = 0
        self._width = 0
        self._dtype = torch.float32

    def __deepcopy__(self, memo: object) -> Kept:
        return self  # what is kept is true of every copy of models that are never changed

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def outputs(self, batch: Batch, run: Callable[[Batch], Tensor]) -> Tensor:
        """(U, F) outputs of a batch, of which `run` makes those of rows that are new.

        Args:
            batch: The batch.
            run: (batch of the new rows) -> (units, F), without a graph.
        """
        units = _units_of_rows(batch)
        keys = _keys(batch, units)
        first = {key: row for row, key in reversed(list(enumerate(keys)))}  # of rows alike the first
        new = sorted(row for key, row in first.items() if key not in self._places)
        if new:
            self.rows += len(new)
            found = run(_rows(batch, new, units)).detach().cpu()
            found = found.float() if found.dtype in (torch.float16, torch.bfloat16) else found
            self._width, self._dtype = found.shape[1], found.dtype
            for row, own in zip(new, found.split([len(units[row]) for row in new]), strict=True):
                self._put(keys[row], own)
        whole = torch.empty((len(batch.labels), self._width), dtype=self._dtype)
        for key, own in zip(keys, units, strict=True):
            if len(own):
                whole[own] = self._got(key)
        return whole.to(batch.labels.device)

    def _put(self, key: bytes, values: Tensor) -> None:
        content = values.contiguous().numpy().tobytes()
        try:
            self._file.seek(self._end)
            self._file.write(content)
        except OSError as error:
            where = "the folder for temporary files (TMPDIR names another)"
            raise RunError(f"keeping the frozen models' outputs in {where} failed ({error.strerror}).") from error
        self._places[key] = (self._end, len(content))
        self._end += len(content)

    def _got(self, key: bytes) -> Tensor:
        start, size = self._places[key]
        self._file.seek(start)
        content = bytearray(self._file.read(size))
        return torch.frombuffer(content, dtype=self._dtype).view(-1, self._width)


def _units_of_rows(batch: Batch) -> list[Tensor]:
    """Numbers of the units of each row, within the batch."""
    if batch.rows is None:
        return list(torch.arange(len(batch)).split(1))
    rows = batch.rows.cpu()
    order, counts = rows.argsort(stable=True), rows.bincount(minlength=len(batch))
    return list(order.split(counts.tolist()))


def _keys(batch: Batch, units: list[Tensor]) -> list[bytes]:
    mask = batch.inputs["attention_mask"].cpu().bool()
    tokens = [batch.inputs[name].cpu() for name in ("input_ids", "token_type_ids") if name in batch.inputs]
    columns = None if batch.columns is None else batch.columns.cpu()
    keys = []
    for row, own in enumerate(units):
        digest = hashlib.sha256()
        for part in tokens:
            digest.update(part[row][mask[row]].numpy().tobytes() + b"|")
        if columns is not None:
            digest.update(columns[own].numpy().tobytes())
        keys.append(digest.digest())
    return keys


def _rows(batch: Batch, wanted: list[int], units: list[Tensor]) -> Batch:
    """The batch of these rows alone, its units row by row."""
    own = torch.cat([units[row] for row in wanted])
    device = batch.labels.device
    place = own.to(device)
    inputs = {name: tensor[torch.tensor(wanted, device=device)] for name, tensor in batch.inputs.items()}
    flat = (batch.labels[place], batch.record_index[place], batch.unit_index[place])
    if batch.rows is None or batch.columns is None:
        return Batch(inputs, *flat)
    rows = torch.cat([torch.full((len(units[row]),), number) for number, row in enumerate(wanted)])
    return Batch(inputs, *flat, rows.to(device), batch.columns[place])
