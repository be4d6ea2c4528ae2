"""Paths that can be none, and places to write that lie within a model that is read: exit code 2, one line a problem."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from conftest import Job, call
from expunge import AuditConfig, Erased, TrainingConfig, UsageError, unlearn
from expunge.config import RunConfig
from expunge.config_paths import expanded, path_problem
from expunge.sisa.build import train_sisa
from test_cli import digest

NOBODY = "~nobody-at-all/x"
QUICK = {"training": TrainingConfig(min_steps=2, epochs=0.1), "audit": AuditConfig(bootstrap=20, audits=("utility",))}
WRONG = pytest.mark.skipif(os.name == "nt", reason="names of files are bytes on POSIX alone")


def refused(words: list[str]) -> list[str]:
    """The lines that a refused command says, one a problem."""
    code, out, error = call(words)
    assert code == 2, error
    assert out == ""
    headline, *problems = error.splitlines()
    assert headline == f"expunge: {len(problems)} problem{'s' if len(problems) > 1 else ''}; nothing was done."
    return [line.removeprefix("  - ") for line in problems]


# Names that are not UTF-8


@WRONG
@pytest.mark.parametrize("option", ["out", "model", "data", "held-out", "forget", "salt-file", "retrained"])
def test_a_path_that_is_not_utf8_is_refused_before_anything_runs(job: Job, tmp_path: Path, option: str) -> None:
    """Such a name cannot stand in record.json, which is written last."""
    place = os.fsdecode(bytes(tmp_path) + b"/er\xff")
    if option != "out":
        shutil.copytree(job.model, place)
    words = ["run", *job.flags(**{"out": tmp_path / "out", option: place})]
    said = refused(words)
    assert [line for line in said if f'the path "{tmp_path}/er\\udcff" is not UTF-8.' in line]
    assert all("Give a path whose names are all UTF-8, those of the folders above it too" in line for line in said)
    assert not (tmp_path / "out").exists()


@WRONG
def test_in_a_folder_that_is_not_utf8_relative_paths_are_refused_and_hub_ids_are_not(
    job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The record names whole paths, so that it can be read from any folder."""
    folder = os.fsdecode(bytes(tmp_path) + b"/er\xff")
    os.mkdir(folder)
    shutil.copy(job.train, os.path.join(folder, "train.csv"))
    monkeypatch.chdir(folder)
    said = refused(["run", *job.flags(data="train.csv", out="out")])
    assert [line.partition(":")[0] for line in said] == ["--out", "data.train"]
    assert f'the path "{tmp_path}/er\\udcff/train.csv" is not UTF-8' in said[1]
    assert path_problem("org/model", "model.path", hub=True) is None
    with pytest.raises(UsageError, match=r"data.train: .* is not UTF-8"):
        unlearn(str(job.model), "train.csv", forget=job.ids, held_out=str(job.held_out), id="id")
    (tmp_path / "run.toml").write_text('[data]\ntrain = "train.csv"\n', encoding="utf-8")
    shutil.copy(tmp_path / "run.toml", "run.toml")
    assert RunConfig.load(tmp_path / "run.toml").data.train == str(tmp_path / "train.csv")
    with pytest.raises(UsageError, match=r"CONFIG: the path .*/run.toml\" is not UTF-8"):
        RunConfig.load("run.toml")


# Homes of nobody, and places without a name


def sisa(job: Job, tmp: Path, **changes: str) -> list[str]:
    options = {"base": job.base, "data": job.train, "recipe": job.recipe, "id": "id", "out": tmp / "out", **changes}
    return ["train-sisa", *(word for name, value in options.items() for word in (f"--{name}", str(value)))]


def plan(job: Job, tmp: Path, *words: str) -> list[str]:
    facts = {"facts": [{"relation": "child", "subject": "Ann", "object": "Bob", "id": "f1"}], "rules": []}
    (tmp / "facts.json").write_text(json.dumps(facts), encoding="utf-8")
    return ["deep", "plan", str(tmp / "facts.json"), *words]


