"""Request after request on one model: who is kept out, what a salt is for, and whether anything came back."""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from conftest import Job, call, write_csv
from expunge import AuditConfig, Erased, RequestConfig, RunError, StopConfig, TrainingConfig, UsageError, unlearn
from expunge.checks import Inputs, Prepared, check
from expunge.config import ModelConfig, RunConfig
from expunge.history.earlier import history_of
from expunge.history.link import Link
from expunge.history.returned import Margins, finding, returned
from expunge.history.verify import verify
from expunge.methods.base import Procedure, ProcedureContext
from expunge.methods.finetune import FineTune
from expunge.record import RunRecord
from expunge.report import render
from expunge.stats import Interval
from expunge.summary import history_lines
from test_history import rows_of

QUICK: dict[str, Any] = {
    "training": TrainingConfig(min_steps=8, epochs=1.0, learning_rate=5e-4),
    "stop": StopConfig(every=4),
    "audit": AuditConfig(audits=("utility", "membership"), bootstrap=20),
    "id": "id",
}
SETS = ["--set", "training.min_steps=8", "--set", "training.epochs=1.0", "--set", "audit.bootstrap=20"]
SETS += ["--set", 'audit.audits=["utility", "membership"]']


# --- did it come back? ------------------------------------------------------------------------------------------------


def spread(low: float, high: float, count: int = 100) -> np.ndarray:
    return np.linspace(low, high, count)


UNSEEN = spread(-1, 1, 400)
ALIKE, ABOVE, BELOW = (Margins(spread(-1, 1) + by, UNSEEN) for by in (0.0, 0.6, -0.6))
# Margins that are uniform on an interval of length 2, one shifted by 0.6: AUC = 1 - (2 - 0.6)^2 / (2 * 2^2) = 0.755.


@pytest.mark.parametrize(
    ("before", "after", "retrained", "then", "back"),
    [
        (ALIKE, ALIKE, [], Interval(0.5, 0.44, 0.56), False),
        (ALIKE, ABOVE, [], Interval(0.5, 0.44, 0.56), True),
        (ALIKE, ABOVE, [], None, True),
        (BELOW, ALIKE, [], Interval(0.25, 0.2, 0.3), False),  # over-forgotten before: it looks never seen now
        (ABOVE, ABOVE, [], Interval(0.5, 0.44, 0.56), True),  # step by step: it rose since it was erased
        (ABOVE, ABOVE, [], Interval(0.755, 0.7, 0.81), False),  # it never was forgotten, so nothing came back
        (ALIKE, ABOVE, [ABOVE, ABOVE], Interval(0.5, 0.44, 0.56), False),  # so would a retrained model have it
        (ALIKE, ABOVE, [ALIKE, ALIKE], Interval(0.5, 0.44, 0.56), True),
        (ABOVE, BELOW, [], Interval(0.5, 0.44, 0.56), False),
    ],
)
def test_came_back_is_risen_and_remembered(before, after, retrained, then, back: bool) -> None:
    found = returned(before, after, retrained, then, confidence=0.95, among=1)
    assert found["came_back"] is back
    if after is ABOVE:
        assert found["after"]["auc"]["value"] == pytest.approx(0.755, abs=0.005)
    assert found["before"]["auc"]["low"] <= found["before"]["auc"]["value"] <= found["before"]["auc"]["high"]


def test_changes_are_paired() -> None:
    found = returned(ALIKE, ABOVE, [], None, confidence=0.95, among=1)
    assert found["change"]["margin"] == {"value": 0.6, "low": 0.6, "high": 0.6}, "every record moved by as much"
    assert found["change"]["auc"]["value"] == pytest.approx(0.255, abs=0.005)


def test_one_record_alone_cannot_be_said_to_be_back() -> None:
    one = [Margins(np.array([value]), UNSEEN) for value in (-1.0, 1.0)]
    found = returned(one[0], one[1], [], None, confidence=0.95, among=1)
    assert found["came_back"] is False
    assert (found["after"]["auc"]["low"], found["after"]["auc"]["high"]) == (0.0, 1.0)


