"""Check a history: the chain, the files of the model, the signatures, and a head that somebody remembers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path

from expunge.errors import Problem, UsageError
from expunge.history import signing
from expunge.history.hashes import ERASURE, is_weights, sha256_of, unlisted_weights
from expunge.history.link import BrokenLinkError, Link

__all__ = ["LIMITS", "Check", "Verification", "read_links", "verify"]

LIMITS = (
    "that the data were not learnt elsewhere: by another model, an earlier checkpoint, or from records that were not named",
    "that no copy of the model before erasure, or of the data, exists",
    "that the forgetting worked beyond what the audits named in each link measured",
    "that what was recorded is true: it is what the program that wrote it said, on a machine nobody here has seen",
    "when it was done: the times are those of that machine's clock",
)
"""What a history does not prove, even when all of it verifies."""

_CUT = "that no later links were cut off: name the head remembered from the last run (--head HASH)"
_UNSIGNED = (
    "who wrote it: whoever can write the folder can write a whole new history; signatures (--sign) tell them apart"
)
_LEAST_HEAD = 12


@dataclass(frozen=True)
class Check:
    """One thing that was looked at.

    Attributes:
        name: ``chain``, ``weights``, ``files``, ``signatures`` or ``head``.
        ok: Whether it holds; None where it could not be looked at.
        said: What was found, one sentence each.
    """

    name: str
    ok: bool | None
    said: tuple[str, ...]


@dataclass(frozen=True)
class Verification:
    """What was found out about a folder's history.

    Attributes:
        links: Those that can be read, in order.
        checks: What was looked at.
        unproven: What all this does not prove.
    """

    links: tuple[Link, ...]
    checks: tuple[Check, ...]
    unproven: tuple[str, ...] = field(default=LIMITS)

    @property
    def ok(self) -> bool:
        """Whether nothing that was looked at is wrong."""
        return all(check.ok is not False for check in self.checks)

    @property
    def wrong(self) -> list[str]:
        """Everything that is wrong."""
        return [sentence for check in self.checks if check.ok is False for sentence in check.said]

    @property
    def head(self) -> str | None:
        """Hash of the last link."""
        return self.links[-1].sha256 if self.links else None


def read_links(folder: str | Path) -> tuple[list[Link], list[str]]:
    """The links in a model folder that can be read, in the order of their files, and what is wrong with the chain.

    Raises:
        UsageError: The folder has no history.
    """
    place = Path(folder).expanduser() / ERASURE
    if not place.is_dir():
        way_out = "Give a folder that `expunge run` wrote."
        raise UsageError(Problem(str(folder), f'it has no history (no folder "{ERASURE}" in it)', way_out))
    wrong: list[str] = []
    names = sorted(file.name for file in place.iterdir())
    for name in names:
        if not re.fullmatch(r"\d{4,}\.json", name):
            wrong.append(f"{ERASURE}/{name} is no link of a history.")
    names = [name for name in names if re.fullmatch(r"\d{4,}\.json", name)]
    links: list[Link] = []
    for name in names:
        try:
            link = Link.from_bytes((place / name).read_bytes())
        except (BrokenLinkError, OSError) as error:
            reason = error if isinstance(error, BrokenLinkError) else f"it cannot be read ({error.strerror})"
            wrong.append(f"{ERASURE}/{name}: {reason}.")
            continue
        if link.file_name != name:
            wrong.append(f"{ERASURE}/{name} is the link of request {link.number}: links were put in another order.")
        links.append(link)
    numbers = {int(Path(name).stem) for name in names}
    for missing in sorted(set(range(1, max(numbers, default=0) + 1)) - numbers):
        wrong.append(f"The link of request {missing} is missing: {ERASURE}/{missing:04}.json.")
    return links, wrong + (_breaks(links) if len(links) == len(names) else [])


def _breaks(links: Sequence[Link]) -> list[str]:
    """Where the chain does not hold together."""
    wrong = []
    if links and links[0].previous is not None:
        wrong.append(f"Request {links[0].number} names a link before it, and there is none.")
    for one, two in pairwise(links):
        if two.previous != one.sha256:
            wrong.append(f"Request {two.number} does not follow request {one.number}: it names another link before it.")
        if two.content["salt_check"] != one.content["salt_check"]:
            wrong.append(f"Request {two.number} was recorded under another salt than request {one.number}.")
        if two.content["model"]["before"] != one.content["model"]["after"]:
            what = "began with other weights than those that request"
            wrong.append(f"Request {two.number} {what} {one.number} left: the model was changed in between.")
    return wrong


def verify(folder: str | Path, *, public_keys: Sequence[str] = (), head: str | None = None) -> Verification:
    """Check all that a history allows to be checked; no weights are loaded, their files are hashed.

    Args:
        folder: A model folder with a history.
        public_keys: Ed25519 public keys (hexadecimal) that may have signed it; left out: signatures are only compared with
            the keys they carry.
        head: Hash of a link, or its first 12 digits or more, remembered from elsewhere.

    Raises:
        UsageError: The folder has no history, or the head is no such hash.
    """
    if head is not None and not re.fullmatch(rf"[0-9a-fA-F]{{{_LEAST_HEAD},64}}", head):
        way_out = f"Give the 64 hexadecimal digits that the run printed, or the first {_LEAST_HEAD} of them at least."
        raise UsageError(Problem("--head", f"{head!r:.80} is no hash of a link", way_out))
    links, wrong = read_links(folder)
    if not links and not wrong:
        wrong = [f"The folder {ERASURE} is empty: every link is missing."]
    many = f"{len(links)} link{'s' if len(links) != 1 else ''}"
    checks = [Check("chain", not wrong, tuple(wrong) or (f"{many}, each naming the one before it.",))]
    if links:
        checks += _files(Path(folder).expanduser(), links[-1])
        checks.append(_signatures(links, list(public_keys)))
    if head is not None:
        checks.append(_head(links, head.lower()))
    unsigned = any(link.signature is None for link in links[-1:])
    unproven = (*LIMITS, *([_CUT] if head is None else []), *([_UNSIGNED] if unsigned else []))
    return Verification(tuple(links), tuple(checks), unproven)


def _files(folder: Path, last: Link) -> list[Check]:
    """Whether the folder's files are those that the last request left."""
    listed = last.content["model"]["files"]
    if listed is None:
        said = f"Request {last.number} was recorded before its model was saved: no files are listed."
        return [Check("weights", False, (said,))]
    wrong: dict[bool, list[str]] = {True: [], False: []}
    for name, known in listed.items():
        file = folder / name
        if not file.is_file():
            wrong[is_weights(name)].append(f"{name} is missing.")
        elif sha256_of(file) != known:
            wrong[is_weights(name)].append(f"{name} is not the file that request {last.number} left (other SHA-256).")
    for name in unlisted_weights(folder, listed):
        wrong[True].append(f"{name} was not there when request {last.number} was recorded.")
    kinds = {True: "weights", False: "files"}
    checks = []
    for weights, kind in kinds.items():
        count = sum(is_weights(name) == weights for name in listed)
        fine = (
            f"{count} file{'s' if count != 1 else ''}, as request {last.number} left {'them' if count != 1 else 'it'}."
        )
        checks.append(Check(kind, not wrong[weights], tuple(wrong[weights]) or (fine,)))
    return checks


