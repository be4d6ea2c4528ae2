"""Files and folders that appear whole or not at all, however many write them at once and however the writing ends."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from expunge.errors import RunError
from expunge.folders import whole_arrays, whole_file


def test_a_text_that_cannot_be_encoded_leaves_nothing_beside_and_what_was_there(tmp_path: Path) -> None:
    target = tmp_path / "told.txt"
    whole_file(target, "before")
    with pytest.raises(UnicodeEncodeError):
        whole_file(target, "half of a pair: \ud800")
    assert os.listdir(tmp_path) == ["told.txt"]
    assert target.read_text(encoding="utf-8") == "before"


def test_a_name_too_long_is_told_as_a_failed_write(tmp_path: Path) -> None:
    with pytest.raises(RunError, match=r"failed \(File name too long\)"):
        whole_file(tmp_path / ("o" * 300), "text")


def test_arrays_whose_writing_was_stopped_leave_nothing_beside_and_what_was_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    target, write = tmp_path / "scores.npz", np.savez_compressed
    whole_arrays(target, {"margins": np.arange(3)})

    def stopped(*args: Any, **arrays: Any) -> None:
        write(*args, **arrays)
        raise KeyboardInterrupt

    monkeypatch.setattr(np, "savez_compressed", stopped)
    with pytest.raises(KeyboardInterrupt):
        whole_arrays(target, {"margins": np.zeros(3)})
    assert os.listdir(tmp_path) == ["scores.npz"]
    with np.load(target) as stored:
        assert stored["margins"].tolist() == [0, 1, 2]


def test_two_who_write_the_same_arrays_at_once_do_not_meet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each has written all it has to say before either puts it in place: the file is then one of the two, whole."""
    target, write, both = tmp_path / "scores.npz", np.savez_compressed, threading.Barrier(2)

    def together(*args: Any, **arrays: Any) -> None:
        write(*args, **arrays)
        both.wait(timeout=60)

    monkeypatch.setattr(np, "savez_compressed", together)
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda value: whole_arrays(target, {"margins": np.full(1000, value)}), (1.0, 2.0)))
    assert os.listdir(tmp_path) == ["scores.npz"]
    with np.load(target) as stored:
        assert set(stored["margins"].tolist()) in ({1.0}, {2.0})
