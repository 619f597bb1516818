"""Lines that were chosen, head by head."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Lines:
    """Chosen lines of P line heads: P is H, G (one choice per key-value head) or 1 (one for all)."""

    vertical: Tensor  # [P, K] int32 keys, ascending, padded with N
    vertical_count: Tensor  # [P] int32
    slash: Tensor  # [P, L] int32 offsets, ascending, padded with N; offset 0 is always in
    slash_count: Tensor  # [P] int32
    coverage: Tensor  # [P] fp32, share of the sampled rows' attention on these lines; NaN when it was not measured
    dense: Tensor  # [P] bool, the head needs every key
    wide: Tensor  # [P] bool, blocks of twice the rows execute the lines more cheaply; False on a CPU
