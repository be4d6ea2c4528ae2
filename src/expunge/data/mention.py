"""Which records mention a string, whatever quotes, dashes, case and spacing they write it with."""

from __future__ import annotations

from collections.abc import Sequence

import regex

from expunge.data.records import normal_form
from expunge.errors import Problem, UsageError

__all__ = ["mentioning"]

# Thai, Lao, Burmese, Khmer, kana and Han are written without spaces between words: they are cut into letters.
_UNSPACED = (
    r"\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3005-\u3007\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff\U00020000-\U0003ffff"
)
# A combining mark stays with its letter: what is left without it is another letter.
_PIECE = regex.compile(
    rf"[{_UNSPACED}]\p{{M}}*|[[\p{{L}}\p{{N}}]--[{_UNSPACED}]][[\p{{L}}\p{{N}}\p{{M}}]--[{_UNSPACED}]]*|\S\p{{M}}*",
    regex.VERSION1,
)
_WORD = regex.compile(r"[\p{L}\p{N}]")
_FOLDS = (
    (regex.compile(r"[\p{Pc}\u200b]"), " "),  # underscores, and the space of no width, which parts words
    (regex.compile(r"\p{Default_Ignorable_Code_Point}"), ""),  # soft hyphens, joiners, directions, variants
    (regex.compile(r"[`\u00b4\u02b9\u02bb\u02bc\u2018-\u201b\u2032\u2039\u203a\u055a\u05f3\uff07]"), "'"),
    (regex.compile(r"[\u00ab\u00bb\u201c-\u201f\u2033\u05f4\uff02]"), '"'),
    (regex.compile(r"[\p{Pd}\u2212]"), "-"),
)


def mentioning(texts: Sequence[tuple[str, ...]], mention: str, *, apart: bool = False) -> list[int]:
    """Positions of the records that hold a string as whole words, one after the other.

    Unicode form, case, white space, the kind of quotes and dashes, underscores for spaces, and the way punctuation was
    split off make no difference: ``O'Neill`` is found in ``O’NEILL's`` and in the words ``O ' Neill``.

    Args:
        texts: The parts of each record.
        mention: The string.
        apart: Whether a record's parts are texts of their own, each searched alone; else they are a sentence's words.

    Raises:
        UsageError: The string holds no word, or no record holds it.
    """
    wanted = _pieces((mention,))
    if not _WORD.search(wanted):
        raise UsageError(Problem("request.mention", f"{mention!r} holds no word", "Give a name as it is written."))
    found = []
    for position, text in enumerate(texts):
        searched = [(part,) for part in text] if apart else [text]
        if any(wanted in _pieces(parts) for parts in searched):
            found.append(position)
    if not found:
        raise UsageError(Problem("request.mention", f"no record mentions {mention!r}", "Check its spelling."))
    return found


def _pieces(text: tuple[str, ...]) -> str:
    # Folded before, since NFKC cuts an acute accent off its letter, and after, since NFKC makes underscores and quotes.
    plain = _folded(normal_form([_folded(part) for part in text]).replace("\x1f", " "))
    return "\x1f" + "".join(f"{piece}\x1f" for piece in _PIECE.findall(plain))


def _folded(text: str) -> str:
    for pattern, plain in _FOLDS:
        text = pattern.sub(plain, text)
    return text
