"""How far two distributions lie apart."""

from __future__ import annotations

from torch import Tensor


def root_divergence(one: Tensor, other: Tensor) -> Tensor:
    """The root of the Jensen-Shannon divergence of distributions [..., K] in nats, [...]: 0 to sqrt(log 2)."""
    middle = (one + other) / 2
    # 0 log 0 is 0, which xlogy knows; where the middle is 0 both are.
    parts = (part.xlogy(part / middle.where(middle > 0, 1)) for part in (one, other))
    total: Tensor = sum(part.sum(-1) for part in parts) / 2  # type: ignore[assignment]
    return total.clamp_min(0).sqrt()
