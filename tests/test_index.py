"""The index: every wanted cell is executed exactly once, whatever the rectangle."""

from __future__ import annotations

import random

import pytest
import torch
from attention_oracle import random_lines, wanted_cells
from torch import Tensor

from loopserve_kernels.choice import fixed_lines
from loopserve_kernels.executed import causal_entries, executed_entries, executed_mask, first_dense_row
from loopserve_kernels.index import build_index, make_index, make_index_torch
from loopserve_kernels.tile_index import Index


def times_executed(index: Index, plan: int, new: int, keys: int) -> Tensor:
    """How often each cell [n, N] is computed, walking tiles and verticals block by block as a kernel does."""
    times = torch.zeros(new, keys, dtype=torch.int32)
    history, block = keys - new, index.rows_per_block
    for first in range(0, new, block):
        rows = slice(first, min(first + block, new))
        position = history + first
        for j in range(int(index.tile_count[plan])):
            start, length = int(index.tile_start[plan, j]), int(index.tile_length[plan, j])
            assert 1 <= length <= index.tile
            times[rows, max(0, position - start - length + 1) : max(0, position - start + 1)] += 1
        for key in index.vertical[plan, : index.vertical_count[plan]].tolist():
            if key < position and not index.covered[plan, position - key + block - 1]:
                times[rows, key] += 1
    causal = torch.arange(keys) <= torch.arange(history, keys)[:, None]
    return times * causal


def rectangles() -> list[tuple[int, int, int, int, int]]:
    chance = random.Random(5)
    cases = []
    for seed in range(500):
        keys = chance.randint(1, 90)
        cases.append(
            (seed, chance.randint(1, keys), keys, chance.choice([1, 4, 5, 16]), chance.choice([1, 3, 8, 16, 999]))
        )
    return cases


def test_every_wanted_cell_is_covered_exactly_once() -> None:
    for seed, new, keys, block, tile in rectangles():
        lines = random_lines(1, keys, seed, most=seed % 9 + 1)
        index = build_index(lines, keys, block, tile)
        times = times_executed(index, 0, new, keys)
        wanted = wanted_cells(lines, new, keys)[0]
        case = (seed, new, keys, block, tile)
        assert int(times.max()) == 1, case
        assert bool((times[wanted] == 1).all()), case
        assert bool((times.sum(1) > 0).all()), case
        mask = executed_mask(index, new, keys)[0]
        assert torch.equal(times.bool(), mask), case
        assert int(executed_entries(index, new, keys)[0]) == int(mask.sum()), case


def test_heads_keep_apart_and_dense_ones_see_all() -> None:
    lines = random_lines(4, 70, 3, dense=2)
    index = build_index(lines, 70, 8, 16)
    mask = executed_mask(index, 33, 70)
    for plan in (0, 1, 3):
        assert torch.equal(times_executed(index, plan, 33, 70).bool(), mask[plan])
    assert int(mask[2].sum()) == causal_entries(33, 70)
    assert executed_entries(index, 33, 70).tolist() == mask.sum((1, 2)).tolist()


@pytest.mark.parametrize("dense_rows", [1, 8, 9, 33, 99])
def test_last_rows_dense(dense_rows: int) -> None:
    index = build_index(random_lines(2, 70, 4), 70, 8, 16)
    mask = executed_mask(index, 33, 70, dense_rows)
    causal = torch.arange(70) <= torch.arange(37, 70)[:, None]
    first = first_dense_row(33, 8, dense_rows)
    assert first <= max(0, 33 - dense_rows) and first % 8 == 0
    assert torch.equal(mask[0, first:], causal[first:])
    assert torch.equal(mask[:, :first], executed_mask(index, 33, 70)[:, :first])
    assert executed_entries(index, 33, 70, dense_rows).tolist() == mask.sum((1, 2)).tolist()


def test_neighbours_make_one_run_and_memory_follows_the_lines() -> None:
    lines = fixed_lines(torch.tensor([[5, 900]]), torch.tensor([[1, 2, 3, 300, 301]]), 1000)
    index = build_index(lines, 1000, 64, 64)
    starts = index.tile_start[0, : index.tile_count[0]].tolist()
    lengths = index.tile_length[0, : index.tile_count[0]].tolist()
    # Offsets 0..3 need delta -63..3, offsets 300 and 301 need 237..301: two runs of 67 and 65 in tiles of 64.
    assert starts == [-63, 1, 237, 301]
    assert lengths == [64, 3, 64, 1]
    assert index.tile_start.shape[1] <= 2 * lines.slash.shape[1]
    assert index.covered.shape == (1, 1063)


def test_fixed_lines_drop_repeats_and_add_offset_zero() -> None:
    lines = fixed_lines(torch.tensor([[3, 3, -1, 9, 2]]), torch.tensor([[4, 4, 10, 7]]), 10)
    assert lines.vertical[0].tolist() == [2, 3, 9, 10, 10]
    assert lines.vertical_count.tolist() == [3]
    assert lines.slash[0].tolist() == [0, 4, 7, 10, 10]
    assert lines.slash_count.tolist() == [3]


def test_dear_heads_become_dense_and_every_head_is_counted() -> None:
    lines = random_lines(5, 200, 9, most=20, dense=3)
    counted = make_index(lines, 90, 200, 16, 64, 10)
    assert counted.entries is not None and counted.wide is None
    plain = build_index(lines, 200, 16, 64)
    assert counted.entries.tolist() == executed_mask(plain, 90, 200, 10).sum((1, 2)).tolist()
    most = int(counted.entries.sort().values[2])
    priced = make_index(lines, 90, 200, 16, 64, 10, most)
    assert priced.entries is not None
    assert priced.dense.tolist() == (counted.entries > most).tolist() and int(priced.dense.sum()) == 2
    assert priced.entries.tolist() == executed_mask(priced, 90, 200, 10).sum((1, 2)).tolist()


def test_wide_heads_get_windows_of_twice_the_rows() -> None:
    lines = random_lines(4, 150, 11, most=7)
    wide = torch.tensor([True, False, True, False])
    mixed = make_index_torch(lines, 70, 150, 8, 16, 5, wide=wide)
    for block, heads in ((8, ~wide), (16, wide)):
        alone = make_index_torch(lines, 70, 150, block, 16, 5)
        assert torch.equal(executed_mask(mixed, 70, 150, 5)[heads], executed_mask(alone, 70, 150, 5)[heads])
        assert mixed.entries is not None and alone.entries is not None
        assert torch.equal(mixed.entries[heads], alone.entries[heads])
        assert torch.equal(mixed.tile_count[heads], alone.tile_count[heads])
        most = alone.tile_start.shape[1]
        assert torch.equal(mixed.tile_start[heads, :most], alone.tile_start[heads, : mixed.tile_start.shape[1]])
    assert executed_entries(mixed, 70, 150, 5).tolist() == executed_mask(mixed, 70, 150, 5).sum((1, 2)).tolist()
    priced = make_index_torch(lines, 70, 150, 8, 16, 5, 0, wide)
    assert priced.wide is not None and bool((priced.dense & priced.wide).all())