TAKEN: list[tuple[str, Callable[[Job, Path], list[str]]]] = [
    ("CONFIG", lambda job, tmp: ["check", NOBODY]),
    ("NAME", lambda job, tmp: ["show", NOBODY]),
    ("FOLDER", lambda job, tmp: ["history", NOBODY]),
    ("FOLDER", lambda job, tmp: ["verify", NOBODY]),
    ("--public-key", lambda job, tmp: ["verify", str(job.model), "--public-key", NOBODY]),
    ("--sign", lambda job, tmp: ["run", *job.flags(out=tmp / "out"), "--sign", NOBODY]),
    ("--out", lambda job, tmp: ["run", *job.flags(out=NOBODY)]),
    ("--out", lambda job, tmp: ["report", str(tmp), "--out", NOBODY]),
    ("--out", lambda job, tmp: plan(job, tmp, "--target", "f1", "--out", NOBODY)),
    ("OUT", lambda job, tmp: ["clean", NOBODY]),
    ("FACTS", lambda job, tmp: ["deep", "plan", NOBODY, "--rules", str(job.train)]),
    ("--rules", lambda job, tmp: ["deep", "plan", str(job.train), "--rules", NOBODY]),
    ("MODEL", lambda job, tmp: ["deep", "measure", NOBODY, str(job.train)]),
    ("base", lambda job, tmp: sisa(job, tmp, base=NOBODY)),
    ("data.train", lambda job, tmp: sisa(job, tmp, data=NOBODY)),
    ("recipe", lambda job, tmp: sisa(job, tmp, recipe=NOBODY)),
    ("privacy.salt_file", lambda job, tmp: [*sisa(job, tmp), "--salt-file", NOBODY]),
    ("training.cache", lambda job, tmp: ["check", *job.flags(), "--set", f"training.cache={NOBODY}"]),
]


@pytest.mark.parametrize(("where", "words"), TAKEN, ids=[where for where, _ in TAKEN])
def test_the_home_of_nobody_is_told_wherever_a_path_is_taken(
    job: Job, tmp_path: Path, where: str, words: Callable[[Job, Path], list[str]]
) -> None:
    assert f'{where}: "{NOBODY}" is in the home of nobody known here. Write the whole path.' in refused(
        words(job, tmp_path)
    )
    assert not (tmp_path / "out").exists()


