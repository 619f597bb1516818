"""Block-sparse attention against float64 with a mask, on odd shapes, strides and block sets."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from attention_oracle import relative_rms, tensors
from torch import Tensor

from loopserve_kernels.block_index import BlockIndex, executed_blocks, make_block_index
from loopserve_kernels.block_sparse import block_sparse, block_sparse_torch
from loopserve_kernels.blocks import BlockGrid, Blocks
from loopserve_kernels.covering import covering
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.entries import causal_entries

SHAPES = [(1, 1), (1, 50), (5, 5), (16, 17), (33, 190), (64, 64), (70, 200), (257, 257), (130, 1300)]


def random_blocks(plans: int, rows: int, keys: int, size: int, share: float = 0.3, dense: int | None = None) -> Blocks:
    grid = BlockGrid(rows, keys, size)
    chosen = torch.rand(plans, grid.rows, grid.columns, generator=torch.Generator().manual_seed(rows + keys)) < share
    if dense is not None:
        chosen[dense] = True
    return Blocks(grid, grid.causal(chosen), torch.full((plans,), float("nan")))


def mask_of(blocks: Blocks) -> Tensor:
    """Cells [P, n, N], one by one."""
    grid, chosen = blocks.grid, blocks.chosen.tolist()
    mask = torch.zeros(len(chosen), grid.new, grid.keys, dtype=torch.bool)
    history = grid.keys - grid.new
    for plan, rows in enumerate(chosen):
        for row in range(grid.new):
            position = history + row
            for key in range(position + 1):
                mask[plan, row, key] = rows[position // grid.size - history // grid.size][key // grid.size]
    return mask


@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (1, 50), (33, 90), (64, 64), (40, 41)])
@pytest.mark.parametrize("size", [16, 32])
def test_the_index_executes_the_chosen_blocks_and_counts_their_cells(rows: int, keys: int, size: int) -> None:
    blocks = random_blocks(3, rows, keys, size, dense=1)
    index, mask = make_block_index(blocks), mask_of(blocks)
    assert torch.equal(executed_blocks(index), mask)
    assert index.entries.tolist() == mask.sum((1, 2)).tolist()
    assert index.dense.tolist() == (mask.sum((1, 2)) == causal_entries(rows, keys)).tolist()
    assert bool(index.dense[1])


def test_a_dear_head_is_dense_and_counts_all_cells() -> None:
    blocks = random_blocks(4, 130, 300, 16)
    free = make_block_index(blocks)
    most = float(free.entries.sort().values[1])
    index = make_block_index(blocks, most)
    assert index.dense.tolist() == (free.entries > most).tolist() and index.dense.sum() == 2
    assert index.entries[index.dense].tolist() == [causal_entries(130, 300)] * 2
    assert executed_blocks(index)[index.dense].sum() == 2 * causal_entries(130, 300)


@pytest.mark.parametrize(("rows", "keys"), SHAPES)
@pytest.mark.parametrize("plans", [6, 2, 1])
@pytest.mark.parametrize("size", [16, 128])
def test_cpu_path_equals_float64(rows: int, keys: int, plans: int, size: int, monkeypatch: pytest.MonkeyPatch) -> None:
    query, key, value = tensors(6, 2, rows, keys, 64)
    index = make_block_index(random_blocks(plans, rows, keys, size, dense=0 if plans > 1 else None))
    exact = block_sparse_torch(query.double(), key.double(), value.double(), index, 0.2)
    empty = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda given: empty(given).fill_(float("nan")))
    assert relative_rms(block_sparse(query, key, value, index, 0.2), exact) < 1e-5


@pytest.mark.parametrize("size", [64, 80, 256])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
def test_head_sizes_and_types(size: int, dtype: torch.dtype, bound: float) -> None:
    query, key, value = tensors(4, 2, 75, 333, size, dtype)
    index = make_block_index(random_blocks(4, 75, 333, 32, dense=1))
    exact = block_sparse_torch(query.double(), key.double(), value.double(), index, 0.1)
    out = block_sparse(query, key, value, index, 0.1)
    assert out.dtype == dtype and relative_rms(out, exact) < bound


def test_the_twin_equals_softmax_written_out() -> None:
    query, key, value = tensors(2, 1, 9, 40, 16, torch.float64)
    blocks = random_blocks(2, 9, 40, 16)
    out, mask = block_sparse_torch(query, key, value, make_block_index(blocks), 0.3), mask_of(blocks)
    for head in range(2):
        for row in range(9):
            seen = mask[head, row].nonzero().squeeze(1)
            weights = torch.exp(query[head, row] @ key[0, seen].T * 0.3)
            assert torch.allclose(out[head, row], weights @ value[0, seen] / weights.sum())


@pytest.mark.parametrize(("rows", "keys"), [(65, 65), (40, 300)])
def test_every_block_equals_dense_and_one_fewer_does_not(rows: int, keys: int) -> None:
    query, key, value = tensors(4, 2, rows, keys, 64)
    full = dense_attention(query[None], key[None], value[None], 0.2)[0]
    blocks = random_blocks(4, rows, keys, 16, share=2.0)
    listed = replace(make_block_index(blocks), dense=torch.zeros(4, dtype=torch.bool))
    assert relative_rms(block_sparse(query, key, value, listed, 0.2), full) < 1e-5
    blocks.chosen[:, -1, 1] = False
    assert relative_rms(block_sparse(query, key, value, make_block_index(blocks), 0.2), full) > 1e-3


def test_strides_that_end_elsewhere() -> None:
    query, key, value = tensors(4, 2, 20, 99, 64)
    turned = [part.transpose(1, 2).contiguous().transpose(1, 2) for part in (query, key, value)]
    assert all(part.stride(-1) != 1 for part in turned)
    index = make_block_index(random_blocks(4, 20, 99, 16))
    assert torch.allclose(block_sparse(*turned, index, 0.2), block_sparse(query, key, value, index, 0.2), atol=1e-5)


def test_an_index_for_another_length_is_refused() -> None:
    query, key, value = tensors(4, 2, 20, 99, 64)
    with pytest.raises(AssertionError, match="another length"):
        block_sparse(query, key, value, make_block_index(random_blocks(4, 20, 98, 16)), 0.2)


def test_a_cover_is_the_fewest_that_hold_the_share() -> None:
    scores = torch.tensor([[0.1, 0.4, 0.2, 0.3], [0.0, 0.0, 1.0, 0.0]])
    assert covering(scores, 0.65).tolist() == [[False, True, False, True], [False, False, True, False]]
    assert covering(scores, 0.65, least=3).sum(1).tolist() == [3, 3]
    first = torch.tensor([True, False, False, False])
    # What is forced comes first: 0.1 and 0.4 are not enough, with 0.3 they are.
    assert covering(scores, 0.65, forced=first).tolist() == [[True, True, False, True], [True, False, True, False]]
    assert covering(torch.full((1, 4), 0.25), 0.5).tolist() == [[True, True, False, False]]


@pytest.mark.gpu
@pytest.mark.parametrize("size", [64, 80, 96, 128, 256])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
@pytest.mark.parametrize(("rows", "keys", "block"), [(1, 77, 128), (130, 1301, 16), (700, 700, 128), (65, 5000, 64)])
def test_triton_on_a_gpu(rows: int, keys: int, block: int, size: int, dtype: torch.dtype, bound: float) -> None:
    query, key, value = (part.cuda() for part in tensors(4, 2, rows, keys, size, dtype))
    blocks = random_blocks(4, rows, keys, block, dense=1)
    index: BlockIndex = make_block_index(replace(blocks, chosen=blocks.chosen.cuda()))
    exact = block_sparse_torch(query.double(), key.double(), value.double(), index, 0.1)
    out = block_sparse(query, key, value, index, 0.1)
    assert out.dtype == dtype and relative_rms(out, exact) < bound
