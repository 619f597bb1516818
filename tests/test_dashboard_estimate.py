"""What full attention would have cost: a line through measured turns, or nothing."""

from __future__ import annotations

from dataclasses import replace

import pytest

from loopserve_cli.chat.dashboard.estimate import entries, fit, least_squares
from loopserve_cli.stats import TurnRecord


def turn(new: int, cached: int, density: float = 1.0, **other: object) -> TurnRecord:
    """A turn that took 0.25 ms a token and 1e-5 ms an entry, if it ran full."""
    ttft = 0.25 * new + 1e-5 * entries(new, cached)
    return replace(TurnRecord(tokens_new=new, tokens_cached=cached, ttft_ms=ttft, density=density), **other)  # type: ignore[arg-type]


FULL = [turn(1000, 0), turn(4000, 1000), turn(1000, 60_000)]
SPARSE = turn(8000, 9000, density=0.1, select_ms=30.0, ttft_ms=400.0)


def test_entries_are_those_of_the_causal_matrix() -> None:
    assert entries(3, 2) == 3 + 4 + 5


def test_the_line_goes_through_what_was_measured() -> None:
    line = fit([*FULL, SPARSE], SPARSE)
    assert line is not None
    assert line.per_token == pytest.approx(0.25) and line.per_entry == pytest.approx(1e-5)
    assert line.ms(8000, 9000) == pytest.approx(turn(8000, 9000).ttft_ms)


@pytest.mark.parametrize(
    "third",
    [
        turn(500, 9000, density=0.5),
        turn(500, 9000, select_ms=3.0),  # it chose, and then computed everything
        turn(500, 9000, ttft_ms=None),
        turn(500, 9000, model="another"),
        turn(500, 9000, device="cuda"),
        turn(500, 9000, error="out of memory"),
    ],
)
def test_fewer_than_three_full_turns_of_one_model_say_nothing(third: TurnRecord) -> None:
    assert fit([*FULL[:2], third, SPARSE], SPARSE) is None


def test_what_lies_far_beyond_the_measured_turns_is_not_estimated() -> None:
    line = fit(FULL, SPARSE)
    assert line is not None
    assert line.ms(30_000, 0) is not None and line.ms(33_000, 0) is None  # tokens: 8 times 4,000
    assert line.ms(4000, 130_000) is None  # entries
    assert line.ms(0, 100) is None


def test_no_cost_is_negative() -> None:
    # The longest turn with the most entries was the fastest.
    assert least_squares([(1.0, 1.0, 10.0), (2.0, 10.0, 20.0), (3.0, 40.0, 5.0)])[1] == 0
    assert min(least_squares([(1.0, 1.0, 1.0), (2.0, 2.0, 2.0), (3.0, 3.0, 3.0)])) == 0
