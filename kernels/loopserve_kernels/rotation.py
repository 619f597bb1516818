"""Where rows stand, for rotary position embedding."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor


class Rotation(NamedTuple):
    """Where rows stand: cos and sin [n, R], R even and at most D; weights [D] of the heads' norms, if there are any."""

    cos: Tensor
    sin: Tensor
    query_weight: Tensor | None = None
    key_weight: Tensor | None = None
    eps: float = 0.0


def check_rotation(query: Tensor, key: Tensor, rotation: Rotation) -> None:
    """Assert that shapes and dtypes fit each other."""
    rows, _, size = query.shape
    assert key.shape[0] == rows and key.shape[2] == size, (query.shape, key.shape)
    assert rotation.cos.shape == rotation.sin.shape and rotation.cos.shape[0] == rows
    assert rotation.cos.shape[1] <= size and rotation.cos.shape[1] % 2 == 0
    assert (rotation.query_weight is None) == (rotation.key_weight is None)
    assert query.dtype == key.dtype == rotation.cos.dtype == rotation.sin.dtype