def _signatures(links: Sequence[Link], public_keys: Sequence[str]) -> Check:
    """Whether each signature is right, and by a key that was named where any was."""
    wrong = [
        f"The signature of request {link.number} is missing: its link says it was signed."
        for link in links
        if link.signature is None and link.content.get("signed_by")
    ]
    signed = [link for link in links if link.signature is not None]
    if signed and not signing.available():
        said = f"{len(signed)} signatures were not checked: cryptography is not installed. {signing.INSTALL}"
        return Check("signatures", False if wrong or public_keys else None, (*wrong, said))
    wrong += [f"The signature of request {link.number} is wrong." for link in signed if not signing.is_valid(link)]
    if public_keys:
        known = set(map(signing.fingerprint, public_keys))
        for link in signed:
            if link.content.get("signed_by") not in known:
                wrong.append(f"Request {link.number} is signed by another key than the one given.")
        if links[-1].signature is None:
            wrong.append(f"Request {links[-1].number}, the last one, is not signed, and a key was given.")
    if wrong:
        return Check("signatures", False, tuple(dict.fromkeys(wrong)))
    if not signed:
        return Check("signatures", None, ("No link is signed.",))
    told = f"{len(signed)} of {len(links)} links are signed, rightly"
    if public_keys:
        return Check("signatures", True, (f"{told}, by the key given.",))
    keys = ", ".join(sorted({str(link.content["signed_by"])[:16] for link in signed}))
    return Check("signatures", True, (f"{told}, by the key they carry ({keys} ...); whose it is, --public-key tells.",))


def _head(links: Sequence[Link], head: str) -> Check:
    found = [link for link in links if link.sha256.startswith(head)]
    if not found:
        said = "The head remembered is no link of this history: links were cut off or written anew."
        return Check("head", False, (said,))
    if found[0] is links[-1]:
        return Check("head", True, ("It is the one remembered.",))
    later = len(links) - found[0].number
    return Check("head", True, (f"The one remembered is request {found[0].number}; {later} followed it.",))