def test_many_earlier_requests_raise_no_more_false_alarms_than_one() -> None:
    """Twenty requests that nothing happened to: at 95 % each, one in 40 would be called risen by chance."""
    rng = np.random.default_rng(0)
    alarms = 0
    for _ in range(30):
        unseen = rng.normal(size=200)
        for _ in range(20):
            old = rng.normal(size=30)
            before = Margins(old, unseen)
            after = Margins(old + rng.normal(scale=0.5, size=30), unseen + rng.normal(scale=0.5, size=200))
            alarms += returned(before, after, [], None, confidence=0.95, among=20)["came_back"]
    assert alarms <= 2, "the family's level allows one run in 40 with an alarm"


# --- runs -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class First:
    """One request carried out and saved: the model, what was erased, and the training data with and without it."""

    erased: Erased
    folder: Path
    gone: list[dict[str, str]]
    left: list[dict[str, str]]
    job: Job

    def ask(self, **changes: Any) -> dict[str, Any]:
        asked = {"held_out": str(self.job.held_out), "salt_file": str(self.job.salt), **QUICK}
        return {**asked, **changes}

    def checked(self, sets: dict[str, Any] | None = None, **inputs: Any) -> Prepared:
        """The next request, checked: ten further records by their ids unless told otherwise."""
        flags = {
            "model.path": str(self.folder), "data.train": str(self.job.train), "data.held_out": str(self.job.held_out),
            "data.id": "id", "privacy.salt_file": str(self.job.salt), **(sets or {}),
        }  # fmt: skip
        rules = ("request.where", "request.ids", "request.fraction", "request.file")
        if not any(rule in flags for rule in rules):
            flags["request.ids"] = [row["id"] for row in self.left[:10]]
        values = {key: value for key, value in flags.items() if value is not None}
        return check(RunConfig.from_dict({}, (), values), Inputs(**inputs))


@pytest.fixture(scope="module")
def first(job: Job, tmp_path_factory: pytest.TempPathFactory) -> First:
    rows = rows_of(job.train)
    erased = unlearn(
        str(job.model), str(job.train), "gradient-difference", forget=[row["id"] for row in rows[:24]],
        held_out=str(job.held_out), salt_file=str(job.salt), **QUICK,
    )  # fmt: skip
    folder = tmp_path_factory.mktemp("first") / "erased"
    assert erased.save(folder) == verify(folder).head
    return First(erased, folder, rows[:24], rows[24:], job)


def told(error: pytest.ExceptionInfo[UsageError]) -> str:
    return " ".join(map(str, error.value.problems))


def test_the_salt_is_needed_and_must_be_the_same(first: First, tmp_path: Path) -> None:
    """Without it earlier requests' records would be trained on again: nothing is done instead."""
    other = tmp_path / "other"
    other.write_bytes(b"another salt of the tests, no secret either")
    with pytest.raises(UsageError) as missing:
        first.checked({"privacy.salt_file": None})
    assert "there is none yet, and the model's history was recorded with one" in told(missing)
    assert "Name that salt: --salt-file FILE" in told(missing)
    with pytest.raises(UsageError) as wrong:
        first.checked({"privacy.salt_file": str(other)})
    assert "it is not the salt that the model's history was recorded with" in told(wrong)
    with pytest.raises(UsageError) as unreadable:
        first.checked({"privacy.salt_file": str(tmp_path / "none")})
    assert len(unreadable.value.problems) == 1, "the cause alone, not what follows from it"


def test_records_must_be_named_as_before(first: First) -> None:
    with pytest.raises(UsageError) as named:
        first.checked({"data.id": None, "request.ids": None, "request.where": "label == 'water'"})
    assert "request 1 named records by column id, this one names them by content" in told(named)
    assert "Name it: --id id." in told(named)


