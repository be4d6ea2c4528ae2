"""Read sentences of tagged words from CoNLL-style text: a word and its tag a line, a blank line after each sentence."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

__all__ = ["CONLL_SUFFIXES", "read_conll"]

CONLL_SUFFIXES = (".conll", ".bio", ".iob", ".iob2")
_ID = re.compile(r"#(?:\s*(?:sent_)?id\s*[:=]|\s+id\s)\s*(\S+)")
_REMARK = re.compile(r"#\s+[A-Za-z_][\w ]*\s*[:=](\s|$)")
_DOCUMENT = "-DOCSTART-"


def read_conll(path: Path) -> dict[str, list[Any]]:
    """Columns of a file: ``tokens``, ``ner_tags``, ``sentence`` (counted from 1), and ``id`` where comments give one.

    The word is the first column, the tag the last; columns are parted by tabs where a line has one, else by spaces.
    ``-DOCSTART-`` lines are left out. A comment before a sentence, ``# id: x`` or ``# sent_id = x``, is its id; other
    comments of the form ``# name = value`` are left out.

    Raises:
        ValueError: It is not UTF-8, or lines have one column only; the message names the line.
    """
    sentences: list[tuple[list[str], list[str]]] = []
    ids: list[str | None] = []
    words: list[str] = []
    tags: list[str] = []
    named: str | None = None
    lonely: list[tuple[int, str]] = []
    # Not splitlines(): it would also cut at separators that are words of some corpora.
    for number, whole in enumerate(_text(path).replace("\r\n", "\n").replace("\r", "\n").split("\n"), start=1):
        line = whole.rstrip()
        if not line:
            if words:
                sentences.append((words, tags))
                ids.append(named)
                words, tags, named = [], [], None
        elif not words and (found := _ID.match(line)):
            named = found[1]
        elif line.startswith(_DOCUMENT) or (not words and _REMARK.match(line)):
            continue
        else:
            cells = line.split("\t") if "\t" in line else re.split(" +", line.strip(" "))
            if len(cells) < 2:
                lonely.append((number, line))
                continue
            words.append(cells[0].strip(" "))
            tags.append(cells[-1].strip(" "))
    if lonely:
        number, line = lonely[0]
        shown = f"{len(lonely)} lines have one column only, the first is line {number}: {line[:40]!r}"
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


def _text(path: Path) -> str:
    content = path.read_bytes()
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ValueError(f"line {line} is not UTF-8: {error.reason}; save it as UTF-8") from None
