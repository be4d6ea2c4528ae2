"""A million records: a request of a thousand is resolved, checked, carried out and audited in minutes and a few GiB."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / "benchmarks" / "scale.py"


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_a_million_records(tmp_path: Path, kind: str) -> None:
    """The bar: 180 s and 4 GiB until the run starts; here it has ended, audits and report included. CPU seconds of one
    thread are what it takes on a machine that does nothing else."""
    spec = importlib.util.spec_from_file_location("scale", SCRIPT)
    assert spec is not None
    assert spec.loader is not None
    scale = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(scale)
    words = ["run", *scale.prepared(tmp_path, 1_000_000, kind, 1000), *scale.SHORT, "--out", str(tmp_path / "out")]
    found = scale.measured(words)
    assert found["code"] == 0
    assert found["cpu_seconds"] < 180
    assert found["gib"] < 4
