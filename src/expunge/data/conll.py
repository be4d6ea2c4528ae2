"""Read sentences of tagged words from CoNLL-style text: a word and its tag a line, a blank line after each sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from expunge.data.unpacking import must_be_text

__all__ = ["CONLL_SUFFIXES", "read_conll"]

CONLL_SUFFIXES = (".conll", ".bio", ".iob", ".iob2")
_ID = re.compile(r"#(?:\s*(?:sent_)?id\s*[:=]|\s+id\s)\s*(\S+)")
_REMARK = re.compile(r"#\s+[A-Za-z_][\w. ]*\s*[:=](\s|$)")
_DOCUMENT = "-DOCSTART-"


def read_conll(path: Path) -> dict[str, list[Any]]:
    """Columns of a file: ``tokens``, ``ner_tags``, ``sentence`` (counted from 1), and ``id`` where comments give one.

    The word is the first column, the tag the last; columns are parted by tabs where a line has one, else by spaces.
    ``-DOCSTART-`` lines are left out. A comment before a sentence, ``# id: x`` or ``# sent_id = x``, is its id; other
    lines there that begin with ``# `` are left out, unless they are the word ``#`` with as many columns as other words
    and a tag that these have, too.

    Raises:
        ValueError: It is not UTF-8, or lines have one column only; the message names the line.
    """
    sentences: list[tuple[list[str], list[str]]] = []
    ids: list[str | None] = []
    words: list[str] = []
    tags: list[str] = []
    named: str | None = None
    lonely: list[int] = []
    # Not splitlines(): it would also cut at separators that are words of some corpora.
    lines = [line.rstrip() for line in _text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n")]
    known = {_kind(line) for line in lines if line and not line.startswith(("#", _DOCUMENT))} | {(2, "O")}
    for number, line in enumerate(lines, start=1):
        if not line:
            if words:
                sentences.append((words, tags))
                ids.append(named)
                words, tags, named = [], [], None
        elif not words and (found := _ID.match(line)):
            named = found[1]
        elif line.startswith(_DOCUMENT) or (not words and _is_remark(line, known)):
            continue
        else:
            cells = _cells(line)
            if len(cells) < 2:
                lonely.append(number)
                continue
            words.append(cells[0].strip(" "))
            tags.append(cells[-1].strip(" "))
    if lonely:
        shown = f"{len(lonely)} lines have one column only, the first is line {lonely[0]}"
        raise ValueError(f"{shown}; a line is a word, then its tag, with a tab or spaces between")
    if words:
        sentences.append((words, tags))
        ids.append(named)
    columns: dict[str, list[Any]] = {
        "tokens": [found for found, _ in sentences],
        "ner_tags": [found for _, found in sentences],
        "sentence": list(range(1, len(sentences) + 1)),
    }
    return {**columns, "id": ids} if any(record_id is not None for record_id in ids) else columns


def _cells(line: str) -> list[str]:
    return line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))


def _kind(line: str) -> tuple[int, str]:
    """How many columns a line has, and its tag."""
    cells = _cells(line)
    return len(cells), cells[-1].strip(" ")


def _is_remark(line: str, known: set[tuple[int, str]]) -> bool:
    """Whether a line before a sentence's first word is none, in a file whose words are of the `known` kinds."""
    if _REMARK.match(line) or line == "#":
        return True
    return line.startswith("# ") and _kind(line) not in known


def _text(path: Path) -> str:
    must_be_text(path)
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8: {error.reason}; save it as UTF-8") from None
