"""The report in a real browser: read, sorted, filtered, paged and printed; silent, offline, and open to everybody."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from conftest import Job
from expunge.compare_page import comparison_page
from expunge.compare_runs import compare_runs
from expunge.record import RunRecord
from expunge.report import render
from report_records import grown, real_record

pytestmark = pytest.mark.slow

_FLAGS = [
    "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync",
]  # fmt: skip
_OPEN_ALL = "document.querySelectorAll('details').forEach((one) => { one.open = true; })"
_PAINT = "performance.getEntriesByName('first-contentful-paint').map((entry) => entry.startTime)"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        pytest.fail("playwright is missing: python -m pip install -c constraints.txt -e '.[browser]'")
    names = ("chromium", "chromium-browser", "google-chrome")
    found = os.environ.get("EXPUNGE_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    if found is None:
        pytest.fail("there is no Chromium: apt-get install chromium (Debian), or name one in EXPUNGE_CHROMIUM")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=found, args=_FLAGS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def record(job: Job) -> RunRecord:
    return real_record(job)


@pytest.fixture(scope="module")
def reports(record: RunRecord, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Reports of the tiny run itself, of a thousand records, and of fifty thousand."""
    folder = tmp_path_factory.mktemp("reports")
    records = {"tiny": record, "thousand": grown(record, 1000), "many": grown(record, 50_000)}
    for name, one in records.items():
        (folder / f"{name}.html").write_text(render(one, "erased"), encoding="utf-8")
    return {name: folder / f"{name}.html" for name in records}


@pytest.fixture
def opened(browser: Any) -> Iterator[Callable[..., Any]]:
    """Opens a file in a fresh profile; when the test ends, nothing must have been fetched or complained of."""
    contexts, told, fetched = [], [], []

    def open_(file: Path, **options: Any) -> Any:
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        page.on("console", lambda message: told.append(message.text))
        page.on("pageerror", lambda error: told.append(str(error)))
        page.on("request", lambda request: fetched.append(request.url))
        page.goto(file.as_uri())
        return page

    yield open_
    for context in contexts:
        context.close()
    assert told == [], "the console is silent"
    assert {url.partition(":")[0] for url in fetched} <= {"file"}, "nothing is fetched"
    assert len(fetched) == len(contexts), "one file is the whole report"


def violations(page: Any) -> list[str]:
    """What axe-core holds against a page."""
    import axe_playwright_python

    page.evaluate((Path(axe_playwright_python.__file__).parent / "axe.min.js").read_text(encoding="utf-8") + ";0")
    found = page.evaluate("axe.run()")["violations"]
    return [f"{one['id']}: {one['help']} {[node['html'][:120] for node in one['nodes'][:3]]}" for one in found]


@pytest.mark.parametrize(
    ("name", "scheme", "width"), [("tiny", "light", 1200), ("tiny", "dark", 380), ("thousand", "light", 380)]
)
def test_axe_finds_nothing(opened, reports: dict[str, Path], name: str, scheme: str, width: int) -> None:
    page = opened(reports[name], color_scheme=scheme, viewport={"width": width, "height": 900})
    assert violations(page) == []
    page.evaluate(_OPEN_ALL)
    page.locator("#records thead button").nth(1).click()
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width, "wide tables scroll in themselves"


def test_axe_finds_nothing_on_a_page_of_several_runs(opened, record: RunRecord, tmp_path: Path) -> None:
    (tmp_path / "compare.html").write_text(comparison_page(compare_runs({"a": record, "b": record})), encoding="utf-8")
    page = opened(tmp_path / "compare.html", color_scheme="dark", viewport={"width": 380, "height": 900})
    assert violations(page) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= 380


def column(page: Any, place: int) -> list[str]:
    return page.locator(f"#records tbody tr > :nth-child({place + 1})").all_text_contents()


def test_a_column_is_sorted_by_keyboard(opened, reports: dict[str, Path]) -> None:
    page = opened(reports["thousand"])
    page.locator("summary", has_text="1000 records").focus()
    page.keyboard.press("Enter")
    head = page.locator("#records thead th", has_text="unlearned: margin")
    place = page.locator("#records thead th").all_text_contents().index("unlearned: margin")
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("document.activeElement.textContent") == "unlearned: margin":
            break
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "ascending"
    ascending = [float(cell) for cell in column(page, place)]
    assert ascending == sorted(ascending)
    assert len(ascending) == 100, "a page of them"
    page.keyboard.press("Space")
    assert head.get_attribute("aria-sort") == "descending"
    descending = [float(cell) for cell in column(page, place)]
    assert descending == sorted(descending, reverse=True)
    assert descending[0] > ascending[-1], "all thousand are sorted, not the page"
    assert (
        "1000 of 1000 records, sorted by unlearned: margin, descending." in page.locator("#records-count").inner_text()
    )
    assert page.evaluate("document.activeElement.textContent") == "unlearned: margin", "the focus stays"


