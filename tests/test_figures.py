"""Figures as text: how many digits, what is unknown, and what a ratio's interval says."""

from __future__ import annotations

import pytest

from loopserve_cli.engine.events import Event, PrefillProgress, Token, TurnDone
from loopserve_cli.measure.figures import (
    bounds,
    compared,
    fine,
    mebibytes,
    number,
    percent,
    ranged,
    signed,
    times,
    whole,
)
from loopserve_cli.measure.measured import drained
from loopserve_cli.measure.ratio import Ratio
from loopserve_cli.measure.rounds import in_rounds
from loopserve_cli.measure.spread import median, middle
from loopserve_cli.stats import TurnRecord


def test_digits_follow_the_size() -> None:
    assert [number(value) for value in (0.4821, 4.821, 48.21, 4821, -0.5)] == [
        "0.482",
        "4.82",
        "48.2",
        "4,821",
        "-0.500",
    ]
    assert [fine(value) for value in (0.00041, 0.0234, 1.5)] == ["0.00041", "0.023", "1.50"]
    assert [signed(value) for value in (0.02, -0.02, 0)] == ["+0.02", "-0.02", "0"]
    assert [times(value) for value in (0.5, 12.34, 123.4)] == ["0.50x", "12.3x", "123x"]
    assert (mebibytes(3 * 2**19), whole(1234.4), percent(0.123)) == ("1.50", "1,234", "12.3")
    shows = (number, fine, signed, times, mebibytes, whole, percent, ranged)
    assert {show(None) for show in shows} == {"n/a"}


@pytest.mark.parametrize(
    ("ratio", "interval", "shown"),
    [
        (Ratio(1.1, 0.9, 1.3, 5), "0.90 to 1.30", "~1.12 (0.90 to 1.30)"),
        (Ratio(1.1, 1.05, 1.3, 5), "1.05 to 1.30", "1.12 (1.05 to 1.30)"),
        (Ratio(1.1, 2e-7, 2e6, 2), "<0.01 to >9,999", "~1.12 (<0.01 to >9,999)"),
        (Ratio(1.1, None, None, 1), "one turn: no interval", "1.12"),
    ],
)
def test_a_ratio_is_marked_where_its_interval_shows_nothing(ratio: Ratio, interval: str, shown: str) -> None:
    assert (bounds(ratio), compared(1.12, ratio)) == (interval, shown)


def test_what_is_unknown_is_in_no_median() -> None:
    assert (median([3, None, 1, 2]), median([None])) == (2, None)
    assert (middle({"median": 4.0, "low": 1.0, "high": 5.0}), middle(None)) == (4, None)


def test_every_round_but_the_first_counts_and_another_goes_first_in_each() -> None:
    said: list[str] = []
    found = in_rounds("abc", 2, lambda order, number: [f"{number}{''.join(order)}"], said.append, "here: ")
    assert found == ["1bca", "2cab"]
    assert said == ["here: warm-up: one round, not recorded", "here: round 1 of 2", "here: round 2 of 2"]


def test_a_turn_is_drained_of_its_ids_and_its_record() -> None:
    record = TurnRecord(ttft_ms=5.0)
    events: list[Event] = [PrefillProgress(3, 3, 0), Token(7, "a"), Token(9, "b"), TurnDone(record)]
    seen: list[Event] = []
    turn = drained(events, seen.append)
    assert (turn.record, turn.output_ids, seen) == (record, (7, 9), events)
