"""Accuracy: the share of answers that are right, and where the true share lies."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from statistics import NormalDist
from typing import Any

from loopserve_cli.measure.student import CONFIDENCE


def wilson(right: int, asked: int) -> tuple[float, float] | None:
    """The 95% interval of a share, or None when nothing was asked.

    Of a share of few answers, where a bootstrap's interval would be empty at 0 and 1 (E. B. Wilson, "Probable
    inference, the law of succession, and statistical inference", 1927).
    """
    if not asked:
        return None
    z = NormalDist().inv_cdf((1 + CONFIDENCE) / 2)
    share, z2 = right / asked, z * z
    centre = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = z * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked)) / (1 + z2 / asked)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(frozen=True, slots=True)
class Tally:
    """Answers right of questions asked."""

    right: int = 0
    asked: int = 0

    @property
    def share(self) -> float | None:
        """The share right, or None when nothing was asked."""
        return self.right / self.asked if self.asked else None

    def to_json(self) -> dict[str, Any]:
        """The counts, the share and its interval; null where nothing was asked."""
        interval = wilson(self.right, self.asked)
        return {"right": self.right, "asked": self.asked, "share": self.share, "interval95": interval}

    def __str__(self) -> str:
        """As a table shows it: "95% (89-98)"."""
        interval = wilson(self.right, self.asked)
        if interval is None:
            return "n/a"
        return f"{self.share:.0%} ({interval[0] * 100:.0f}-{interval[1] * 100:.0f})"


def tally_of(right: Iterable[bool]) -> Tally:
    """The tally of these answers."""
    answers = list(right)
    return Tally(sum(answers), len(answers))
