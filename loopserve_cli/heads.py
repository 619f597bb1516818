"""What one turn's prefill computed, head by head. Plain data: no torch, no printing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DIGITS = 4  # of a share in JSON: a hundredth of a percent

Shares = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """Every query head of the layers that attend: `density` and `coverage` hold a row per layer of `layers`.

    Density is entries computed / causal entries, over all chunks of the turn; coverage the mean share of the sampled
    rows' attention on the chosen lines, 1 where dense, None where nobody measured it (fixed patterns).
    """

    layers: tuple[int, ...]
    density: tuple[Shares, ...]
    coverage: tuple[Shares, ...]

    def to_json(self) -> dict[str, Any]:
        """As JSON types, shares to four decimals."""
        return {
            "layers": list(self.layers),
            "density": [_rounded(row) for row in self.density],
            "coverage": [_rounded(row) for row in self.coverage],
        }


def _rounded(row: Shares) -> list[float | None]:
    return [None if share is None else round(share, DIGITS) for share in row]
