"""What one turn computed and read, head by head. Plain data: no torch, no printing."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

DIGITS = 4  # of a share in JSON: a hundredth of a percent

Shares = tuple[float | None, ...]


@dataclass(frozen=True, slots=True)
class HeadFigures:
    """Of prefill every query head of `layers`, of decoding every key-value head of `read_layers`: a row per layer.

    `density` is entries computed / causal entries, over all chunks of the turn; `coverage` the mean share of the
    sampled rows' attention on the chosen lines, 1 where dense, None where nobody measured it (fixed patterns). `read`
    is the share of the stored keys that the last step read. No layers: prefill left nothing out, or decoding did not.
    """

    layers: tuple[int, ...] = ()
    density: tuple[Shares, ...] = ()
    coverage: tuple[Shares, ...] = ()
    read_layers: tuple[int, ...] = ()
    read: tuple[Shares, ...] = ()

    def to_json(self) -> dict[str, Any]:
        """As JSON types, shares to four decimals."""
        return {
            "layers": list(self.layers),
            "density": [_rounded(row) for row in self.density],
            "coverage": [_rounded(row) for row in self.coverage],
            "read_layers": list(self.read_layers),
            "read": [_rounded(row) for row in self.read],
        }


def _rounded(row: Shares) -> list[float | None]:
    return [None if share is None else round(share, DIGITS) for share in row]
