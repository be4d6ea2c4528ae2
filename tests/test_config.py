"""The configuration: read, checked as a whole, written back."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from expunge import DeepCUT, registry
from expunge.config import RunConfig, TrainingConfig, read_recipe
from expunge.errors import UsageError
from expunge.template import catalogue, explain, template


@pytest.mark.parametrize("method", registry.names("methods"))
def test_a_printed_config_reads_back_to_the_defaults(tmp_path: Path, method: str) -> None:
    text = template(method)
    (tmp_path / "run.toml").write_text(text, encoding="utf-8")
    config = RunConfig.load(tmp_path / "run.toml")
    assert config.method == registry.find("methods", method)()
    assert config.training == TrainingConfig()
    assert config.data.train == str(tmp_path / "train.csv"), "paths in a file are relative to the file"
    opened = text.replace("# seed = 0", "seed = 0")
    uncommented = [line[2:] if line.startswith("# ") and " = " in line else line for line in opened.splitlines()]
    values = tomllib.loads("\n".join(uncommented))
    assert set(values) == {
        "seed",
        "model",
        "data",
        "request",
        "method",
        "training",
        "stop",
        "retrain",
        "audit",
        "privacy",
    }
    (tmp_path / "open.toml").write_text("\n".join(uncommented), encoding="utf-8")
    assert RunConfig.load(tmp_path / "open.toml") == config, "the comments show the real defaults"


@given(
    st.builds(DeepCUT, gamma=st.floats(0, 9), temperature=st.floats(0.01, 9), views=st.integers(1, 4)),
    st.integers(0, 9),
    st.builds(TrainingConfig, learning_rate=st.floats(1e-9, 1), batch_size=st.integers(1, 99)),
)
def test_config_round_trip(method: DeepCUT, seed: int, training: TrainingConfig) -> None:
    config = RunConfig(method=method, seed=seed, training=training)
    assert RunConfig.from_dict(config.as_dict()) == config


def test_flags_win_over_set_and_set_over_the_file(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('seed = 1\n[method]\nname = "deepcut"\ngamma = 1\ntemperature = 1.0\n', "utf-8")
    config = RunConfig.load(
        tmp_path / "run.toml",
        ["method.gamma=2.0", "method.temperature=2.0", "data.text=body"],
        {"method.temperature": 3.0},
    )
    assert (config.method.gamma, config.method.temperature, config.seed) == (2.0, 3.0, 1)
    assert config.data.text == ("body",)


def test_rules_of_a_request_and_the_format_of_files() -> None:
    config = RunConfig.load(None, [], {"request.mention": "John Smith", "data.format": "conll"})
    assert (config.request.mention, config.request.label, config.data.format) == ("John Smith", None, "conll")
    assert (config.data.text, config.data.label) == ((), None), "the model's task says which columns"
    assert RunConfig.from_dict(config.as_dict()) == config


def test_hub_ids_in_a_file_stay_hub_ids(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[model]\npath = "org/model"\n[data]\ntrain = "data/x.csv"\n', encoding="utf-8")
    config = RunConfig.load(tmp_path / "run.toml")
    assert config.model.path == "org/model"
    assert config.data.train == str(tmp_path / "data/x.csv")


def test_all_problems_are_told_at_once() -> None:
    sets = [
        "method.gama=1",
        "method.temperature=-1",
        "dta.x=1",
        'training.learning_rate="x"',
        "seed=-1",
        "stop.every=0",
    ]
    with pytest.raises(UsageError) as error:
        RunConfig.load(None, sets)
    assert {p.where for p in error.value.problems} == {
        "method.gama", "method.temperature", "dta", "training.learning_rate", "seed", "stop.every",
    }  # fmt: skip
    assert 'Did you mean "gamma"?' in str(error.value)
    assert 'Did you mean "data"?' in str(error.value)


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("epochs = 0", "greater than 0"),
        ("epoch = 3", 'Did you mean "epochs"?'),
        ("learning_rate = nan", "finite"),
        ("epochs = [", "not valid TOML"),
    ],
)
def test_bad_recipes(tmp_path: Path, text: str, word: str) -> None:
    (tmp_path / "recipe.toml").write_text(text, encoding="utf-8")
    with pytest.raises(UsageError) as error:
        read_recipe(tmp_path / "recipe.toml")
    assert word in str(error.value)


def test_the_catalogue_explains_everything() -> None:
    for entries in catalogue().values():
        for name, summary in entries.items():
            assert summary.endswith(".") or ":" in summary
            assert summary in explain(name)
    for name in registry.names("methods"):
        page = explain(name)
        for word in ("Formula:", "Source:", "Ours:", "Failure signs:", "Example:"):
            assert word in page, f"{name} lacks {word}"


def test_models_that_a_method_names_lie_beside_the_file_too(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text('[method]\nname = "o3"\nencoder = "./encoder"\n', encoding="utf-8")
    assert RunConfig.load(tmp_path / "run.toml").as_dict()["method"]["encoder"] == str(tmp_path / "encoder")
