"""The model card of an erased folder: the original's, kept, with a line for each request."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from expunge.history.link import Link
from expunge.models import hub_file, is_local

__all__ = ["card", "card_of", "write_card"]

CARD = "README.md"
_HEADING = "## Records erased from this model"


def write_card(place: Path, source: str, links: Sequence[Link]) -> None:
    """Write the card of a folder that is being filled.

    Args:
        place: The folder.
        source: Folder or hub id of the model that was unlearned; empty for one given in memory.
        links: The model's history, this request included; requests the card names already are not named twice.
    """
    text = card(card_of(source), [_line(link) for link in links], None if not source or is_local(source) else source)
    (place / CARD).write_text(text, encoding="utf-8")


def card_of(source: str) -> str | None:
    """The card of a model as it is; None where there is none, or a hub's cannot be had."""
    if not source:
        return None
    if is_local(source):
        file = Path(source).expanduser() / CARD
        return file.read_text(encoding="utf-8", errors="replace") if file.is_file() else None
    file = hub_file(source, CARD)
    try:
        return None if file is None else file.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None  # a model needs no card, and a run that is done is not lost for one


def card(before: str | None, lines: Sequence[str], base: str | None) -> str:
    """A card with more lines; the text and metadata of the one before stay as they are.

    Args:
        before: The card so far; None: a new one is begun.
        lines: One a request; those that stand in the card are left as they are.
        base: Hub id to name as ``base_model`` in a new card.
    """
    if before is None:
        head = f"---\nbase_model: {base}\n---\n\n" if base else ""
        before = f"{head}# Model card\n"
    text, new = before.rstrip("\n"), "\n".join(line for line in lines if line not in before)
    if _HEADING not in text:
        return f"{text}\n\n{_HEADING}\n\n{new}\n"
    start, heading, section = text.partition(_HEADING)
    body, following = _until_next_heading(section)
    return f"{start}{heading}{body.rstrip()}\n{new}\n{following}"


def _until_next_heading(section: str) -> tuple[str, str]:
    """A section's own text, and what comes from the next heading on."""
    lines = section.splitlines(keepends=True)
    end = next((i for i, own in enumerate(lines) if i and own.startswith("#")), len(lines))
    following = "".join(lines[end:])
    return "".join(lines[:end]), f"\n{following.rstrip()}\n" if following else ""


def _line(link: Link) -> str:
    said, code = link.content, link.content["code"]
    with_what = f" (expunge {code['expunge']})" if code else ""
    return (
        f"- Request {link.number}, {said['when'][:10]}: {said['request']['records']} records, method {said['method']['name']}"
        f"{with_what}. Done and measured: `record.json`. To check: `expunge verify`."
    )
