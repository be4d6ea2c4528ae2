"""Colours of the pages: contrast as WCAG 2.1 asks (AA), and told apart with any colour vision, on light and dark ground."""

from __future__ import annotations

import itertools
import re
from importlib import resources

import numpy as np
import pytest

_CSS = resources.files("expunge").joinpath("page_files", "page.css").read_text(encoding="utf-8")
_LIGHT, _DARK = (
    dict(re.findall(r"--(\w+): (#[0-9a-f]{6})", part)) for part in _CSS.split("* { box-sizing")[0].split("@media")
)
THEMES = {"light": _LIGHT, "dark": _LIGHT | _DARK}

# Machado, Oliveira and Fernandes 2009, table 1: severity 1.0, on linear RGB.
VISION = {
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
    "full": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0]],
}
_XYZ = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])


def linear(colour: str) -> np.ndarray:
    """sRGB to linear light, as WCAG defines it."""
    channels = np.array([int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)])
    return np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)


def contrast(one: str, other: str) -> float:
    """(L1 + 0.05) / (L2 + 0.05), the lighter above."""
    low, high = sorted(float(_XYZ[1] @ linear(colour)) for colour in (one, other))
    return (high + 0.05) / (low + 0.05)


def lab(light: np.ndarray) -> np.ndarray:
    """CIELAB of linear light under D65."""
    ratio = _XYZ @ light.clip(0, 1) / _XYZ.sum(axis=1)
    cube = np.where(ratio > (6 / 29) ** 3, np.cbrt(ratio), ratio / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.array([116 * cube[1] - 16, 500 * (cube[0] - cube[1]), 200 * (cube[1] - cube[2])])


def test_contrast_of_known_colours() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21.0)
    assert contrast("#767676", "#ffffff") == pytest.approx(4.54, abs=0.01)  # the lightest grey that passes on white


@pytest.mark.parametrize("theme", THEMES)
def test_text_has_four_and_a_half_to_one_and_graphics_three(theme: str) -> None:
    colours = THEMES[theme]
    for text, ground in itertools.product(("ink", "soft"), ("paper", "panel")):
        assert contrast(colours[text], colours[ground]) >= 4.5, (text, ground)
    for mark in ("good", "bad", "open", "focus", "others", "c0", "c1", "c2", "c3", "c4", "c5"):
        assert contrast(colours[mark], colours["paper"]) >= 3, mark


@pytest.mark.parametrize("vision", VISION)
@pytest.mark.parametrize("theme", THEMES)
def test_the_three_models_are_told_apart_with_any_colour_vision(theme: str, vision: str) -> None:
    """A CIELAB distance of 20: about nine times what is just noticed (2.3)."""
    seen = [lab(np.array(VISION[vision]) @ linear(THEMES[theme][name])) for name in ("c0", "c1", "c2")]
    for one, other in itertools.combinations(seen, 2):
        assert np.linalg.norm(one - other) >= 20
