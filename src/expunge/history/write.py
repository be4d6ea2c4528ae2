"""Append a request to a history, and write the history into a model folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from expunge.checks import Prepared
from expunge.history.entry import entry
from expunge.history.hashes import ERASURE
from expunge.history.link import Link
from expunge.history.signing import Signer
from expunge.record import RunRecord

__all__ = ["linked", "write_links"]


def linked(
    prepared: Prepared, record: RunRecord, files: Mapping[str, str] | None, signer: Signer | None
) -> Link:  # fmt: skip
    """The link of a finished run, signed where a key is given.

    Args:
        prepared: The run's data and settings, its history among them.
        record: What it did and measured.
        files: SHA-256 of the model folder's files; None where the model was not saved.
        signer: Signs the link.
    """
    ids = [prepared.train.ids[i] for i in prepared.request.forget]
    previous = None if prepared.history is None else prepared.history.last
    content = entry(record, ids, prepared.salt, previous, files)
    return Link(content) if signer is None else signer.sign({**content, "signed_by": signer.fingerprint})


def write_links(place: Path, links: Sequence[Link]) -> None:
    """Write a whole history into a folder that has none."""
    (place / ERASURE).mkdir()
    for link in links:
        (place / ERASURE / link.file_name).write_bytes(link.to_bytes())
