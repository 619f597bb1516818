"""All that a decode step writes in one layer, at once: key and value into the store, and what choosing keys needs.

    store[g, row] = key[g], value[g]
    ring[h, slot] = query[h], positions[slot] = position       where queries are kept to choose keys by
    working[g, lengths[g]] = key[g], value[g]; lengths[g] += 1  where a choice was made

With a `Rotation` of one row query and key come as the model's products gave them, and are turned first.
"""

from __future__ import annotations

from torch import Tensor

from loopserve_kernels.device import on_gpu
from loopserve_kernels.rotate import rotate_torch
from loopserve_kernels.rotation import Rotation, check_rotation
from loopserve_kernels.step_place import RingPlace, StorePlace, WorkingPlace


def step_write(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    store: StorePlace,
    ring: RingPlace | None = None,
    working: WorkingPlace | None = None,
    rotation: Rotation | None = None,
) -> Tensor:
    """Write one token, query [H, D], key and value [G, D]; the query as it is attended with, [H, D].

    Nothing on the host depends on where it goes, so a CUDA graph captured once replays; on a GPU one launch.
    """
    check_step(query, key, value, store, ring, working)
    if rotation is not None:
        check_rotation(query[None], key[None], rotation)
    if on_gpu(query):
        from loopserve_kernels.step_write_triton import step_write_triton

        return step_write_triton(query, key, value, store, ring, working, rotation)
    return step_write_torch(query, key, value, store, ring, working, rotation)


def step_write_torch(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    store: StorePlace,
    ring: RingPlace | None = None,
    working: WorkingPlace | None = None,
    rotation: Rotation | None = None,
) -> Tensor:
    """The twin."""
    if rotation is not None:
        query, key = (part[0] for part in rotate_torch(query[None], key[None], rotation))
    store.keys.index_copy_(1, store.row, key[:, None])
    store.values.index_copy_(1, store.row, value[:, None])
    if ring is not None:
        ring.queries.index_copy_(1, ring.slot, query[:, None])
        ring.positions.index_copy_(0, ring.slot, ring.position)
    if working is not None:
        place = working.lengths.long()[:, None, None].expand(-1, 1, key.shape[1])
        working.keys.scatter_(1, place, key[:, None])
        working.values.scatter_(1, place, value[:, None])
        working.lengths.add_(1)
    return query


def check_step(
    query: Tensor, key: Tensor, value: Tensor, store: StorePlace, ring: RingPlace | None, working: WorkingPlace | None
) -> None:
    """Assert that shapes and dtypes fit each other; numbers stay on their device."""
    groups, size = key.shape
    assert query.shape[1] == size and value.shape == key.shape, (query.shape, key.shape, value.shape)
    for keys, values in ((store.keys, store.values), *([] if working is None else [working[:2]])):
        assert keys.shape[::2] == values.shape[::2] == (groups, size), (keys.shape, values.shape)
        assert keys.dtype == values.dtype == key.dtype == value.dtype
    if ring is not None:
        assert ring.queries.shape[::2] == query.shape and ring.queries.dtype == query.dtype
    if working is not None:
        assert working.lengths.shape == (groups,)
