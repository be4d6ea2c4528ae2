"""What an interrupted run keeps: held by one process, listed and removed, whole or not there, and never in the way."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from typer.testing import CliRunner

from conftest import call
from expunge.cli import app
from expunge.errors import NonFiniteLossError, RunError, UsageError
from expunge.folders import is_left_over, whole_folder
from expunge.paused import PausedRun, folder_of, holder, opened
from expunge.progress import Progress
from expunge.snapshot import BrokenSnapshotError, Snapshot
from expunge.trainer import UnlearnTrainer
from test_interruption import ALWAYS, Notes, Small, carried_out, interrupted, small, weights


@pytest.fixture(scope="module")
def texts(tmp_path_factory: pytest.TempPathFactory) -> Small:
    return small(tmp_path_factory.mktemp("texts"), "texts", 0)


@pytest.fixture(scope="module")
def whole(texts: Small, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the run leaves that nobody interrupts."""
    out = tmp_path_factory.mktemp("whole") / "erased"
    carried_out(texts.config(), out)
    return out


HOLDING = """
import sys, time
from expunge.paused import opened
from expunge.progress import Progress
with opened(sys.argv[1], {}, every=None, progress=Progress()):
    print("held", flush=True)
    time.sleep(60)
"""


@contextmanager
def held_elsewhere(out: Path) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the run of an output."""
    with subprocess.Popen([sys.executable, "-c", HOLDING, str(out)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        try:
            yield process
        finally:
            process.kill()


def test_one_run_an_output(texts: Small, tmp_path: Path) -> None:
    """The second is refused at once, with who holds it; killed, the first holds nothing any more."""
    out = tmp_path / "erased"
    with held_elsewhere(out) as other:
        code, _, error = call(["run", *texts.flags(tmp_path / "run.toml"), "--out", str(out)])
        assert code == 2
        assert f'"{out}" is being made by another run (process {other.pid} on ' in error
        assert "Wait for it, or name another folder." in error
        with pytest.raises(UsageError, match="is being made by another run"):
            carried_out(texts.config(), out)
        cleaned = CliRunner().invoke(app, ["clean", str(out)])
        assert f"in use by process {other.pid} on " in cleaned.output
        assert folder_of(out).is_dir()
    code, _, error = call(["run", *texts.flags(tmp_path / "run.toml"), "--out", str(out)])
    assert code == 0, error
    assert not folder_of(out).exists()


def test_clean_lists_and_removes(texts: Small, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "erased"
    kept = interrupted(texts.config(), out, monkeypatch)
    partial = tmp_path / ".erased.abcd_123.partial"
    partial.mkdir()
    other = tmp_path / ".other.abcd_123.partial"
    other.mkdir()
    monkeypatch.chdir(tmp_path)
    with whole_folder(tmp_path / "filled") as filling:
        assert not is_left_over(filling), "somebody fills it"
        listed = CliRunner().invoke(app, ["clean", "--dry-run"])
        assert listed.exit_code == 0
        assert f"{kept} (training up to step 4; begun " in listed.output
        assert listed.output.count("would be removed") == 3
        assert str(filling) not in listed.output
        one = CliRunner().invoke(app, ["clean", "erased"])
        assert one.output.count(": removed") == 2
        assert not kept.exists()
        assert not partial.exists()
        assert other.is_dir()
        assert CliRunner().invoke(app, ["clean"]).output.count(": removed") == 1
        assert filling.is_dir()
    assert not other.exists()
    assert (tmp_path / "filled").is_dir()


def test_clean_leaves_a_run_alone_that_began_since_it_looked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody holds the folder when `clean` looks who does; a run takes it before anything is removed."""
    out = tmp_path / "erased"
    with held_elsewhere(out):
        pass  # killed: its folder stays
    folder, began = folder_of(out), []
    with ExitStack() as runs:

        def looked(of: Path) -> dict[str, Any] | None:
            found = holder(of)
            if not began:
                began.append(runs.enter_context(held_elsewhere(out)))
            return found

        monkeypatch.setattr("expunge.paused.holder", looked)
        cleaned = CliRunner().invoke(app, ["clean", str(out)])
        assert f"in use by process {began[0].pid} on " in cleaned.output
        assert (folder / "holder.json").is_file(), "of the run that goes on nothing is removed"
    monkeypatch.undo()
    assert ": removed" in CliRunner().invoke(app, ["clean", str(out)]).output
    assert not folder.exists()


