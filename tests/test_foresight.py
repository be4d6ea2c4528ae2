"""Where forget records stand between looks, from what steps read of them, and whether the next step leads away."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from expunge.foresight import Foresight


def after(*steps: tuple[Sequence[int], float], looked: float = 0.9, count: int = 4) -> Foresight:
    """A look at all records, then steps that read (these records, at this place)."""
    found = Foresight(count)
    found.looked(np.arange(count), np.full(count, looked))
    for records, place in steps:
        found.stepped(np.array(records), np.full(len(records), place))
    return found


ALL = (0, 1, 2, 3)


@pytest.mark.parametrize(
    ("places", "due"),
    [
        ([0.9], False),  # as looked at: nothing is known of what the step did
        ([0.9, 0.9], False),
        ([0.9, 0.8], False),  # .7 by now, .6 after the next step
        ([0.9, 0.75], False),  # .6 by now, .45 after the next: that is nearer to one half
        ([0.9, 0.7], True),  # .5 by now, .3 after the next
        ([0.9, 0.75, 0.68], False),  # slower: .61, .54
        ([0.5, 0.5], False),  # what the first step reads lower is dropout's
        ([0.5, 0.3], True),
        ([0.9, 0.95], False),
    ],
)
def test_a_look_is_due_where_the_next_step_would_lead_further_from_one_half(places: list[float], due: bool) -> None:
    assert after(*((ALL, place) for place in places)).due() is due


def test_records_read_earlier_are_taken_to_have_moved_on_alike() -> None:
    halves = ((0, 1), (2, 3))
    assert not after((halves[0], 0.9), (halves[1], 0.8)).due(), "both at .7 by now"
    assert not after((halves[0], 0.9), (halves[1], 0.8), (halves[0], 0.7)).due(), ".6 and .6, and .5 after the next"
    assert after((halves[0], 0.9), (halves[1], 0.8), (halves[0], 0.6)).due(), ".45 and .5"


def test_views_of_a_record_are_one_reading() -> None:
    assert after((ALL, 0.9), (ALL * 2, 0.7)).due() is after((ALL, 0.9), (ALL, 0.7)).due()


def test_a_look_says_where_they_are() -> None:
    found = after((ALL, 0.9), (ALL, 0.7))
    assert found.due()
    found.looked(np.arange(4), np.full(4, 0.8))
    assert not found.due(), "it had been misled"


def test_without_a_look_nothing_is_due() -> None:
    assert not Foresight(3).due()


def test_it_goes_on_from_what_was_kept() -> None:
    found, again = after((ALL, 0.8), (ALL, 0.7)), Foresight(4)
    again.restore(found.state())
    for one in (found, again):
        one.stepped(np.array(ALL), np.full(4, 0.55))
    assert again.due() is found.due() is True
    assert again.state().values == found.state().values


def test_records_that_rise_need_no_look() -> None:
    """Below one half and rising, as after an overshoot, the next step leads nearer."""
    assert not after((ALL, 0.2), (ALL, 0.3), (ALL, 0.4), looked=0.2).due()


def test_weights_that_were_moved_otherwise_are_asked_anew() -> None:
    """A model taken back before its first step reads lower: that is no dropout, and is not taken off what follows."""
    found = after(looked=0.95)
    found.unplaced()
    for place in (0.65, 0.6, 0.55):
        found.stepped(np.array(ALL), np.full(4, place))
    assert found.due(), ".5 by now, .45 after the next"
