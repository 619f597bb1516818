"""By how much a measure that may be 0 changed, turn by turn: a difference, where a ratio would say nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from loopserve_cli.measure.interval import Place, interval
from loopserve_cli.measure.ratio import place_of
from loopserve_cli.stats import TurnRecord

# KL divergences of the same computation differ by about this much, in nats, where sums are rounded otherwise.
ROUNDING = 1e-5


@dataclass(frozen=True, slots=True)
class Shift:
    """A mean difference over `pairs` turns, and the 95% interval of the true one; None where one pair is all."""

    mean: float
    low: float | None
    high: float | None
    pairs: int

    @property
    def shows_nothing(self) -> bool:
        """Whether there may be none for all that was measured, rounding aside."""
        return self.low is None or self.high is None or self.low <= ROUNDING and self.high >= -ROUNDING


def kl_shift(own: Iterable[TurnRecord], before: Iterable[TurnRecord]) -> Shift | None:
    """By how much the mean KL to full attention rose, in nats per token: turns weigh as the tokens forced in them."""
    now, was = _kl(own), _kl(before)
    places = [place for place in now if place in was]
    if not places:
        return None
    weights = {place: (now[place][1] + was[place][1]) / 2 for place in places}
    all_tokens = math.fsum(weights.values())
    shifts = {place: now[place][0] - was[place][0] for place in places}
    mean = math.fsum(shifts[place] * weights[place] for place in places) / all_tokens
    # A weighted mean is a ratio of two sums; around it, each turn moves it by its weight's share of its deviation.
    shares = {place: weights[place] * len(places) / all_tokens for place in places}
    bounds = interval({place: mean + shares[place] * (shifts[place] - mean) for place in places}, timed=False)
    low, high = (None, None) if bounds is None else bounds
    return Shift(mean, low, high, len(places))


def _kl(records: Iterable[TurnRecord]) -> Mapping[Place, tuple[float, int]]:
    """Each turn's KL, and of how many tokens it is the mean."""
    return {place_of(r): (r.kl_mean, r.tokens_forced or 1) for r in records if r.kl_mean is not None}
