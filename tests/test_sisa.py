"""SISA: weights that equal, bit for bit, those never trained on the erased records; folders, requests, refusals."""

from __future__ import annotations

import json
import re
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification

from conftest import call
from expunge import AuditConfig, UsageError, unlearn
from expunge.config import Recipe
from expunge.errors import DivergedError
from expunge.head import find_head
from expunge.history.verify import verify
from expunge.models import load_model, weights_sha256
from expunge.progress import ConsoleProgress, Progress
from expunge.scoring import score
from expunge.sisa.build import train_sisa
from expunge.sisa.ensemble import Ensemble, log_mean
from expunge.sisa.manifest import Ledger, Manifest
from expunge.sisa.plan import Plan
from expunge.sisa.request import erase
from expunge.sisa.training import Shards
from expunge.tasks.base import Encoded
from expunge.tasks.text_classification import TextClassification
from expunge.testing import tiny_classifier, tiny_tokenizer, toy_records

NAMES = ("water", "machine", "music")
RECIPE = Recipe(epochs=2.0, batch_size=8, learning_rate=1e-3, warmup=0.1)
ROWS = toy_records(60, seed=1)
PLAN = Plan(shards=3, slices=3, epochs=2.0)
SALT = b"a salt of the tests, not a secret"
QUICK: dict[str, Any] = {"id": "id", "audit": AuditConfig(audits=("utility",), bootstrap=20)}


def in_slice(number: int, rows: list[dict[str, str]] = ROWS, shard: int | None = None) -> dict[str, str]:
    return next(r for r in rows if PLAN.place(r["id"])[1] == number and shard in (None, PLAN.place(r["id"])[0]))


def without(*gone: dict[str, str]) -> list[dict[str, str]]:
    return [row for row in ROWS if row not in gone]