def test_a_record_erased_before_is_refused_unless_it_is_wanted_again(first: First) -> None:
    ids = [first.gone[0]["id"], first.left[0]["id"]]
    with pytest.raises(UsageError) as again:
        first.checked({"request.ids": ids})
    assert "1 of the requested records was erased from this model before (request 1)" in told(again)
    assert "--again" in told(again)
    request = first.checked({"request.ids": ids, "request.again": True}).request
    assert (len(request.forget), request.again, len(request.erased)) == (2, 1, 23)
    everything = {"request.where": f"id in {[row['id'] for row in first.gone]}"}
    with pytest.raises(UsageError) as all_gone:
        first.checked(everything)
    assert "all 24 requested records were erased from this model before" in told(all_gone)
    with pytest.raises(UsageError) as nothing_left:
        first.checked({"request.ids": [row["id"] for row in first.left]})
    assert "all 216 records that are left are to be forgotten" in told(nothing_left)


def test_duplicates_erased_before_are_not_found_again(first: First, tmp_path: Path) -> None:
    """A copy of a record that the first request erased is asked for: its twin is gone already, and does not stay."""
    copy = {**first.gone[0], "id": "copy"}
    train = write_csv(tmp_path / "train.csv", [*first.gone, *first.left, copy])
    prepared = first.checked({"data.train": str(train), "request.ids": ["copy"]})
    assert prepared.request.duplicates == {}
    assert prepared.left()["identical"] == 0


def test_erased_records_are_no_held_out_records(first: First, tmp_path: Path) -> None:
    """Moved from the training file to the held-out one, they would pass for never seen."""
    held_out = write_csv(tmp_path / "held.csv", [*rows_of(first.job.held_out), *first.gone[:5]])
    train = write_csv(tmp_path / "train.csv", first.left)
    prepared = first.checked({"data.train": str(train), "data.held_out": str(held_out)})
    assert prepared.erased_held_out == 5
    assert len(prepared.calibration) + len(prepared.evaluation) == 200
    assert prepared.request.erased == ()


def test_past_records_are_matched_by_their_salted_hashes(first: First, tmp_path: Path) -> None:
    train = str(write_csv(tmp_path / "train.csv", first.left))
    backup = str(write_csv(tmp_path / "backup.csv", [*first.gone[:20], *first.left[:7]]))
    gone = {"data.train": train}
    assert first.checked(gone).past == {}
    prepared = first.checked({**gone, "request.past": [backup]})
    assert prepared.past[1].ids == tuple(row["id"] for row in first.gone[:20])
    assert prepared.strange == 7
    assert not set(prepared.past[1].ids) & set(prepared.train.ids)
    assert len(first.checked().past[1]) == 24, "still in the training data: held as well"
    in_memory = first.checked(gone, past=(first.gone[:3],))
    assert in_memory.past[1].texts == tuple((row["text"],) for row in first.gone[:3])


def test_past_records_that_fit_nothing_are_refused(first: First, tmp_path: Path) -> None:
    strangers = str(write_csv(tmp_path / "strangers.csv", first.left[:4]))
    bare = str(write_csv(tmp_path / "bare.csv", [{"text": "w1", "label": "water"}]))
    for sets, sentence in (
        ({"request.past": [strangers]}, f'no record in "{strangers}" is of an earlier request'),
        ({"request.past": [bare]}, "request.past"),
        ({"request.past": [str(tmp_path / "none.csv")]}, "none.csv"),
        ({"request.past": [strangers], "model.path": str(first.job.model)}, "the model has no earlier requests"),
    ):
        with pytest.raises(UsageError) as error:
            first.checked(sets)
        assert sentence in told(error)


