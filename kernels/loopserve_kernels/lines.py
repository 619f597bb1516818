"""Line mass: how much attention the sampled rows give to every vertical (key) and every slash (offset).

For sampled row i at position p_i and head h, over the keys it can see (key <= p_i):

    lse[h, i]  = log sum_key exp(scaling * q_i k_key)
    P[h, i, key] = exp(scaling * q_i k_key - lse[h, i])
    vertical[key] = sum_i P[i, key]            slash[d] = sum_i P[i, p_i - d]

With `share="group"` both are the mean over the query heads of one key-value head.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from loopserve_kernels.device import on_gpu


@dataclass(frozen=True, slots=True)
class LineMass:
    """Masses of every line over m sampled rows; P is H line heads (share "head") or G (share "group")."""

    lse: Tensor  # [H, m] fp32, natural log
    vertical: Tensor  # [P, N] fp32, by key
    slash: Tensor  # [P, N] fp32, by offset position - key


def line_mass(rows: Tensor, positions: Tensor, key: Tensor, scaling: float, share: str = "head") -> LineMass:
    """Log-sum-exp of the sampled rows and the mass of every line.

    rows [H, m, D], positions [m] (absolute, integer, below N), key [G, N, D] with H a multiple of G. On a GPU
    nothing of size [H, m, N] is stored and sums are in fixed point, so that repeated runs agree to the bit.
    """
    check_sample(rows, positions, key)
    assert share in ("head", "group"), share
    if on_gpu(key):
        from loopserve_kernels.lines_triton import line_mass_triton

        return line_mass_triton(rows, positions, key, scaling, share)
    return line_mass_torch(rows, positions, key, scaling, share)


def line_mass_torch(rows: Tensor, positions: Tensor, key: Tensor, scaling: float, share: str = "head") -> LineMass:
    """The twin: one key-value head at a time, so that weights of one group are all that is held."""
    heads, groups, keys = rows.shape[0], key.shape[0], key.shape[1]
    lse, vertical, slash = [], [], []
    for scores in _scores(rows, positions, key, scaling):
        lse.append(scores.logsumexp(-1))
        weights = scores.sub_(lse[-1][:, :, None]).exp_()
        vertical.append(weights.sum(1))
        by_offset = weights.new_zeros(weights.shape[0], keys)
        # Row i read backwards from its own position is its mass by offset; kept reversed, one flip at the end.
        for i, position in enumerate(positions.tolist()):
            by_offset[:, keys - 1 - position :] += weights[:, i, : position + 1]
        slash.append(by_offset.flip(1))
    mass = torch.cat(vertical), torch.cat(slash)
    if share == "group":
        mass = mass[0].reshape(groups, heads // groups, keys).mean(1), mass[1].reshape(groups, -1, keys).mean(1)
    return LineMass(torch.cat(lse), mass[0], mass[1])


def sampled_weights(rows: Tensor, positions: Tensor, key: Tensor, scaling: float, lse: Tensor) -> Iterator[Tensor]:
    """Attention weights [H / G, m, N] of the sampled rows, one key-value head after the other."""
    per_group = rows.shape[0] // key.shape[0]
    for group, scores in enumerate(_scores(rows, positions, key, scaling)):
        yield scores.sub_(lse[group * per_group : (group + 1) * per_group, :, None]).exp_()


def check_sample(rows: Tensor, positions: Tensor, key: Tensor) -> None:
    """Assert the shapes of sampled rows, their positions and the keys."""
    assert rows.ndim == 3 and key.ndim == 3 and rows.shape[2] == key.shape[2], (rows.shape, key.shape)
    assert rows.shape[0] % key.shape[0] == 0, f"{rows.shape[0]} heads over {key.shape[0]} key-value heads"
    assert positions.shape == rows.shape[1:2] and not positions.is_floating_point()
    assert positions.device == key.device == rows.device


def _scores(rows: Tensor, positions: Tensor, key: Tensor, scaling: float) -> Iterator[Tensor]:
    """Scaled scores [H / G, m, N] of one group after the other, -inf past each row's position."""
    precision = torch.float64 if key.dtype == torch.float64 else torch.float32
    groups, keys, size = key.shape
    hidden = torch.arange(keys, device=key.device) > positions[:, None]
    for group, block in enumerate(rows.unflatten(0, (groups, -1))):
        packed = block.reshape(-1, size).to(precision) * scaling
        scores = packed @ key[group].to(precision).T
        yield scores.reshape(block.shape[0], -1, keys).masked_fill_(hidden, float("-inf"))
