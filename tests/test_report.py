"""The report: what it holds, what it must never hold, and how much it weighs."""

from __future__ import annotations

import base64
import dataclasses
import hashlib
import html
import json
import re
from pathlib import Path
from typing import Any

import pytest

from conftest import Job
from expunge.config import RunConfig
from expunge.cost_rows import cost_rows
from expunge.page import as_json
from expunge.record import RunRecord
from expunge.record_rows import AT_ONCE, Column, record_rows
from expunge.report import render
from expunge.summary import table, warnings
from report_records import grown, real_record

EVIL = "\"><script>alert('é')</script><!--&amp;"


@pytest.fixture(scope="module")
def record(job: Job) -> RunRecord:
    return real_record(job)


@pytest.fixture(scope="module")
def plain(record: RunRecord) -> RunRecord:
    """Without drawings, which take longer than the rest."""
    return dataclasses.replace(record, figures={}, training={**record.training, "history": [], "checks": []})


@pytest.fixture(scope="module")
def page(record: RunRecord) -> str:
    return render(record, "erased")


def text_of(page: str) -> str:
    """What a reader sees: tags, style and scripts taken off, white space made one."""
    seen = re.sub(r"(?s)<(style|script)\b.*?</\1>|<[^>]+>", " ", page)
    return " ".join(html.unescape(seen).split())


def section(page: str, name: str) -> str:
    """What stands under the heading with this id, up to the next of its rank."""
    return page[page.index(f'id="{name}"') :].partition("<h2")[0]


@pytest.mark.parametrize(
    ("side", "words"),
    [
        ("low", ("learning_rate=0.00067 (it was 0.002)", "stop.every=2 (checks were at steps 0, 5)")),
        ("high", ("epochs=",)),
    ],
)
def test_a_hint_says_what_to_try_beside_what_it_was(record: RunRecord, side: str, words: tuple[str, ...]) -> None:
    checks = [{**record.training["checks"][0], "step": step} for step in (0, 5)]
    evidence = record.verdict["evidence"]
    classes = {**record.verdict["classes"], evidence: {"criteria": [{"side": side}]}}
    missed = dataclasses.replace(
        record, training={**record.training, "checks": checks},
        verdict={**record.verdict, "outcome": "not reached", "classes": classes},
    )  # fmt: skip
    (hint,) = [line for line in warnings(missed) if line.startswith("To try")]
    for word in (*words, "(expunge show deepcut)"):
        assert word in hint
    without = dataclasses.replace(missed, training={**missed.training, "history": []})
    assert not any("learning_rate" in line for line in warnings(without)), "a method without steps has none"


def test_the_verdict_is_one_sentence_with_its_evidence_class(record: RunRecord, page: str) -> None:
    seen = text_of(page[: page.index('aria-label="Contents"')])
    assert record.verdict["sentence"] in seen
    assert "Evidence class: retrain-compared , 2 retrained models." in seen
    for finding in record.findings:
        assert finding.sentence in seen


def test_every_figure_stands_with_its_interval_n_and_direction(record: RunRecord, page: str) -> None:
    rows = re.findall(r"(?s)<tr><th scope=\"row\">(.*?)</tr>", section(page, "measures"))
    assert len(rows) == len({(m.name, m.group) for m in record.measurements})
    for m in record.measurements:
        row = text_of(next(r for r in rows if html.unescape(r).startswith(f"{m.name}, {m.group}</th>")))
        assert f" {m.n} " in row
        assert f"{m.value:.3f} [{m.low:.3f}, {m.high:.3f}]" in row
        if m.model == "unlearned" and m.gap is not None and m.noise_floor is not None:
            assert f"{m.gap:.3f} (noise {m.noise_floor:.3f})" in row


def test_sections_the_reader_needs_are_there(page: str) -> None:
    seen = text_of(page)
    for words in (
        "Before, after, retrained", "What the verdict rests on", "How it ended and what it cost", "Inside the model",
        "Margins and membership", "Each erased record", "Duplicates", "History", "What this does not prove",
        "What was erased, and what was not", "How to do it again",
    ):  # fmt: skip
        assert words in seen
    for title in (
        "Latent map",
        "Linear probes",
        "Margins of forget",
        "Membership attack",
        "Parts of the loss",
        "Checks of",
    ):
        assert f'aria-label="{title}' in page
    for target in re.findall(r'href="#([^"]+)"', page):
        assert f'id="{target}"' in page, f"#{target} leads nowhere"


