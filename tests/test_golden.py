"""Every method that is a loss takes the steps it took: its golden trajectory, one file a method.

`python tests/test_golden.py NAME ...` writes the files of new methods; one that is there changes only with its method.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest

from expunge import registry
from expunge.methods.base import Method
from expunge.testing import trajectory

GOLDEN = Path(__file__).parent / "golden"
SETTINGS: dict[str, dict[str, Any]] = {"rmu": {"layer": 1}}  # the tiny models have two layers
pytestmark = pytest.mark.usefixtures("quick_collection")
LOSSES = [name for name in registry.names("methods") if issubclass(registry.find("methods", name), Method)]


def built(name: str) -> Method:
    return registry.find("methods", name)(**SETTINGS.get(name, {}))


@pytest.mark.parametrize("name", LOSSES)
def test_a_method_takes_the_steps_it_took(name: str) -> None:
    kept = json.loads((GOLDEN / f"{name}.json").read_text(encoding="utf-8"))
    found = trajectory(built(name))
    assert found.keys() == kept.keys()
    for job, rows in kept.items():
        for mine, theirs in zip(found[job], rows, strict=True):
            assert mine == pytest.approx(theirs, rel=1e-6, abs=1e-9), f"{job}, step {theirs['step']:.0f}"


def test_there_is_a_file_for_each_of_them_and_no_other() -> None:
    assert {path.stem for path in GOLDEN.glob("*.json")} == set(LOSSES)


if __name__ == "__main__":
    for asked in sys.argv[1:]:
        target = GOLDEN / f"{asked}.json"
        target.write_text(json.dumps(trajectory(built(asked)), indent=1) + "\n", encoding="utf-8")
        print(target)