class Place:
    """A base, a salt, and ensembles trained once for each set of rows."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.base, self.salt = folder, folder / "base", folder / "salt"
        tiny_classifier(seed=5).bert.save_pretrained(self.base)
        tiny_tokenizer().save_pretrained(self.base)
        self.salt.write_bytes(SALT)
        self.made: dict[Any, Path] = {}

    def trained(self, rows: list[dict[str, str]], adapter: str = "none", **changes: Any) -> Path:
        key = (tuple(row["id"] for row in rows), adapter, tuple(changes.items()))
        if key not in self.made:
            self.made[key] = self.folder / f"sisa-{len(self.made)}"
            options = {"recipe": RECIPE, "shards": 3, "slices": 3, "labels": NAMES, "id": "id", **changes}
            train_sisa(
                self.base, rows, out=self.made[key], adapter=adapter, salt_file=str(self.salt), **options
            )  # fmt: skip
        return self.made[key]

    def loaded(self, folder: Path) -> Ensemble:
        return load_model(str(folder), "AutoModelForSequenceClassification", where="model.path")

    def erased(
        self, folder: Path, gone: list[dict[str, str]], out: Path, rows: list[dict[str, str]] = ROWS
    ) -> Ensemble:
        """Erase from a folder and save; the rows may hold what was erased before."""
        ensemble = self.loaded(folder)
        ensemble.ledger = Ledger(SALT)
        kept = [row for row in rows if row not in gone]
        result = erase(
            ensemble, task=TASK, forget=encoded(gone), forget_ids=[r["id"] for r in gone], retain=encoded(kept),
            retain_ids=[r["id"] for r in kept], spend=lambda passes: None,
        )  # fmt: skip
        result.save_pretrained(out)
        TASK.tokenizer.save_pretrained(out)
        return result


TASK = TextClassification(tiny_tokenizer(), 48, NAMES)


def encoded(rows: list[dict[str, str]]) -> Encoded:
    return TASK.encode_texts([(row["text"],) for row in rows], [NAMES.index(row["label"]) for row in rows])


def weights(folder: Path) -> dict[str, bytes]:
    """Every checkpoint of a SISA folder, byte for byte."""
    return {str(file.relative_to(folder)): file.read_bytes() for file in sorted(folder.glob("shard-*/*/*.safetensors"))}


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Place:
    return Place(tmp_path_factory.mktemp("sisa"))


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize("number", [1, 3])
def test_erasing_equals_never_having_trained(place: Place, tmp_path: Path, adapter: str, number: int) -> None:
    gone = in_slice(number)
    shard = PLAN.place(gone["id"])[0]
    before = place.trained(ROWS, adapter)
    made = place.erased(before, [gone], tmp_path / "erased")
    after, fresh, old = weights(tmp_path / "erased"), weights(place.trained(without(gone), adapter)), weights(before)
    assert len(after) == 9
    assert after == fresh, "bit for bit, every shard and stage"
    touched = {name for name in after if after[name] != old[name]}
    assert touched == {name for name in after if f"shard-{shard}/" in name and int(name.split("/")[1][-1]) >= number}
    again = place.loaded(tmp_path / "erased")
    assert (
        weights_sha256(again)
        == weights_sha256(made)
        == weights_sha256(place.loaded(place.trained(without(gone), adapter)))
    )
    assert weights_sha256(again) != weights_sha256(place.loaded(before))


@pytest.mark.parametrize("adapter", ["none", "lora"])
def test_two_requests_equal_training_without_both(place: Place, tmp_path: Path, adapter: str) -> None:
    first = in_slice(2)
    second = in_slice(1, without(first), shard=PLAN.place(first["id"])[0])
    place.erased(place.trained(ROWS, adapter), [first], tmp_path / "one")
    place.erased(tmp_path / "one", [second], tmp_path / "two", rows=ROWS[::-1])
    assert weights(tmp_path / "two") == weights(place.trained(without(first, second), adapter))
    assert len(Manifest.read(tmp_path / "two").erased) == 2
    place.erased(place.trained(ROWS, adapter), [second, first], tmp_path / "both")
    assert weights(tmp_path / "both") == weights(tmp_path / "two"), "one request for both gives the same"


def test_neither_order_nor_earlier_random_numbers_matter(place: Place, tmp_path: Path) -> None:
    torch.manual_seed(99)
    state = torch.get_rng_state()
    turned = place.trained(ROWS[::-1])
    assert torch.equal(torch.get_rng_state(), state), "the caller's random numbers are left alone"
    assert weights(turned) == weights(place.trained(ROWS))
    assert Manifest.read(turned) == Manifest.read(place.trained(ROWS))
    assert weights(place.trained(ROWS, seed=1)) != weights(turned)


def test_a_shard_without_records_takes_no_part(place: Place, tmp_path: Path) -> None:
    alone, rest = in_slice(2, shard=0), [row for row in ROWS if PLAN.place(row["id"])[0] != 0]
    rows = [alone, *rest]
    before = place.trained(rows)
    stages = [before / "shard-0" / f"stage-{r}" / "model.safetensors" for r in (1, 2, 3)]
    one, two, three = (file.read_bytes() for file in stages)
    assert one != two, "slice 2 holds the record"
    assert two == three, "slice 3 is empty: no step"
    assert len(place.loaded(before).members) == 3
    made = place.erased(before, [alone], tmp_path / "erased", rows)
    assert list(made.members) == list(place.loaded(tmp_path / "erased").members) == ["1", "2"]
    assert weights(tmp_path / "erased") == weights(place.trained(rest))
    assert not (tmp_path / "erased" / "shard-0").exists()


def test_the_ensemble_answers_with_the_mean_probability(place: Place) -> None:
    """Two members that say (.8, .2) and (.4, .6): the mean is (.6, .4)."""
    said = [torch.tensor([[0.8, 0.2]]).log() + 3, torch.tensor([[0.4, 0.6]]).log() - 1]
    torch.testing.assert_close(log_mean(said).exp(), torch.tensor([[0.6, 0.4]]))

    folder = place.trained(ROWS)
    ensemble, rows = place.loaded(folder), encoded(ROWS[:10])
    batch = TASK.collate(rows, range(10))
    members = [AutoModelForSequenceClassification.from_pretrained(folder / f"shard-{s}" / "stage-3") for s in range(3)]
    with torch.inference_mode():
        mean = torch.stack([m.eval()(**batch.inputs).logits.softmax(-1) for m in members]).mean(0)
        torch.testing.assert_close(ensemble(**batch.inputs).logits.exp(), mean)
    head = find_head(ensemble, batch)
    table = score(ensemble, head, rows, TASK)
    assert table.hidden.shape == (10, 3 * 32)
    np.testing.assert_array_equal(table.predictions, mean.argmax(-1).numpy())
    np.testing.assert_allclose(np.exp(-table.losses), mean[range(10), rows.flat_labels].numpy(), rtol=1e-5)
    assert ensemble.config.num_labels == 3


def test_a_run_reports_its_real_cost_and_names_nobody(place: Place, tmp_path: Path) -> None:
    gone, held_out = in_slice(2), toy_records(40, seed=2)
    folder, salt = str(place.trained(ROWS)), str(place.salt)
    ask: dict[str, Any] = {"held_out": held_out, "salt_file": salt, "progress": ConsoleProgress(), **QUICK}
    erased = unlearn(folder, ROWS, "sisa", forget=[gone["id"]], **ask)
    erased.save(tmp_path / "erased")
    assert weights(tmp_path / "erased") == weights(place.trained(without(gone)))
    found, manifest = erased.record.training["sisa"], Manifest.read(tmp_path / "erased")
    shard = PLAN.place(gone["id"])[0]
    passes = sum(manifest.passes[shard][1:])
    assert erased.record.cost["training"] == found["passes"] == passes
    assert found["share"] == pytest.approx(passes / sum(map(sum, Manifest.read(folder).passes)), abs=1e-6)
    assert found["expected_share"] == pytest.approx(14 / 54, abs=1e-6), "sum of r^2 over (3 x 3 x 6)"
    assert found["plain_retraining_passes"] == erased.record.cost["retraining"] == 2 * 59
    assert "2 of 9 stages" in erased.record.training["reason"]
    assert erased.record.models["original"]["sha256"] == weights_sha256(place.loaded(Path(folder)))
    assert erased.record.models["unlearned"]["sha256"] == weights_sha256(place.loaded(tmp_path / "erased"))
    assert erased.score(["river w1"]).shape == (1, 3)
    for file in (tmp_path / "erased").rglob("*.json"):
        text = file.read_text(encoding="utf-8")
        assert gone["id"] not in text, file
        assert gone["text"] not in text, file
    assert manifest.erased == (Ledger(SALT).mark(gone["id"]),)
    assert manifest.erased[0].startswith(erased.record.records[0]["id"]), "the pseudonym in the report begins it"

    following = in_slice(3, without(gone))
    second = erased.forget_next([following["id"]])
    second.save(tmp_path / "second")
    assert weights(tmp_path / "second") == weights(place.trained(without(gone, following)))
    with pytest.raises(UsageError, match="1 of the requested records was erased from this SISA folder before"):
        unlearn(str(tmp_path / "erased"), ROWS, "sisa", forget=[gone["id"], following["id"]], **ask)

    by_folder = unlearn(str(tmp_path / "erased"), ROWS, "sisa", forget=[following["id"]], **ask)
    by_folder.save(tmp_path / "by-folder")
    assert weights(tmp_path / "by-folder") == weights(tmp_path / "second")
    assert by_folder.record.history["kept_out"] == 1
    assert by_folder.record.history["earlier"][0]["held"] == 1
    for name in ("second", "by-folder"):
        found = verify(tmp_path / name)
        assert found.ok, found.wrong
        assert [link.marks for link in found.links] == [(Ledger(SALT).mark(row["id"]),) for row in (gone, following)]
    shard = next((tmp_path / "second").glob("shard-*/*/*.safetensors"))
    shard.write_bytes(shard.read_bytes()[:-1] + b"!")
    assert verify(tmp_path / "second").wrong == [
        f"{shard.relative_to(tmp_path / 'second').as_posix()} is not the file that request 2 left (other SHA-256)."
    ]


def test_erased_records_may_stay_in_the_data_or_go(place: Place, tmp_path: Path) -> None:
    from expunge.checks import Inputs, check
    from expunge.config import RunConfig

    gone, following = in_slice(2), in_slice(3)
    place.erased(place.trained(ROWS), [gone], tmp_path / "one")
    for rows in (ROWS, without(gone)):
        place.erased(tmp_path / "one", [following], tmp_path / f"two-{len(rows)}", rows)
        assert weights(tmp_path / f"two-{len(rows)}") == weights(place.trained(without(gone, following)))
    values = {
        "method": {"name": "sisa"}, "model": {"path": str(tmp_path / "one")}, "data": {"id": "id"},
        "privacy": {"salt_file": str(place.salt)}, "request": {"where": f"id in ['{gone['id']}', '{following['id']}']"},
    }  # fmt: skip
    prepared = check(RunConfig.from_dict(values), Inputs(train=ROWS, held_out=toy_records(40, seed=2)))
    assert [prepared.train.ids[i] for i in prepared.request.forget] == [following["id"]], "a rule skips what is gone"
    assert len(prepared.request.retain) == 58


def test_language_models_are_refused(place: Place, tmp_path: Path) -> None:
    """Their answers would have become names of classes, and stood in the folder."""
    rows = [{"prompt": f"Why {i}?", "answer": f"Because of {i}."} for i in range(8)]
    with pytest.raises(UsageError) as error:
        train_sisa(place.base, rows, out=tmp_path / "out", task="generation", recipe=RECIPE)
    assert "SISA trains classifiers and taggers" in str(error.value)
    assert not (tmp_path / "out").exists()


def test_what_does_not_fit_is_refused_before_weights_load(place: Place, tmp_path: Path, monkeypatch) -> None:
    folder, held_out, salt = str(place.trained(ROWS)), toy_records(40, seed=2), str(place.salt)
    plain = tmp_path / "plain"
    tiny_classifier(seed=5).save_pretrained(plain)
    tiny_tokenizer().save_pretrained(plain)
    ask: dict[str, Any] = {"forget": [ROWS[0]["id"]], "held_out": held_out, "salt_file": salt, **QUICK}
    with monkeypatch.context() as patch:
        patch.setattr("expunge.execution.Run.carry_out", lambda self: pytest.fail("weights would load"))
        with pytest.raises(UsageError, match=r"SISA ensemble; no other method fits it\. Use the method sisa"):
            unlearn(folder, ROWS, "deepcut", **ask)
        with pytest.raises(UsageError, match=r"needs a SISA folder.*train-sisa"):
            unlearn(str(plain), ROWS, "sisa", **ask)
        other = tmp_path / "other-salt"
        other.write_bytes(b"another salt of the tests")
        with pytest.raises(UsageError, match="not the salt the SISA folder was made with"):
            unlearn(folder, ROWS, "sisa", **{**ask, "salt_file": str(other)})
        place.erased(place.trained(ROWS), [ROWS[0]], tmp_path / "broken")
        (tmp_path / "broken" / "shard-1" / "stage-2" / "model.safetensors").unlink()
        with pytest.raises(UsageError, match=r"lacks shard-1/stage-2/\*.safetensors"):
            unlearn(str(tmp_path / "broken"), ROWS, "sisa", **ask)
        (tmp_path / "broken" / "sisa.json").write_text("{}", encoding="utf-8")
        with pytest.raises(UsageError, match=r"sisa\.json of .* cannot be read"):
            unlearn(str(tmp_path / "broken"), ROWS, "sisa", **ask)
    with pytest.raises(UsageError, match=r"59 here.*in slice \d of shard \d"):
        place.erased(Path(folder), [ROWS[0]], tmp_path / "x", ROWS[:-1])
    changed = [{**ROWS[0], "text": ROWS[0]["text"] + " w1"}, *ROWS[1:]]
    with pytest.raises(UsageError, match="the training data are not those of the SISA folder"):
        place.erased(Path(folder), [ROWS[1]], tmp_path / "x", changed)
    assert not (tmp_path / "x").exists()


def test_a_changed_base_is_refused(place: Place, tmp_path: Path) -> None:
    for adapter in ("none", "lora"):
        folder = tmp_path / adapter
        place.erased(place.trained(ROWS, adapter), [ROWS[0]], folder)
        tiny_classifier(seed=6).bert.save_pretrained(folder / "base")
        with pytest.raises(UsageError, match="has changed since the ensemble was trained from it"):
            place.erased(folder, [ROWS[1]], tmp_path / "x")


def test_another_machine_is_noted(place: Place, tmp_path: Path) -> None:
    folder, notes = tmp_path / "other", Progress()
    place.erased(place.trained(ROWS), [ROWS[0]], folder)
    text = (folder / "sisa.json").read_text("utf-8")
    (folder / "sisa.json").write_text(text.replace('"threads": "', '"threads": "7'), "utf-8")
    said: list[str] = []
    notes.note = said.append
    ensemble = place.loaded(folder)
    ensemble.bind(SALT, notes)
    ids, rows = [row["id"] for row in ROWS], encoded(ROWS)
    given = {"forget": rows.take([1]), "forget_ids": ids[1:2], "retain": rows.take(range(2, 60)), "retain_ids": ids[2:]}
    erase(ensemble, task=TASK, **given, spend=lambda passes: None)
    assert len(said) == 1
    assert re.search(r"\(threads 7\d+ then, \d+ now\)", said[0])


def test_training_options_are_checked_together(place: Place, tmp_path: Path) -> None:
    with pytest.raises(UsageError) as error:
        train_sisa(
            place.trained(ROWS), [*ROWS, ROWS[0]], out=tmp_path, recipe=tmp_path / "none.toml", id="id", shards=0,
            adapter="lora2", salt_file=str(tmp_path / "none"),
        )  # fmt: skip
    message = str(error.value)
    for word in (
        "exists already",
        "is a SISA folder",
        "the recipe cannot be read",
        "sisa.shards",
        "sisa.adapter",
        "1 ids stand",
    ):
        assert word in message, word
    assert "privacy.salt_file" in message
    with pytest.raises(UsageError, match="the classes are water"):
        train_sisa(place.base, [r for r in ROWS if r["label"] == "water"], out=tmp_path / "x", recipe=RECIPE, id="id")


def test_an_interruption_leaves_nothing(place: Place, tmp_path: Path, monkeypatch) -> None:
    before = place.trained(ROWS)
    write, written = Shards.write, []

    def stopped(self: Shards, model: Any, checkpoint: Path) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(checkpoint)
        write(self, model, checkpoint)

    (tmp_path / "temporary").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "temporary"))
    monkeypatch.setattr(Shards, "write", stopped)
    with pytest.raises(KeyboardInterrupt):
        train_sisa(place.base, ROWS, out=tmp_path / "out", recipe=RECIPE, id="id", salt_file=str(place.salt))
    assert [p.name for p in tmp_path.iterdir()] == ["temporary"]
    written.clear()
    with pytest.raises(KeyboardInterrupt):
        place.erased(before, [in_slice(1)], tmp_path / "erased")
    assert len(written) == 2
    assert not list((tmp_path / "temporary").iterdir())
    monkeypatch.setattr(Shards, "write", write)
    made = place.erased(before, [in_slice(1)], tmp_path / "erased")
    assert list((tmp_path / "temporary").iterdir()), "kept while the ensemble is"
    del made
    assert not list((tmp_path / "temporary").iterdir())


def test_a_loss_that_is_not_finite_stops_training(place: Place, tmp_path: Path) -> None:
    wild = Recipe(epochs=9.0, batch_size=8, learning_rate=1e30)
    with pytest.raises(DivergedError, match=r"not finite at shard 0, stage \d, step"):
        train_sisa(place.base, ROWS, out=tmp_path / "out", recipe=wild, id="id", salt_file=str(place.salt))
    assert not list(tmp_path.iterdir())


def test_taggers_too(place: Place, tmp_path: Path) -> None:
    tags = {"river": "B-PLACE", "engine": "B-THING", "violin": "I-THING"}
    rows = [
        {"id": r["id"], "tokens": r["text"].split(), "ner_tags": [tags.get(w, "O") for w in r["text"].split()]}
        for r in ROWS
    ]
    options: dict[str, Any] = {"recipe": RECIPE, "id": "id", "shards": 2, "slices": 2, "salt_file": str(place.salt)}
    train_sisa(place.base, rows, out=tmp_path / "all", task="token-classification", **options)
    assert Manifest.read(tmp_path / "all").members.label_names == ("B-PLACE", "B-THING", "I-THING", "O")
    held_out = [{**row, "tokens": ["w9", *row["tokens"]], "ner_tags": ["O", *row["ner_tags"]]} for row in rows[:20]]
    erased = unlearn(
        str(tmp_path / "all"), rows, "sisa", forget=[rows[5]["id"]],
        held_out=[{k: v for k, v in row.items() if k != "id"} for row in held_out], salt_file=str(place.salt), **QUICK,
    )  # fmt: skip
    erased.save(tmp_path / "erased")
    train_sisa(place.base, rows[:5] + rows[6:], out=tmp_path / "fresh", task="token-classification", **options)
    assert weights(tmp_path / "erased") == weights(tmp_path / "fresh") != weights(tmp_path / "all")


def test_from_the_shell(place: Place, tmp_path: Path) -> None:
    import pandas

    def said(*words: object) -> str:
        code, out, error = call(list(map(str, words)))
        assert code == 0, error
        return out

    pandas.DataFrame(ROWS).to_csv(tmp_path / "train.csv", index=False)
    pandas.DataFrame(toy_records(40, seed=2)).to_csv(tmp_path / "test.csv", index=False)
    (tmp_path / "recipe.toml").write_text("epochs = 2\nbatch_size = 8\nlearning_rate = 1e-3\nwarmup = 0.1\n", "utf-8")
    gone, following = in_slice(1), in_slice(3)
    for name, row in (("one", gone), ("two", following)):
        (tmp_path / f"{name}.txt").write_text(row["id"], encoding="utf-8")
    data = ("--data", tmp_path / "train.csv", "--id", "id", "--salt-file", place.salt)
    shown = said(
        "train-sisa", "--base", place.base, *data, "--recipe", tmp_path / "recipe.toml", "--shards", 3, "--slices", 3,
        "--labels", ",".join(NAMES), "--out", tmp_path / "sisa",
    )  # fmt: skip
    assert "60 records in 3 shards of 3 slices" in shown
    assert weights(tmp_path / "sisa") == weights(place.trained(ROWS))
    held_out = ("--held-out", tmp_path / "test.csv", "--set", 'audit.audits=["utility"]', "--set", "audit.bootstrap=20")
    ask = ("run", "--method", "sisa", *data, *held_out)
    shown = said(*ask, "--model", tmp_path / "sisa", "--forget", tmp_path / "one.txt", "--out", tmp_path / "first")
    assert "3 of 9 stages trained again" in shown
    said(*ask, "--model", tmp_path / "first", "--forget", tmp_path / "two.txt", "--out", tmp_path / "second")
    assert weights(tmp_path / "second") == weights(place.trained(without(gone, following)))
    said("audit", tmp_path / "second", "--forget", tmp_path / "two.txt", "--out", tmp_path / "audited")
    before, after = (json.loads((tmp_path / f / "record.json").read_text("utf-8")) for f in ("second", "audited"))
    assert before["measurements"] == after["measurements"]