def test_the_home_of_nobody_is_told_of_the_places_of_the_salt(job: Job, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EXPUNGE_SALT_FILE", NOBODY)
    assert refused(["check", *job.flags(**{"salt-file": None})])[0].startswith(f'EXPUNGE_SALT_FILE: "{NOBODY}" is in')
    monkeypatch.delenv("EXPUNGE_SALT_FILE")
    monkeypatch.setenv("XDG_CONFIG_HOME", NOBODY)
    assert refused(["check", *job.flags(**{"salt-file": None})])[0].startswith(f'XDG_CONFIG_HOME: "{NOBODY}" is in')


def test_in_python_it_is_told_too(job: Job) -> None:
    with pytest.raises(UsageError) as error:
        unlearn(NOBODY, NOBODY, forget=["r1-0000"], held_out=str(job.held_out), training=TrainingConfig(cache=NOBODY))
    assert [problem.where for problem in error.value.problems] == ["data.train", "model.path", "training.cache"]


def test_nothing_lies_beside_the_root(job: Job) -> None:
    for where, words in (("--out", ["run", *job.flags(out="/")]), ("OUT", ["clean", "/"])):
        said = refused(words)
        assert said == [f'{where}: "/" is a folder without a name, and nothing lies beside it. Name a folder in it.']
    assert refused(["report", str(job.model), "--out", "/"]) == [
        '--out: "/" is a folder. Name a file: --out report.html.'
    ]


def test_clean_tells_all_that_it_cannot_look_for_and_removes_nothing(tmp_path: Path) -> None:
    kept = tmp_path / ".erased.run"
    kept.mkdir()
    (kept / "lock").touch()
    said = refused(["clean", str(tmp_path / "erased"), NOBODY, "/"])
    assert [line.partition(" is ")[0] for line in said] == [f'OUT: "{NOBODY}"', 'OUT: "/"']
    assert kept.is_dir()


def test_a_home_is_written_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann")
    assert expanded("~/key.pem", "--sign") == Path("/home/ann/key.pem")
    assert expanded(Path("key.pem"), "--sign") == Path("key.pem")


# Places within a model that is read


@pytest.fixture(scope="module")
def finished(job: Job, tmp_path_factory: pytest.TempPathFactory) -> tuple[Erased, Path]:
    """A run from Python that was saved, compared with a model that counts as retrained."""
    folder = tmp_path_factory.mktemp("finished")
    erased = unlearn(
        str(job.model), str(job.train), forget=job.ids, held_out=str(job.held_out), id="id", salt_file=str(job.salt),
        base=str(job.base), retrained=[str(job.model)], **QUICK,
    )  # fmt: skip
    erased.save(folder / "erased")
    return erased, folder / "erased"


def within(place: Path, model: Path, where: str = "--out") -> str:
    return f'{where}: "{place}" lies within the model "{model}", which is never changed. Name another place.'


@pytest.mark.parametrize("role", ["model", "base", "retrained"])
def test_a_run_writes_into_no_model_that_it_reads(
    job: Job, finished: tuple[Erased, Path], tmp_path: Path, role: str
) -> None:
    folder = job.base if role == "base" else finished[1]
    options = {role: folder, "out": folder / "x", **({"again": True} if role == "model" else {})}
    before = digest(folder)
    for command in ("check", "run"):
        assert within(folder / "x", folder) in refused([command, *job.flags(**options)])
    assert digest(folder) == before
    assert call(["verify", str(finished[1])])[0] == 0


@pytest.mark.parametrize("role", ["model", "base", "retrained"])
def test_nor_does_its_cache(job: Job, tmp_path: Path, role: str) -> None:
    folder = {"model": job.model, "base": job.base, "retrained": job.model}[role]
    for cache in (folder, folder / "cache"):
        said = refused(["check", *job.flags(**{role: folder}), "--set", f"training.cache={cache}"])
        assert within(cache, folder, "training.cache") in said
    with pytest.raises(UsageError, match=r'training.cache: ".*/cache" lies within the model'):
        unlearn(
            str(job.model), str(job.train), forget=job.ids, held_out=str(job.held_out), id="id",
            training=TrainingConfig(cache=str(job.model / "cache")),
        )  # fmt: skip


def test_nor_does_its_cache_lie_in_what_it_writes_whole(job: Job, tmp_path: Path) -> None:
    out = tmp_path / "out"
    said = refused(["run", *job.flags(out=out), "--set", f"training.cache={out / 'cache'}"])
    assert said == [
        f'training.cache: "{out}/cache" lies within the output "{out}", which is written whole when the run has ended. '
        "Name another place."
    ]


def test_a_saved_model_lies_in_no_other(job: Job, finished: tuple[Erased, Path], tmp_path: Path) -> None:
    erased, _ = finished
    before = digest(job.folder)
    for folder in (job.model, job.base):
        with pytest.raises(UsageError) as error:
            erased.save(folder / "second")
        assert str(error.value) == within(folder / "second", folder, "folder")
    with pytest.raises(UsageError, match=f'folder: "{NOBODY}" is in the home of nobody'):
        erased.save(NOBODY)
    with pytest.raises(UsageError, match=f'sign: "{NOBODY}" is in the home of nobody'):
        erased.save(tmp_path / "second", sign=NOBODY)
    assert digest(job.folder) == before


def test_an_audit_writes_into_no_model_that_it_reads(job: Job, finished: tuple[Erased, Path], tmp_path: Path) -> None:
    """Of another model the run's own folder is read too: its history lists its files."""
    _, folder = finished
    other = tmp_path / "other"
    shutil.copytree(job.model, other)
    before = digest(folder)
    for place, words in (
        (folder, []),
        (folder, ["--model", str(other)]),
        (other, ["--model", str(other)]),
        (other, ["--retrained", str(other)]),
        (job.model, []),
        (job.base, []),
    ):
        assert refused(["audit", str(folder), "--out", str(place / "again"), *words]) == [
            within(place / "again", place)
        ]
    said = refused(["audit", str(folder), "--out", str(tmp_path / "again"), "--model", NOBODY])
    assert said == [f'--model: "{NOBODY}" is in the home of nobody known here. Write the whole path.']
    assert digest(folder) == before
    assert call(["verify", str(folder)])[0] == 0


def test_a_sisa_ensemble_is_not_written_into_its_base(job: Job) -> None:
    before = digest(job.base)
    with pytest.raises(UsageError) as error:
        train_sisa(job.base, str(job.train), out=job.base / "sisa", recipe=job.recipe, id="id", salt_file=str(job.salt))
    assert str(error.value) == within(job.base / "sisa", job.base, "out")
    assert digest(job.base) == before


def test_the_cache_of_a_config_file_lies_beside_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[training]\ncache = "cache"\n', encoding="utf-8")
    assert RunConfig.load(tmp_path / "run.toml").training.cache == str(tmp_path / "cache")
    assert RunConfig.load(tmp_path / "run.toml", ["training.cache=cache"]).training.cache == "cache"
