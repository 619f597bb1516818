"""Tensors for the tests of a decode step's fused kernels: strides of their own, NaN where nothing may be read."""

from __future__ import annotations

import torch
from torch import Tensor

from loopserve_kernels.rotation import Rotation
from loopserve_kernels.step_place import RingPlace, StorePlace, WorkingPlace

CAPACITY = 9


def norm_case(rows: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """A residual stream, what is added to it, and a norm's weight."""
    generator = torch.Generator().manual_seed(width)
    wide = torch.randn(2, rows, width + 8, generator=generator).to(dtype)
    return wide[0, :, :width], wide[1, :, :width], torch.randn(width, generator=generator).to(dtype)


def rotation_of(
    rows: int, size: int, turned: int, dtype: torch.dtype, normed: bool, rounded: torch.dtype | None = None
) -> Rotation:
    """A rotation of `turned` numbers; of the values that `rounded` can hold where that is another dtype."""
    generator = torch.Generator().manual_seed(turned)
    angle = torch.randn(rows, turned // 2, generator=generator).repeat(1, 2)
    weights = torch.randn(2, size, generator=generator).to(rounded or dtype).to(dtype)
    cos, sin = (part.to(rounded or dtype).to(dtype) for part in (angle.cos(), angle.sin()))
    return Rotation(cos, sin, *weights, 1e-6) if normed else Rotation(cos, sin)


def step_case(heads: int, groups: int, size: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    """One token's query, key and value, as slices of one product."""
    product = torch.randn(1, (heads + 2 * groups) * size, generator=torch.Generator().manual_seed(size)).to(dtype)
    query, key, value = product[0].unflatten(0, (-1, size)).split((heads, groups, groups))
    return query, key, value


def places(
    heads: int, groups: int, size: int, dtype: torch.dtype, ring: bool, working: bool
) -> tuple[StorePlace, RingPlace | None, WorkingPlace | None]:
    """Where the token goes: row 4 of the store, slot 2 of a ring of 5, and behind 3 and 6 rows of a working set."""

    def room(count: int, rows: int) -> Tensor:
        return torch.full((count, rows, size), float("nan"), dtype=dtype)

    store = StorePlace(room(groups, CAPACITY), room(groups, CAPACITY + 2), torch.tensor([4]))
    slots = RingPlace(room(heads, 5), torch.zeros(5, dtype=torch.int64), torch.tensor([2]), torch.tensor([1000]))
    lengths = torch.tensor([3, 6, 0, 1][:groups], dtype=torch.int32)
    chosen = WorkingPlace(room(groups, CAPACITY), room(groups, CAPACITY), lengths)
    return store, slots if ring else None, chosen if working else None