def test_nothing_can_be_fetched_and_only_the_reports_own_script_runs(page: str) -> None:
    policy = re.search(r'Content-Security-Policy" content="([^"]+)"', page)
    assert policy
    rules = html.unescape(policy[1])
    assert rules.startswith("default-src 'none'")
    scripts = re.findall(r"(?s)<script>(.*?)</script>", page)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'" in rules
    assert len(re.findall(r"<script\b", page)) == 2, "the other one is data"
    assert not re.search(r"\bon[a-z]+=\"|(?:src|href)=\"(?!#)|url\((?!#)|@import", page)


def test_markup_in_names_and_ids_is_shown_not_obeyed(plain: RunRecord) -> None:
    rows = tuple({**row, "id": EVIL, "told apart": EVIL} for row in grown(plain, AT_ONCE + 2).records)
    config = json.loads(json.dumps(plain.config))
    config["model"]["path"] = config["data"]["train"] = EVIL
    findings = (dataclasses.replace(plain.findings[0], sentence=EVIL, kind=EVIL, audit=EVIL),)
    wild = dataclasses.replace(
        plain, records=rows, config=config, findings=findings, not_measured={EVIL: EVIL},
        measurements=tuple(dataclasses.replace(m, name=EVIL, group=EVIL, audit=EVIL) for m in plain.measurements),
    )  # fmt: skip
    drawn = render(wild, EVIL)
    assert "<script>alert" not in drawn
    assert "<!--" not in drawn
    assert text_of(drawn).count("<script>alert") >= AT_ONCE
    data = re.search(r'(?s)id="records-further">(.*?)</script>', drawn)
    assert data
    assert [row[0] for row in json.loads(data[1])] == [EVIL, EVIL]


def test_data_of_a_script_cannot_end_it() -> None:
    told = str(as_json(["</script><!--", "a&b", "\u2028"]))
    assert not set("<>&\u2028") & set(told)
    assert json.loads(told) == ["</script><!--", "a&b", "\u2028"]


def test_a_thousand_records_weigh_less_than_a_megabyte_and_a_half(record: RunRecord) -> None:
    drawn = render(grown(record, 1000))
    assert len(drawn.encode()) < 1_500_000
    assert drawn.count('<th scope="row" class="mono">') == 1000, "all of them readable without JavaScript"
    assert "<noscript>" not in drawn


def test_further_records_are_data_that_the_script_shows(plain: RunRecord) -> None:
    drawn = render(grown(plain, 1200), "erased")
    assert drawn.count('<th scope="row" class="mono">') == 1000
    data = re.search(r'(?s)id="records-further">(.*?)</script>', drawn)
    assert data
    further = json.loads(data[1])
    assert [row[0] for row in further] == [f"{number:012x}" for number in range(1000, 1200)]
    heads = re.search(r'(?s)<table id="records"><thead><tr>(.*?)</tr>', drawn)
    assert heads
    assert len(further[0]) == heads[1].count("<th ")
    assert "The first 1000 of 1200 records are shown" in text_of(drawn)


def row(**values: Any) -> dict[str, Any]:
    return {"id": "a1", "duplicates": 0, "original": {"margin": 2.0, "correct": 1.0}, **values}


def test_figures_of_two_audits_share_no_row(record: RunRecord) -> None:
    """A plug-in may measure an accuracy of its own."""
    own = record.find("accuracy", "unlearned", "forget")
    assert own is not None
    others = dataclasses.replace(
        record, measurements=(*record.measurements, dataclasses.replace(own, audit="mine", value=0.123))
    )
    named = [by_model["unlearned"].value for name, by_model in table(others) if name == "accuracy, forget"]
    assert named == [own.value, 0.123]


def test_rows_of_the_table(record: RunRecord) -> None:
    rows = (
        row(named=True, unlearned={"margin": -0.001, "correct": 0.0, "predicted": "b"}, score=0.5, told="yes"),
        row(named=False, unlearned={"margin": 1.5, "correct": 0.25}, score=None, told="no", duplicates=3),
        row(unlearned={"margin": 1.5, "correct": 1.0, "predicted": "a: c"}, score=-0.001, told="no",
            alike=[{"left": True}, {"left": False}]),
    )  # fmt: skip
    shown = record_rows(dataclasses.replace(record, records=rows))
    assert shown.columns == (
        Column("record", False), Column("because", False, ("duplicate", "requested")), Column("original: margin", True),
        Column("original: right", False), Column("unlearned: margin", True), Column("unlearned: right", False),
        Column("duplicates", True), Column("score", True), Column("told", False, ("no", "yes")),
    )  # fmt: skip
    assert shown.rows == (
        ("a1", "requested", "2.00", "yes", "0.00", "no: b", "0", "0.50", "yes"),
        ("a1", "duplicate", "2.00", "yes", "1.50", "25%", "3", "not measured", "no"),
        ("a1", "requested", "2.00", "yes", "1.50", "yes: a: c", "2 (1 left)", "0.00", "no"),
    )


