"""Line mass: how much attention the sampled rows give to every vertical (key) and every slash (offset).

For sampled row i at position p_i and head h, over the keys it can see (key <= p_i):

    lse[h, i]  = log sum_key exp(scaling * q_i k_key)
    P[h, i, key] = exp(scaling * q_i k_key - lse[h, i])
    vertical[key] = sum_i P[i, key]            slash[d] = sum_i P[i, p_i - d]

With `share="group"` both are the mean over the query heads of one key-value head.
"""

from __future__ import annotations

from torch import Tensor

from loopserve_kernels.device import on_gpu
from loopserve_kernels.mass import LineMass
from loopserve_kernels.weights import sampled_weights


def line_mass(
    rows: Tensor, positions: Tensor, key: Tensor, scaling: float, share: str = "head", room: Tensor | None = None
) -> LineMass:
    """Log-sum-exp of the sampled rows and the mass of every line.

    rows [H, m, D], positions [m] (absolute, integer, below N), key [G, N, D] with H a multiple of G. The
    weights themselves, [H, m, N], are held too: on a CPU in `room`, if that is large enough. Repeated runs agree to
    the bit.
    """
    check_sample(rows, positions, key)
    assert share in ("head", "group"), share
    if on_gpu(key):
        from loopserve_kernels.lines_triton import line_mass_triton

        return line_mass_triton(rows, positions, key, scaling, share)
    return line_mass_torch(rows, positions, key, scaling, share, room)


def line_mass_torch(
    rows: Tensor, positions: Tensor, key: Tensor, scaling: float, share: str = "head", room: Tensor | None = None
) -> LineMass:
    """The twin, and what a CPU runs: the weights of all heads are held, [H, m, N] at most."""
    heads, groups, keys = rows.shape[0], key.shape[0], key.shape[1]
    weights, lse = sampled_weights(rows, positions, key, scaling, room)
    mass = weights.by_key(keys), weights.by_offset(keys)
    if share == "group":
        mass = mass[0].reshape(groups, heads // groups, keys).mean(1), mass[1].reshape(groups, -1, keys).mean(1)
    return LineMass(lse, *mass, weights)


def check_sample(rows: Tensor, positions: Tensor, key: Tensor) -> None:
    """Assert the shapes of sampled rows, their positions and the keys."""
    assert rows.ndim == 3 and key.ndim == 3 and rows.shape[2] == key.shape[2], (rows.shape, key.shape)
    assert rows.shape[0] % key.shape[0] == 0, f"{rows.shape[0]} heads over {key.shape[0]} key-value heads"
    assert positions.shape == rows.shape[1:2] and not positions.is_floating_point()
    assert positions.device == key.device == rows.device
