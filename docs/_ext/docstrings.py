"""A docstring of ours as Markdown: sections of a method, Google's sections of everything else."""

from __future__ import annotations

import inspect
import re

__all__ = ["SECTIONS", "docstring", "markdown", "paragraphs", "sections"]

SECTIONS = ("Formula", "Source", "Ours", "Failure signs", "Example")
_FIRST = re.compile(rf"^({'|'.join(SECTIONS)}|Targets)(:{{1,2}})(?=\s|$)[ \t]*")


def paragraphs(text: str) -> list[str]:
    """A docstring's blocks between blank lines; what is indented behind one stays with it."""
    found: list[str] = []
    for block in re.split(r"\n{2,}", text.strip()):
        if found and block.startswith("    "):
            found[-1] += f"\n\n{block}"
        else:
            found.append(block)
    return found


def markdown(block: str) -> str:
    """A block of a docstring as Markdown: code behind ``::`` and examples are fenced, lists stay lists."""
    lines: list[str] = []
    code: list[str] = []

    def flush() -> None:
        if code:
            body = inspect.cleandoc("\n" + "\n".join(code))
            kind = "pycon" if body.startswith(">>>") else "text"
            lines.extend(["", f"```{kind}", body, "```", ""])
            code.clear()

    for line in block.splitlines():
        listed = any(text.lstrip().startswith(("* ", "- ")) for text in lines[-3:])
        if (line.startswith("    ") and not listed) or (not line.strip() and code):
            code.append(line)
        else:
            flush()
            lines.append(re.sub(r"::\s*$", ":", line))
    flush()
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)).strip()


def sections(doc: str) -> tuple[str, list[tuple[str, str]]]:
    """A method's docstring as its introduction, and its titled sections in their order, each as Markdown."""
    first: list[str] = []
    found: list[tuple[str, list[str]]] = []
    for block in paragraphs(doc):
        # A section may begin in the middle of a paragraph, behind another one's end.
        for part in re.split(rf"(?<=[.:]) (?=(?:Formula|Ours|Source):)|\n(?=(?:{'|'.join(SECTIONS)}):)", block):
            match = _FIRST.match(part)
            if match and match[1] in (*SECTIONS, "Targets"):
                rest = _capital(part[match.end() :].removeprefix("\n"))
                own = [text for title, texts in found if title == match[1] for text in texts]
                if own:
                    next(texts for title, texts in found if title == match[1]).append(markdown(rest))
                else:
                    found.append((match[1], [markdown(rest)]))
            elif found:
                found[-1][1].append(markdown(part))
            else:
                first.append(markdown(part))
    return "\n\n".join(first), [(title, "\n\n".join(texts)) for title, texts in found]


def _capital(text: str) -> str:
    """With a capital letter where it begins with a word; a name in code stays as it is."""
    return text[:1].upper() + text[1:]


_GOOGLE = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Example|Examples):\s*(.*)$")


def docstring(doc: str) -> str:
    """A docstring in Google style as Markdown."""
    parts = []
    for block in paragraphs(doc):
        match = _GOOGLE.match(block.partition("\n")[0])
        if not match:
            parts.append(markdown(block))
            continue
        title, body = match[1], inspect.cleandoc("\n" + block.partition("\n")[2])
        if title.startswith("Example"):
            if match[2]:
                parts.append(f"**Example.** {match[2]}")
            text = re.sub(r"^", "    ", body, flags=re.M) if body.startswith(">>>") else body
            parts.append(f"**Example**\n\n{markdown(text)}" if body else "")
        elif re.match(r"^\*{0,2}[\w.]+( \([^)]*\))?:", body):
            entries = re.sub(r"^(\*{0,2}[\w.]+):\s*", r"- `\1`: ", body, flags=re.M)
            parts.append(f"**{title}**\n\n{entries}")
        else:
            parts.append(f"**{title}**: {body}")
    return "\n\n".join(part for part in parts if part)