def test_choices_are_few_words_that_differ(record: RunRecord) -> None:
    many = tuple(row(id=str(n), told=f"class {n % 7}", known="yes" if n % 2 else "no: x") for n in range(20))
    columns = {column.name: column for column in record_rows(dataclasses.replace(record, records=many)).columns}
    assert columns["known"].choices == ("no", "yes")
    assert columns["told"].choices == (), "seven are too many to choose from"
    assert columns["original: right"].choices == (), "all the same"


def test_cost_stands_beside_one_retraining(record: RunRecord) -> None:
    cost = {
        "training": 80.0,
        "checks": 20.0,
        "total": 100.0,
        "scoring": 50.0,
        "stress": {"int8": 10.0},
        "retraining": 400.0,
    }
    timings = {"unlearn": 2.0, "retrain": 12.0, "score": 1.0, "stress, int8": 0.5, "started_unix": 0.0}
    rows = {row.what: row for row in cost_rows(dataclasses.replace(record, cost=cost, timings=timings))}
    whole = rows["unlearning, in all"]
    assert (whole.passes, whole.of_retraining, whole.seconds, whole.of_longest, whole.whole) == (
        100,
        0.25,
        2.0,
        0.25,
        True,
    )
    assert rows["one retraining without the records"].seconds == 6.0, "two retrained models took 12 s"
    assert rows["audit: int8"].of_retraining == 0.025
    assert rows["steps of the unlearning"].seconds is None
    unknown = cost_rows(dataclasses.replace(record, cost={**cost, "retraining": None}, timings={}))
    assert [row.of_retraining for row in unknown] == [None] * len(unknown)
    assert next(row for row in unknown if "one retraining" in row.what).passes is None


def test_duplicates_are_listed_with_what_became_of_them(plain: RunRecord) -> None:
    alike = [
        {"id": "f0f0", "kind": "near", "similarity": 0.91, "left": False},
        {"id": "e1e1", "kind": "identical", "similarity": 1.0, "left": True},
    ]
    rows = ({**plain.records[0], "alike": alike}, *plain.records[1:])
    counts = {"duplicates": 1, "duplicates_left": 1, "near_duplicates": 1, "near_duplicates_added": True}
    drawn = render(dataclasses.replace(plain, records=rows, request={**plain.request, **counts}))
    seen = text_of(section(drawn, "duplicates"))
    assert "1 other training record is identical to one to forget, and 1 left." in seen
    assert "1 other training record is nearly the same as one to forget, and forgotten too." in seen
    assert seen.index("e1e1 identical 1.00 left") < seen.index("f0f0 near 0.91 forgotten too"), (
        "what is left comes first"
    )
    assert "No other training record is identical to one to forget." in text_of(section(render(plain), "duplicates"))


def test_what_was_not_measured_is_said_with_its_reason(record: RunRecord, page: str) -> None:
    seen = text_of(section(page, "cannot"))
    assert "That no trace is left in the weights" in seen
    assert record.not_measured
    for what, reason in record.not_measured.items():
        assert f"{what}: {reason}." in seen


def test_the_settings_shown_can_be_run_again(record: RunRecord, page: str, tmp_path: Path) -> None:
    shown = re.search(r'(?s)aria-label="Settings">(.*?)</pre>', page)
    assert shown
    (tmp_path / "run.toml").write_text(html.unescape(shown[1]), encoding="utf-8")
    again = RunConfig.load(tmp_path / "run.toml", [], {}).as_dict()
    assert json.loads(json.dumps(again)) == record.config
    for value in (*record.environment.values(), *record.data["hmac"].values(), record.models["original"]["sha256"]):
        assert value in text_of(section(page, "again"))


def test_a_record_without_figures_or_retrained_models_is_a_page_too(record: RunRecord) -> None:
    measured = tuple(m for m in record.measurements if m.model != "retrained")
    classes = {"population": record.verdict["classes"]["population"]}
    bare = dataclasses.replace(
        record, figures={}, measurements=measured, training={**record.training, "history": [], "checks": []},
        models={**record.models, "retrained": []}, verdict={**record.verdict, "evidence": "population", "classes": classes},
        records=(), history={}, findings=(),
    )  # fmt: skip
    drawn = render(bare)
    assert "<svg" not in drawn
    seen = text_of(drawn)
    assert "only a retrained model says that (--retrain)" in seen
    assert "gap to retrained" not in seen
    assert "0 records" in seen


def test_figures_take_the_pages_colours(page: str) -> None:
    drawings = re.findall(r"(?s)<svg.*?</svg>", page)
    assert len(drawings) == 6
    for svg in drawings:
        assert "var(--ink, #1F2933)" in svg
        assert not re.search(r": #[0-9a-f]{6}\b(?!\))", svg), "a colour the page cannot change"
