"""How the Triton attention kernel is launched: one table, which its tests compile from.

Chosen ahead of time (registers, shared memory, instructions per tile: tests/test_attention_budget.py); nothing is
tuned while a chat runs. A slash alone costs a tile of as many columns as a block has rows, so blocks are as low as
matrix units like them. Where lines are mostly verticals and runs, tall blocks, of twice the rows, read each key once
for two; they need the shared memory and the register-free operands of a Hopper.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from loopserve_kernels.device import shared_memory

ROOMY = 200 * 1024


@dataclass(frozen=True, slots=True)
class AttentionShape:
    """Rows of a block, keys of a tile (both powers of two), warps, and tiles in shared memory at once."""

    rows: int
    tile: int
    warps: int
    stages: int
    tall_warps: int | None = None  # of blocks of twice the rows; None: there are none


# By the largest head size. Exact fp32 products have no matrix unit: small blocks keep them in registers.
FLOAT = {64: AttentionShape(32, 32, 4, 2), 128: AttentionShape(16, 16, 4, 2), 256: AttentionShape(16, 16, 4, 2)}
HALF = {64: AttentionShape(64, 64, 4, 2), 128: AttentionShape(64, 64, 4, 2), 256: AttentionShape(64, 32, 4, 2)}
ROOMY_HALF = HALF | {64: AttentionShape(64, 64, 4, 3, 8), 128: AttentionShape(64, 64, 4, 3, 8)}


def attention_shape(size: int, dtype: torch.dtype, device: torch.device) -> AttentionShape:
    """The shape for a head size (at most 256), dtype and GPU."""
    table = FLOAT if dtype == torch.float32 else _half(device)
    assert size <= 256, f"heads of {size} elements; at most 256"
    return table[next(most for most in table if size <= most)]


def has_tall_blocks(rows: int, tile: int, device: torch.device) -> bool:
    """Whether heads whose index is made for this shape may run in blocks of twice the rows."""
    made = [shape for shape in _half(device).values() if (shape.rows, shape.tile) == (rows, tile)]
    return any(shape.tall_warps is not None for shape in made)


def _half(device: torch.device) -> dict[int, AttentionShape]:
    return ROOMY_HALF if shared_memory(device) >= ROOMY else HALF