def test_what_is_no_longer_held_is_not_measured(first: First, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", first.left)
    (tmp_path / "ids.txt").write_text(first.left[0]["id"], encoding="utf-8")
    flags = first.job.flags(
        model=first.folder, data=train, forget=tmp_path / "ids.txt", out=tmp_path / "out", method="finetune"
    )
    code, out, error = call(["run", *flags, *SETS])
    assert code == 0, error
    assert "Request 1: not measured again, its records are no longer held (--past-records)." in error
    assert "Request 1 (24 records): not measured, records no longer held." in " ".join(out.split())
    record = RunRecord.read(tmp_path / "out")
    (row,) = record.history["earlier"]
    assert (row["held"], row["not_measured"]) == (0, "records no longer held")
    assert "after" not in row
    assert record.history["kept_out"] == 0
    assert "not measured: records no longer held" in render(record)


def test_earlier_requests_are_measured_before_and_after(first: First, tmp_path: Path) -> None:
    train = write_csv(tmp_path / "train.csv", first.left)
    past = write_csv(tmp_path / "past.csv", first.gone)
    (tmp_path / "ids.txt").write_text("\n".join(row["id"] for row in first.left[:12]), encoding="utf-8")
    flags = {"model": first.folder, "data": train, "forget": tmp_path / "ids.txt", "past-records": past}
    words = ["run", *first.job.flags(**flags, out=tmp_path / "out", method="finetune"), *SETS]
    code, _, error = call(words)
    assert code == 0, error
    record, before = RunRecord.read(tmp_path / "out"), first.erased.record
    (row,) = record.history["earlier"]
    assert (row["number"], row["records"], row["held"], row["method"]) == (1, 24, 24, "gradient-difference")
    auc = before.find("membership AUC (loss or margin)", "unlearned", "forget vs evaluation")
    assert auc is not None
    for found in (row["at_erasure"], row["before"]["auc"]):
        assert found["value"] == pytest.approx(auc.value, abs=1e-5), "the model before is the model that request left"
    known = [record["unlearned"]["margin"] for record in before.records]
    assert row["before"]["margin"]["value"] == pytest.approx(np.mean(known), abs=1e-3)
    assert row["sha256"] == record.history["previous"] == verify(first.folder).head
    assert any(line.startswith("Request 1 (24 of 24 records measured)") for line in history_lines(record))
    page = render(record)
    assert "AUC when erased" in page
    assert f"{row['after']['auc']['value']:.3f}" in page
    links = [Link.from_bytes(f.read_bytes()) for f in sorted((tmp_path / "out" / "erasure").iterdir())]
    assert links[1].content["earlier"][0]["after"] == row["after"]
    secrets = [word for r in first.gone + first.left[:12] for word in (r["id"], r["text"])]
    for file in (tmp_path / "out").rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not [secret for secret in secrets if secret.encode() in content], file
    again = ["audit", str(tmp_path / "out"), "--out", str(tmp_path / "again")]
    code, _, error = call(again)
    assert code == 0, error
    assert RunRecord.read(tmp_path / "again").history["earlier"] == [row], "measured again, it is the same"
    code, _, error = call(["report", str(tmp_path / "out")])
    assert code == 0, error
    assert verify(tmp_path / "out").ok, "a report may be drawn again"


@dataclass(frozen=True, kw_only=True)
class LearnAgain(Procedure):
    """Learns what an earlier request erased: the accident that re-auditing is for."""

    def run(self, context: ProcedureContext) -> Any:
        context.tune(context.model, _RELEARNT[0], 60.0, 3e-3)
        return context.model


_RELEARNT: list[Any] = []


def test_what_came_back_is_found_and_can_be_erased_again(first: First, tmp_path: Path) -> None:
    """Records with labels that only who learnt them would give: before, the model gives others (AUC near 0), after, these."""
    turned = {"water": "machine", "machine": "music", "music": "water"}
    gone = [{**row, "label": turned[row["label"]]} for row in first.gone]
    erased = unlearn(
        str(first.job.model), [*gone, *first.left], "finetune", forget=[row["id"] for row in gone], **first.ask()
    )
    task = erased.prepared.task
    names = list(task.label_names)
    _RELEARNT[:] = [task.encode_texts([(r["text"],) for r in gone], [names.index(r["label"]) for r in gone])]
    with pytest.raises(UsageError, match="there is no base model to compare texts in"):
        erased.forget_next(RequestConfig(ids=(first.left[0]["id"],), neighbours=0.9))
    second = erased.forget_next([row["id"] for row in first.left[:10]], method=LearnAgain())
    (row,) = second.record.history["earlier"]
    assert row["came_back"] is True, row
    assert row["before"]["auc"]["high"] < 0.5
    assert row["after"]["auc"]["low"] > 0.5
    assert row["change"]["auc"]["low"] > 0
    (found,) = [f for f in second.record.findings if f.audit == "history"]
    assert found.kind == "came back"
    assert found == finding(row)
    assert "Records of request 1 are remembered again" in found.sentence
    assert found.sentence.replace("[", "").split()[0] in render(second.record)
    third = second.forget_next(
        RequestConfig(ids=tuple(row["id"] for row in first.gone), again=True), method="gradient-difference"
    )
    assert third.record.history["again"] == 24
    third.save(tmp_path / "third")
    content = verify(tmp_path / "third").links[-1].content
    assert content["request"]["again"] == 24
    assert [
        f["kind"] for f in verify(tmp_path / "third").links[1].content["audit"]["findings"] if f["audit"] == "history"
    ]


def test_a_changed_folder_takes_no_further_request(first: First, tmp_path: Path) -> None:
    folder = tmp_path / "erased"
    shutil.copytree(first.folder, folder)
    weights = bytearray((folder / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    (folder / "model.safetensors").write_bytes(weights)
    code, _, error = call(["check", *first.job.flags(model=folder)])
    assert code == 2
    assert f'the history of "{folder}" does not verify (model.safetensors is not the file that request 1 left' in error
    shutil.copytree(first.folder, tmp_path / "bare")
    shutil.rmtree(tmp_path / "bare" / "erasure")
    code, _, error = call(["check", *first.job.flags(model=tmp_path / "bare")])
    assert code == 2
    assert 'its record.json says so), but its folder "erasure" is missing' in error


def without_history(first: First, folder: Path) -> Path:
    """The folder as a version that kept no history would have written it."""
    shutil.copytree(first.folder, folder)
    shutil.rmtree(folder / "erasure")
    values = json.loads((folder / "record.json").read_text(encoding="utf-8"))
    del values["history"]
    (folder / "record.json").write_text(json.dumps(values), encoding="utf-8")
    return folder


def test_a_folder_from_before_histories_begins_one(first: First, tmp_path: Path) -> None:
    folder = without_history(first, tmp_path / "old")
    assert len(first.checked({"model.path": str(folder)}).request.erased) == 24
    other = tmp_path / "other"
    other.write_bytes(b"another salt of the tests, no secret either")
    train = str(write_csv(tmp_path / "train.csv", first.left))
    for sets in ({"privacy.salt_file": str(other)}, {"data.train": train}):
        with pytest.raises(UsageError) as unknown:
            first.checked({"model.path": str(folder), **sets})
        assert "none of the records that its record.json says were erased is recognised with this salt" in told(unknown)
        assert "--past-records" in told(unknown)
    past = str(write_csv(tmp_path / "past.csv", first.gone[:2]))
    assert len(first.checked({"model.path": str(folder), "data.train": train, "request.past": [past]}).past[1]) == 2
    erased = unlearn(
        str(folder), str(first.job.train), "finetune", forget=[row["id"] for row in first.left[:4]], **first.ask()
    )
    erased.save(tmp_path / "new")
    found = verify(tmp_path / "new")
    assert found.ok, found.wrong
    assert [link.content["adopted"] for link in found.links] == [True, False]
    assert found.links[0].content["code"] is None, "who wrote it then is not known"


def test_weights_that_are_not_the_historys_own_end_the_run(first: First, tmp_path: Path) -> None:
    """Of a folder from before histories no file hashes are known, but the record knows the weights."""
    folder = without_history(first, tmp_path / "old")
    shutil.copy(first.job.model / "model.safetensors", folder / "model.safetensors")
    with pytest.raises(RunError, match="not those that request 1 of its history left"):
        unlearn(str(folder), str(first.job.train), "finetune", forget=[first.left[0]["id"]], **first.ask())


def test_a_model_in_memory_does_not_lose_its_history_unseen(first: First) -> None:
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    model = AutoModelForSequenceClassification.from_pretrained(first.folder)
    tokenizer = AutoTokenizer.from_pretrained(first.folder)
    with pytest.raises(UsageError) as lost:
        unlearn(
            model, str(first.job.train), "finetune", forget=[first.left[0]["id"]], tokenizer=tokenizer, **first.ask()
        )
    assert "in memory it has lost the history there" in told(lost)


@pytest.mark.parametrize("there", ["erasure/0001.json", "record.json"])
def test_a_model_on_a_hub_that_was_erased_from_is_to_be_downloaded(first: First, there: str, monkeypatch) -> None:
    """Its history is not among what transformers fetches: records erased before would be retained ones."""
    from huggingface_hub.errors import LocalEntryNotFoundError

    def fetched(source: str, file: str) -> str:
        assert source == "me/erased"
        if file == there:
            return file
        raise LocalEntryNotFoundError(file)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fetched)
    config = RunConfig(method=FineTune(), model=ModelConfig(path="me/erased"))
    with pytest.raises(UsageError) as error:
        history_of(config, None, b"salt", [first.left[0]["id"]])
    assert f"it holds {there}" in told(error)
    assert "hf download me/erased" in told(error)
    monkeypatch.setattr("huggingface_hub.hf_hub_download", lambda source, file: fetched(source, ""))
    assert history_of(config, None, b"salt", [first.left[0]["id"]]) is None


def test_from_python_the_chain_goes_on_in_memory(first: First, tmp_path: Path) -> None:
    """Two more requests by two more methods; the one in the middle is never saved, and is a link all the same."""
    second = first.erased.forget_next(RequestConfig(label="music"), method="deepcut")
    music = {row["id"] for row in first.left if row["label"] == "music"}
    assert second.record.data["forget"] == len(music)
    third = second.forget_next(next(row["id"] for row in first.left if row["label"] != "music"), method="finetune")
    third.save(tmp_path / "third")
    found = verify(tmp_path / "third")
    assert found.ok, found.wrong
    assert [link.content["method"]["name"] for link in found.links] == ["gradient-difference", "deepcut", "finetune"]
    assert [link.content["model"]["files"] is None for link in found.links] == [False, True, False]
    assert found.links[0] == verify(first.folder).links[0], "what was saved is the link that goes on"
    assert [row["number"] for row in third.record.history["earlier"]] == [1, 2]
    for asked, sentence in (
        (RequestConfig(where="label == 'water'"), "only texts, labels and ids are kept in memory"),
        ("nobody", "1 of 1 requested ids are not in the training data"),
        (first.gone[0]["id"], "erased from this model before (request 1)"),
    ):
        with pytest.raises(UsageError) as error:
            third.forget_next(asked)
        assert sentence in told(error)
    with pytest.raises(UsageError, match="sisa needs a SISA folder, and this is a plain model"):
        third.forget_next(first.left[3]["id"], method="sisa")


def test_past_records_from_python(first: First, tmp_path: Path) -> None:
    train, next_ids = write_csv(tmp_path / "train.csv", first.left), [row["id"] for row in first.left[:4]]
    path = write_csv(tmp_path / "past.csv", first.gone[:10])
    erased = unlearn(
        str(first.folder), str(train), "finetune", forget=next_ids, past_records=[str(path), first.gone[10:]],
        **first.ask(),
    )  # fmt: skip
    assert erased.record.history["earlier"][0]["held"] == 24
    following = erased.forget_next(first.left[5]["id"])
    assert [row["held"] for row in following.record.history["earlier"]] == [24, 4], "what was given is kept in mind"
    alone = unlearn(
        str(first.folder), str(train), "finetune", forget=next_ids, past_records=first.gone[:2], **first.ask()
    )
    assert alone.record.history["earlier"][0]["held"] == 2
    named = alone.forget_next(RequestConfig(ids=(first.left[5]["id"],), past=(str(path),)))
    assert named.record.history["earlier"][0]["held"] == 10, "two of the ten were known"


def test_records_named_by_content_are_known_again(job: Job, tmp_path: Path) -> None:
    """Without an id column a record is its text and label, whatever file it stands in."""
    rows = [{"text": row["text"], "label": row["label"]} for row in rows_of(job.train)]
    ask = {"held_out": str(job.held_out), "salt_file": str(job.salt), **QUICK, "id": None}
    write_csv(tmp_path / "forget.csv", rows[:6])
    erased = unlearn(str(job.model), rows, "finetune", forget=tmp_path / "forget.csv", **ask)
    erased.save(tmp_path / "erased")
    assert verify(tmp_path / "erased").links[0].content["request"]["ids"] == "content"
    write_csv(tmp_path / "next.csv", rows[6:9])
    second = unlearn(
        str(tmp_path / "erased"), rows[3:], "finetune", forget=tmp_path / "next.csv", past_records=rows[:3], **ask
    )
    assert second.record.history["kept_out"] == 3
    assert second.record.history["earlier"][0]["held"] == 6


def test_sentences_of_a_tagger_are_forgotten_request_by_request(tmp_path: Path) -> None:
    from expunge.testing import TAGS, tiny_tagger, tiny_tokenizer, toy_sentences

    rows, held_out = toy_sentences(80, seed=1), toy_sentences(60, seed=2)
    tiny_tagger(seed=5).save_pretrained(tmp_path / "model")
    tiny_tokenizer().save_pretrained(tmp_path / "model")
    (tmp_path / "salt").write_bytes(b"a salt of the tests, not a secret")
    ask: dict[str, Any] = {"held_out": held_out, "salt_file": str(tmp_path / "salt"), "labels": TAGS, **QUICK}
    model = tmp_path / "model"
    for number, (method, asked) in enumerate((("gradient-difference", rows[:9]), ("deepcut", rows[9:15])), 1):
        erased = unlearn(str(model), rows, method, forget=[row["id"] for row in asked], **ask)
        model = tmp_path / f"erased-{number}"
        erased.save(model)
    record = RunRecord.read(model)
    assert (record.data["retain"], record.history["kept_out"]) == (80 - 9 - 6, 9)
    assert record.history["earlier"][0]["held"] == 9
    assert verify(model).ok
    secrets = [word for row in rows[:15] for word in (row["id"], " ".join(row["tokens"]))]
    for file in model.rglob("*"):
        if file.is_file():
            assert not [secret for secret in secrets if secret.encode() in file.read_bytes()], file


@pytest.mark.slow
def test_twenty_requests_in_a_row_with_every_earlier_one_measured_again(job: Job, tmp_path: Path) -> None:
    """The bar of continual erasure: nothing comes back unseen, and the last folder tells the whole story."""
    rows = rows_of(job.train)
    methods = ["gradient-difference", "deepcut", "finetune", "contrastive"]
    model, heads, back = str(job.model), [], []
    for number in range(20):
        asked = [row["id"] for row in rows[8 * number : 8 * number + 8]]
        quick = {**QUICK, "training": replace(QUICK["training"], learning_rate=1e-4)}
        erased = unlearn(
            model, str(job.train), methods[number % 4], forget=asked, held_out=str(job.held_out),
            salt_file=str(job.salt), **quick,
        )  # fmt: skip
        model = str(tmp_path / f"erased-{number + 1}")
        heads.append(erased.save(model))
        history = erased.record.history
        assert history["kept_out"] == 8 * number
        assert [row["held"] for row in history["earlier"]] == [8] * number, "each earlier erasure is measured again"
        assert erased.record.find("accuracy", "unlearned", "evaluation") is not None, "and utility is"
        told = [f.sentence for f in erased.record.findings if f.audit == "history"]
        came = [row["number"] for row in history["earlier"] if row["came_back"]]
        assert [f"Records of request {n} " in sentence for n, sentence in zip(came, told, strict=True)] == [True] * len(
            came
        )
        back += [(number + 1, n) for n in came]
    found = verify(model)
    assert found.ok, found.wrong
    assert [link.sha256 for link in found.links] == heads
    assert all(verify(model, head=head).ok for head in heads)
    print("came back (request, earlier request):", back)
