"""What every HTML page of Expunge shares: templates, style, scripts, and a policy that forbids it the network. No torch."""

from __future__ import annotations

import base64
import hashlib
import json
from importlib import resources
from typing import Any

__all__ = ["as_json", "draw"]

_NOTHING = "default-src 'none'; style-src 'unsafe-inline'; img-src data:; base-uri 'none'; form-action 'none'"


def draw(template: str, *, scripts: tuple[str, ...] = (), **values: Any) -> str:
    """A whole page: style and scripts inline, everything escaped.

    Its content security policy lets run the scripts named, by their hash, and nothing else: even markup that slipped
    through escaping could neither run nor fetch anything.

    Args:
        template: A file of ``page_files``.
        scripts: Files of ``page_files`` to run; the page must be whole without them.
        **values: What the template shows.
    """
    from jinja2 import Environment, PackageLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=PackageLoader("expunge", "page_files"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["figure"] = lambda value: "not measured" if value is None else f"{value:.3f}"
    environment.filters["rounded"] = lambda value, digits: f"{value:.{digits}f}"
    environment.filters["share"] = lambda value: f"{value * 100:.3g} %"
    sources = [_file(name) for name in scripts]
    hashes = " ".join(f"'sha256-{base64.b64encode(hashlib.sha256(s.encode()).digest()).decode()}'" for s in sources)
    policy = f"{_NOTHING}; script-src {hashes}" if hashes else _NOTHING
    return environment.get_template(template).render(
        style=Markup(_file("page.css")), scripts=[Markup(source) for source in sources], policy=policy, **values
    )


def as_json(values: Any) -> Any:
    """Values as JSON that may stand inside a script element, which knows no entities: no sign there can end it."""
    from markupsafe import Markup

    text = json.dumps(values, ensure_ascii=True, separators=(",", ":"), allow_nan=False)
    for sign in "<>&":
        text = text.replace(sign, f"\\u{ord(sign):04x}")
    return Markup(text)


def _file(name: str) -> str:
    return resources.files("expunge").joinpath("page_files", name).read_text(encoding="utf-8")