@contextmanager
def disk_full_beyond(size: int) -> Iterator[None]:
    """The system lets no file grow beyond that many bytes: writes fail as on a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_full_disk_ends_with_a_reason_and_loses_nothing(
    texts: Small, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A checkpoint that cannot be written is told and done without; an output that cannot, leaves what the run has done."""
    out, notes = tmp_path / "erased", Notes()
    kept = interrupted(texts.config(), out, monkeypatch)
    plain = UnlearnTrainer._loss
    monkeypatch.setattr("expunge.stopping.StopRule._put", lambda *args, **kwargs: None)  # it is asked in its own test
    with disk_full_beyond(20_000), pytest.raises(RunError, match=r"writing .* failed"):
        carried_out(texts.config(), out, notes)
    assert any(note.startswith("No checkpoint could be kept; the run goes on without") for note in notes.said)
    assert "the same command goes on from there" in notes.said[-1]
    assert [path.name for path in kept.glob("checkpoint-*")] == ["checkpoint-4"]
    assert os.listdir(tmp_path).count("erased") == 0
    assert not list(tmp_path.glob(".*.partial"))
    monkeypatch.undo()
    assert UnlearnTrainer._loss is plain
    carried_out(texts.config(), out)
    assert weights(out) == weights(whole)


def test_a_place_that_cannot_be_written_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read_only(self: Path, *args: Any, **kwargs: Any) -> None:
        raise OSError(30, "Read-only file system", str(self))

    monkeypatch.setattr(Path, "mkdir", read_only)
    with (
        pytest.raises(RunError, match=r"in which a run keeps its state, cannot be used \(Read-only file system\)"),
        opened(tmp_path / "erased", {}, every=None, progress=Progress()),
    ):
        pass


def test_a_loss_that_is_not_finite_would_only_come_again(tmp_path: Path) -> None:
    out = tmp_path / "erased"

    def run() -> None:
        with opened(out, {}, every=ALWAYS, progress=Progress()) as paused:
            paused.keep("checkpoint", 1, Snapshot())
            raise NonFiniteLossError(2, {"forget": float("nan")})

    with pytest.raises(NonFiniteLossError):
        run()
    assert not folder_of(out).exists()


def test_an_output_that_appeared_whole_leaves_no_state(texts: Small, whole: Path, tmp_path: Path) -> None:
    """Killed after the output had its name: the same command says that it is there, and removes what was kept."""
    out = tmp_path / "erased"
    out.symlink_to(whole)
    (folder_of(out) / "checkpoint-4").mkdir(parents=True)
    code, _, error = call(["run", *texts.flags(tmp_path / "run.toml"), "--out", str(out)])
    assert code == 2
    assert "exists already" in error
    assert not folder_of(out).exists()


def test_checkpoints_cost_a_fiftieth_of_a_run_at_most(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A minute apart; where one takes 3 s to write, 150 s; 0 keeps none; seconds that are given are kept."""
    now = [0.0]
    monkeypatch.setattr("expunge.paused.time.monotonic", lambda: now[0])

    def slow(self: Snapshot, folder: Path) -> None:
        del self, folder
        now[0] += 3.0

    monkeypatch.setattr(Snapshot, "write", slow)
    paused = PausedRun(tmp_path, None, Progress())
    for at, due in ((59.0, False), (60.0, True)):
        now[0] = at
        assert paused.due() is due
    paused.keep("checkpoint", 1, Snapshot())
    for at, due in ((63.0 + 149.0, False), (63.0 + 150.0, True)):
        now[0] = at
        assert paused.due() is due
    now[0] = 0.0
    never, often = PausedRun(tmp_path, 0.0, Progress()), PausedRun(tmp_path, 5.0, Progress())
    often.keep("checkpoint", 1, Snapshot())
    now[0] = 8.0
    assert often.due()
    now[0] = 1e6
    assert not never.due()


def test_a_snapshot_comes_back_to_the_bit(tmp_path: Path) -> None:
    """Floats in JSON are written such that they are read as they were; tensors that share memory are refused by nobody."""
    values = {"loss": 0.1 + 0.2, "least": float(np.nextafter(0, 1)), "list": [1, None, "a"], "infinite": float("inf")}
    tensors = {
        "a": torch.rand(3, 2).T,
        "scalar": torch.tensor(2.5, dtype=torch.float64),
        "bytes": torch.get_rng_state(),
    }
    (tmp_path / "text").write_text("x", encoding="utf-8")
    Snapshot(tensors, values, {"copied": tmp_path / "text"}, {"told.json": "{}"}).write(tmp_path / "kept")
    found = Snapshot.read(tmp_path / "kept")
    assert found.values == values
    assert all(torch.equal(found.tensors[name], tensor) for name, tensor in tensors.items())
    assert {name: path.read_text(encoding="utf-8") for name, path in found.files.items()} == {
        "copied": "x",
        "told.json": "{}",
    }
    with pytest.raises(BrokenSnapshotError):
        Snapshot.read(tmp_path)
    with pytest.raises(RunError, match="cannot be kept"):
        Snapshot(values={"what": object()}).write(tmp_path / "other")
    assert not (tmp_path / "other").exists()