def test_records_are_filtered_by_words_and_by_choice(opened, reports: dict[str, Path]) -> None:
    page = opened(reports["thousand"])
    page.evaluate(_OPEN_ALL)
    said = page.locator("#records-count")
    page.get_by_label("Containing").fill("3E7")
    assert column(page, 0) == [f"{999:012x}"], "0x3e7 is 999"
    assert said.inner_text() == "1 of 1000 records."
    page.get_by_role("button", name="Show all").click()
    page.wait_for_function("document.getElementById('records-count').textContent.startsWith('1000 of')")
    chooser = page.get_by_label("told apart")
    choice = chooser.locator("option").nth(1).inner_text()
    chooser.select_option(choice)
    place = page.locator("#records thead th").all_text_contents().index("told apart")
    assert set(column(page, place)) == {choice}
    assert 0 < int(said.inner_text().split()[0]) < 1000
    page.get_by_label("Containing").fill("no such record")
    assert said.inner_text() == "0 of 1000 records."
    assert column(page, 0) == []


def test_fifty_thousand_records_are_painted_in_a_second_and_paged(opened, reports: dict[str, Path]) -> None:
    paints = []
    for _ in range(3):
        page = opened(reports["many"])
        page.wait_for_function(f"{_PAINT}.length")
        paints.append(page.evaluate(_PAINT)[0])
    print(f"first contentful paint of {reports['many'].stat().st_size / 1e6:.1f} MB: {min(paints):.0f} ms of {paints}")
    assert min(paints) < 1000
    page.locator("summary", has_text="50000 records").click()
    assert len(column(page, 0)) == 100
    assert page.locator("#records-where").inner_text() == "Page 1 of 500"
    assert page.get_by_role("button", name="Previous").is_disabled()
    page.get_by_role("button", name="Next").click()
    assert column(page, 0)[0] == f"{100:012x}"
    spent = page.evaluate(
        "() => { const start = performance.now(); document.querySelector('#records thead button').click();"
        " document.querySelector('#records thead button').click(); return performance.now() - start; }"
    )
    print(f"sorted twice in {spent:.0f} ms")
    assert column(page, 0)[0] == f"{49_999:012x}", "the last of all comes first"
    assert spent < 2000
    page.get_by_label("Containing").fill("c34f")
    assert f"{49_999:012x}" in column(page, 0)


def test_without_javascript_it_is_whole(opened, reports: dict[str, Path]) -> None:
    page = opened(reports["thousand"], java_script_enabled=False)
    page.locator("summary", has_text="1000 records").click()
    rows = page.locator("#records tbody tr")
    assert rows.count() == 1000
    assert rows.last.is_visible()
    assert not page.locator("#records-tools").is_visible(), "no control that does nothing"
    page = opened(reports["many"], java_script_enabled=False)
    page.locator("summary", has_text="50000 records").click()
    assert "The first 1000 of 50000 records are shown" in page.locator("noscript").inner_text()


def test_paper_shows_what_is_folded_on_the_screen(opened, reports: dict[str, Path]) -> None:
    page = opened(reports["tiny"])
    folded = page.locator("#records tbody tr").first
    assert not folded.is_visible()
    page.emulate_media(media="print", color_scheme="dark")
    assert folded.is_visible()
    assert not page.locator("nav.contents").is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)", "paper is white"
    assert page.pdf(format="A4").startswith(b"%PDF")


def test_markup_that_slipped_in_could_not_run(browser: Any, reports: dict[str, Path], tmp_path: Path) -> None:
    """The policy holds even against what escaping should have stopped."""
    bad = "<script>document.title = 'ran'</script><img src='https://example.invalid/x' onerror=\"document.title = 'ran'\">"
    (tmp_path / "bad.html").write_text(
        reports["tiny"].read_text(encoding="utf-8").replace("<main>", f"<main>{bad}"), encoding="utf-8"
    )
    page = browser.new_page()
    refused: list[str] = []
    page.on("console", lambda message: refused.append(message.text))
    page.goto((tmp_path / "bad.html").as_uri())
    page.locator("summary", has_text="24 records").click()
    assert page.locator("#records-count").inner_text() == "24 of 24 records.", "the report's own script runs"
    assert page.title().startswith("Erasure report")
    assert sum("Content Security Policy" in text for text in refused) >= 2, (
        "script and picture are refused, and said so"
    )
    page.close()
