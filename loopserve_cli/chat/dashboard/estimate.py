"""What full attention would have cost: a line through the turns of the session that ran so.

A turn of n new tokens after c cached ones makes the model read n tokens and compute n c + n (n + 1) / 2 entries of the
causal matrix, so its time to the first token is about a n + b (entries), a and b those of least squared error. It is an
estimate, and is shown as one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from loopserve_cli.stats import TurnRecord

FEWEST = 3
# A line says nothing of what lies far beyond its points: so many times the tokens or the entries of the largest.
FARTHEST = 8


@dataclass(frozen=True, slots=True)
class Fit:
    """Milliseconds per new token and per entry, and the largest turn it was found from."""

    per_token: float
    per_entry: float
    most_new: int
    most_entries: float

    def ms(self, new: int, cached: int) -> float | None:
        """TTFT of a turn under full attention; None where that is too far from what was measured."""
        size = entries(new, cached)
        if not new or new > FARTHEST * self.most_new or size > FARTHEST * self.most_entries:
            return None
        return self.per_token * new + self.per_entry * size


def entries(new: int, cached: int) -> float:
    """Causal entries of a turn."""
    return new * cached + new * (new + 1) / 2


def ran_full(record: TurnRecord) -> bool:
    """Whether the turn's prefill computed everything and chose nothing."""
    return record.density == 1 and not record.select_ms and record.error is None


def fit(records: Sequence[TurnRecord], like: TurnRecord) -> Fit | None:
    """The line through the turns that ran full on the same model and machine as `like`; None with fewer than 3."""
    points = [
        (record.tokens_new, entries(record.tokens_new, record.tokens_cached), record.ttft_ms)
        for record in records
        if ran_full(record) and same(record, like)
        if record.tokens_new and record.tokens_cached is not None and record.ttft_ms is not None
    ]
    if len(points) < FEWEST:
        return None
    a, b = least_squares(points)
    return Fit(a, b, max(new for new, _, _ in points), max(size for _, size, _ in points))


def same(one: TurnRecord, other: TurnRecord) -> bool:
    """Whether two turns' times can be compared."""
    return all(
        getattr(one, name) == getattr(other, name) for name in ("model", "device", "dtype", "quant", "step_kernels")
    )


def least_squares(points: Sequence[tuple[float, float, float]]) -> tuple[float, float]:
    """The a and b of y = a u + b v with the least squared error, neither below zero; points are (u, v, y)."""
    uu, vv, uv = (sum(p[i] * p[j] for p in points) for i, j in ((0, 0), (1, 1), (0, 1)))
    uy, vy = (sum(p[i] * p[2] for p in points) for i in (0, 1))
    determinant = uu * vv - uv * uv
    if determinant > 1e-9 * uu * vv:
        a, b = (uy * vv - vy * uv) / determinant, (vy * uu - uy * uv) / determinant
        if a >= 0 and b >= 0:
            return a, b
    alone = [(uy / uu, 0.0), (0.0, vy / vv)]
    return min(alone, key=lambda ab: sum((ab[0] * u + ab[1] * v - y) ** 2 for u, v, y in points))
