"""Times side by side, by hand."""

from __future__ import annotations

import pytest

from expunge.bench.timing import SideBySide, Spent, bar_met, markdown, side_by_side


def test_the_ratio_is_the_median_of_the_repeats_own() -> None:
    """2/1, 3/2 and 9/3: neighbours in time share what the machine was doing; the ratio of medians would be 3/2."""
    both = SideBySide((2.0, 3.0, 9.0), (1.0, 2.0, 3.0))
    assert both.over() == (2.0, 1.5, 3.0)
    assert both.over(swapped=True) == (0.5, pytest.approx(1 / 3), pytest.approx(2 / 3))


def test_repeats_must_come_in_pairs() -> None:
    with pytest.raises(ValueError, match="1 and 2 repeats"):
        SideBySide((1.0,), (1.0, 2.0))
    with pytest.raises(ValueError, match="0 and 0 repeats"):
        SideBySide((), ())


def test_rows_say_whether_their_bar_is_reached() -> None:
    ours, other = [Spent(1.1, 2.0), Spent(1.3, 2.0)], [Spent(1.0, 4.0), Spent(1.0, 4.0)]
    row = {"name": "step", **side_by_side(ours, other)}
    assert row["ratio"] == 1.2
    assert row["cpu"] == {"ratio": 0.5, "low": 0.5, "high": 0.5}
    assert row["ours"] == {"median": 1.2, "all": [1.1, 1.3]}
    assert bar_met(row) is None
    assert bar_met({**row, "most": 1.2}) is True
    assert bar_met({**row, "least": 1.5}) is False
    table = markdown([{**row, "most": 1.1}, row], ("ours", "bare"))
    assert "| step | 1.200 | 1.000 | 1.20 (1.10 to 1.30) | 0.50 | 2 | <= 1.10, missed |" in table
    assert table.endswith("| none |\n")


def test_both_clocks_run() -> None:
    start = Spent.now()
    sum(range(100_000))
    spent = Spent.now().since(start)
    assert spent.wall > 0
    assert spent.cpu > 0
