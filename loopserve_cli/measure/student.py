"""Student's t: how much wider an interval must be because its spread was itself estimated from few values."""

from __future__ import annotations

import math
from statistics import NormalDist

CONFIDENCE = 0.95


def quantile(degrees: int, share: float) -> float:
    """The value below which `share` of Student's t lies: exact for one and two degrees, else to 1% of its value.

    Abramowitz and Stegun, Handbook of Mathematical Functions, 26.7.5.
    """
    if degrees == 1:
        return math.tan(math.pi * (share - 0.5))
    if degrees == 2:
        return (2 * share - 1) * math.sqrt(1 / (2 * share * (1 - share)))
    z = NormalDist().inv_cdf(share)
    terms = (
        z,
        (z**3 + z) / 4,
        (5 * z**5 + 16 * z**3 + 3 * z) / 96,
        (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384,
        (79 * z**9 + 776 * z**7 + 1482 * z**5 - 1920 * z**3 - 945 * z) / 92160,
    )
    return sum(term / degrees**power for power, term in enumerate(terms))


def widening(drawn: int) -> float:
    """By what to widen the percentiles of a bootstrap that draws so many units, two or more.

    A resample of n units has the spread of n - 1, and percentiles take the spread as known. Both are made good as
    in Hesterberg, "What Teachers Should Know About the Bootstrap" (2015), section 4.1: in full for normal noise.
    """
    share = (1 + CONFIDENCE) / 2
    return quantile(drawn - 1, share) * math.sqrt(drawn / (drawn - 1)) / NormalDist().inv_cdf(share)
