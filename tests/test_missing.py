"""Paths that are not there are told before torch is imported, in the words of the checks that come later."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from expunge.config import DataConfig, ModelConfig, PrivacyConfig, RequestConfig, RetrainConfig, RunConfig
from expunge.data.request import read_request
from expunge.data.sources import read
from expunge.errors import Problem, UsageError
from expunge.methods.deepcut import DeepCUT
from expunge.missing import missing
from expunge.models import inspect_folder
from expunge.privacy import read_salt


def wrong(tmp_path: Path) -> RunConfig:
    gone = str(tmp_path / "gone")
    return RunConfig(
        method=DeepCUT(), model=ModelConfig(path=gone), data=DataConfig(train="gone.csv", held_out=f"{gone}.parquet"),
        request=RequestConfig(file=f"{gone}.txt"), retrain=RetrainConfig(base="./gone", models=("org/name", "~/gone/it")),
        privacy=PrivacyConfig(salt_file=f"{gone}.salt"),
    )  # fmt: skip


def test_they_are_all_told_in_the_words_of_the_checks(tmp_path: Path) -> None:
    config = wrong(tmp_path)
    expected = [
        *inspect_folder(config.model.path, where="model.path"),
        *inspect_folder("./gone", where="retrain.base"),
        *inspect_folder("~/gone/it", where="retrain.models"),
        *told(read, config.data.train, where="data.train"),
        *told(read, config.data.held_out, where="data.held_out"),
        *told(read_request, config.request, None, None, None, None),
        *told(read_salt, config.privacy.salt_file),
    ]
    assert [str(problem) for problem in missing(config)] == [str(problem) for problem in expected]


def told(call: object, *args: object, **options: object) -> list[Problem]:
    with pytest.raises(UsageError) as caught:
        call(*args, **options)  # pyright: ignore[reportCallIssue]
    return list(caught.value.problems)


def test_hub_ids_and_what_is_there_pass(tmp_path: Path) -> None:
    (tmp_path / "train.csv").write_text("id,text\n", encoding="utf-8")
    data = DataConfig(train=str(tmp_path / "train.csv"), held_out="org/data")
    config = RunConfig(method=DeepCUT(), model=ModelConfig(path="org/name"), data=data)
    assert missing(config) == []


def test_torch_is_not_imported_for_them() -> None:
    code = (
        "import sys, expunge.cli; sys.argv = ['expunge', 'run', '--model', './no', '--data', 'no.csv', '--out', './out-no']\n"
        "try: expunge.cli.main()\n"
        "except SystemExit as end: code = end.code\n"
        "sys.exit(code if not {'torch', 'transformers', 'pandas'} & sys.modules.keys() else 9)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert '"no.csv" does not exist' in done.stderr
