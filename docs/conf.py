"""How the site is built: `make docs`."""

from __future__ import annotations

import sys
from importlib.metadata import version as installed
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent / "_ext"))

project = "Expunge"
author = "the Expunge authors"
copyright = "the Expunge authors, Apache-2.0"  # noqa: A001 - the name Sphinx asks for
version = release = installed("expunge")

extensions = ["myst_parser", "generated_pages"]
exclude_patterns = ["_build"]
myst_heading_anchors = 4
myst_links_external_new_tab = False

html_theme = "furo"
html_title = "Expunge"
html_show_sphinx = False
html_copy_source = False
html_static_path: list[str] = []
