"""Figures as text, for every table and sentence of a measuring command. Unknown is n/a."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from loopserve_cli.measure.ratio import Ratio

UNKNOWN = "n/a"
MIB = 2**20
NO_DIFFERENCE = "no difference that this run can show"
# Says the same where there is room for one letter.
NOTHING_SHOWN = "~"
NO_INTERVAL = "one turn: no interval"
# An interval that goes beyond says that nothing is known; two rounds can give one up to millions.
LEAST, MOST = 0.01, 9_999


def number(value: float | None) -> str:
    """Three digits or more: 0.482, 4.82, 48.2, 4,820."""
    if value is None:
        return UNKNOWN
    decimals = 0 if abs(value) >= 100 else 1 if abs(value) >= 10 else 2 if abs(value) >= 1 else 3
    return f"{value:,.{decimals}f}"


def mebibytes(value: float | None) -> str:
    """Bytes as MiB."""
    return number(None if value is None else value / MIB)


def whole(value: float | None) -> str:
    """A count."""
    return UNKNOWN if value is None else f"{value:,.0f}"


def percent(value: float | None) -> str:
    """A share in percent."""
    return number(None if value is None else 100 * value)


def fine(value: float | None) -> str:
    """What may be far below 1, to two digits: 0.023, 0.00041, 0."""
    return number(value) if value is None or abs(value) >= 1 else f"{value:.2g}"


def signed(value: float | None) -> str:
    """A change, its sign before it."""
    return fine(value) if value is None or value <= 0 else f"+{fine(value)}"


def ranged(spread: Mapping[str, float] | None) -> str:
    """A median with the lowest and the highest, see `spread`."""
    if spread is None:
        return UNKNOWN
    return f"{number(spread['median'])} ({number(spread['low'])} to {number(spread['high'])})"


def plain(ratio: float) -> str:
    """A ratio to two decimals, fewer from 10 on: what it says lies around 1, on both sides alike."""
    return f"{ratio:,.{0 if ratio >= 100 else 1 if ratio >= 10 else 2}f}"


def times(ratio: float | None) -> str:
    """A ratio, as 1.32x."""
    return UNKNOWN if ratio is None else f"{plain(ratio)}x"


def compared(median: float, ratio: Ratio | None) -> str:
    """The median of ratios, the interval of the true one behind it, and a sign before it where that holds 1."""
    if ratio is None or ratio.low is None:
        return plain(median)
    return f"{NOTHING_SHOWN if ratio.no_difference else ''}{plain(median)} ({bounds(ratio)})"


def bounds(ratio: Ratio) -> str:
    """A ratio's interval, or why there is none."""
    if ratio.low is None or ratio.high is None:
        return NO_INTERVAL
    return between(ratio.low, ratio.high)


def between(low: float, high: float) -> str:
    """The bounds of a ratio, as far as they say something."""
    return f"{plain(low) if low >= LEAST else f'<{LEAST}'} to {plain(high) if high <= MOST else f'>{MOST:,}'}"
