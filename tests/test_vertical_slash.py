"""Vertical-slash attention against float64 with a mask, on odd shapes, strides and line sets."""

from __future__ import annotations

from dataclasses import fields, replace

import pytest
import torch
from attention_oracle import random_lines, relative_rms, tensors

from loopserve_kernels.choice import choose_lines, fixed_lines
from loopserve_kernels.chosen_lines import Lines
from loopserve_kernels.dense import dense_attention
from loopserve_kernels.executed import executed_mask
from loopserve_kernels.index import build_index, make_index, make_index_torch
from loopserve_kernels.lines import line_mass
from loopserve_kernels.rules import Rules
from loopserve_kernels.tile_index import Index
from loopserve_kernels.tile_order import kernel_order
from loopserve_kernels.vertical_slash import WHOLE_RUN, block_shape, vertical_slash, vertical_slash_torch

SHAPES = [(1, 1), (1, 50), (5, 5), (16, 17), (33, 190), (64, 64), (70, 200), (257, 257), (130, 1300)]


@pytest.mark.parametrize(("rows", "keys"), SHAPES)
@pytest.mark.parametrize("plans", [6, 2, 1])
@pytest.mark.parametrize(("block", "tile"), [(16, WHOLE_RUN), (64, 32), (7, 5)])
def test_cpu_path_equals_float64(rows: int, keys: int, plans: int, block: int, tile: int) -> None:
    query, key, value = tensors(6, 2, rows, keys, 64)
    for most in (1, 40):
        index = build_index(random_lines(plans, keys, rows + most, most), keys, block, tile)
        exact = vertical_slash_torch(query.double(), key.double(), value.double(), index, 0.2)
        assert relative_rms(vertical_slash(query, key, value, index, 0.2), exact) < 1e-5


@pytest.mark.parametrize("size", [64, 80, 96, 128, 256])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
def test_head_sizes_and_types(size: int, dtype: torch.dtype, bound: float) -> None:
    query, key, value = tensors(4, 2, 75, 333, size, dtype)
    index = build_index(random_lines(4, 333, 8, 30, dense=1), 333, *block_shape(size, dtype, query.device))
    exact = vertical_slash_torch(query.double(), key.double(), value.double(), index, 0.1)
    out = vertical_slash(query, key, value, index, 0.1)
    assert out.dtype == dtype
    assert relative_rms(out, exact) < bound


def test_twin_equals_softmax_written_out() -> None:
    query, key, value = tensors(2, 1, 9, 40, 16, torch.float64)
    index = build_index(random_lines(2, 40, 1, 5), 40, 4, 4)
    mask = executed_mask(index, 9, 40)
    out = vertical_slash_torch(query, key, value, index, 0.3)
    for head in range(2):
        for row in range(9):
            seen = mask[head, row].nonzero().squeeze(1)
            weights = torch.exp(query[head, row] @ key[0, seen].T * 0.3)
            assert torch.allclose(out[head, row], weights @ value[0, seen] / weights.sum())


@pytest.mark.parametrize("dense_rows", [1, 40, 64, 65, 150, 1000])
def test_last_rows_dense(dense_rows: int) -> None:
    query, key, value = tensors(4, 2, 150, 400, 64)
    index = build_index(random_lines(4, 400, 2), 400, 64, WHOLE_RUN)
    exact = vertical_slash_torch(query.double(), key.double(), value.double(), index, 0.2, dense_rows)
    assert relative_rms(vertical_slash(query, key, value, index, 0.2, dense_rows), exact) < 1e-5
    full = dense_attention(query[None], key[None], value[None], 0.2)[0]
    last = min(dense_rows, 150)
    assert torch.allclose(exact[:, -last:].float(), full[:, -last:], atol=1e-5)


@pytest.mark.parametrize(("rows", "keys"), [(65, 65), (40, 300)])
def test_every_line_equals_dense(rows: int, keys: int) -> None:
    query, key, value = tensors(4, 2, rows, keys, 64)
    full = dense_attention(query[None], key[None], value[None], 0.2)[0]
    nothing = torch.empty(1, 0, dtype=torch.long)
    by_slash = fixed_lines(nothing, torch.arange(keys)[None], keys)
    by_vertical = fixed_lines(torch.arange(keys)[None], torch.zeros(1, 1, dtype=torch.long), keys)
    flagged = random_lines(4, keys, 0)
    flagged.dense.fill_(True)
    for lines in (by_slash, by_vertical, flagged):
        index = build_index(lines, keys, 16, 32)
        assert relative_rms(vertical_slash(query, key, value, index, 0.2), full) < 1e-5


def test_strides_that_end_elsewhere() -> None:
    query, key, value = tensors(4, 2, 20, 99, 64)
    turned = [part.transpose(1, 2).contiguous().transpose(1, 2) for part in (query, key, value)]
    assert all(part.stride(-1) != 1 for part in turned)
    index = build_index(random_lines(4, 99, 2), 99, 16, 16)
    assert torch.allclose(vertical_slash(*turned, index, 0.2), vertical_slash(query, key, value, index, 0.2), atol=1e-5)


def test_an_index_for_another_length_is_refused() -> None:
    query, key, value = tensors(4, 2, 20, 99, 64)
    with pytest.raises(AssertionError, match="another length"):
        vertical_slash(query, key, value, build_index(random_lines(4, 98, 2), 98, 16, 16), 0.2)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [64, 80, 96, 128, 256])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
@pytest.mark.parametrize(("rows", "keys", "plans"), [(1, 77, 4), (130, 1301, 2), (700, 700, 4), (65, 5000, 1)])
def test_triton_on_a_gpu(rows: int, keys: int, plans: int, size: int, dtype: torch.dtype, bound: float) -> None:
    query, key, value = (part.cuda() for part in tensors(4, 2, rows, keys, size, dtype))
    lines = random_lines(plans, keys, 3, 40, dense=1 if plans > 1 else None)
    index = build_index(Lines(*(getattr(lines, field.name).cuda() for field in fields(Lines))), keys,
                        *block_shape(size, dtype, query.device))  # fmt: skip
    exact = vertical_slash_torch(query.double(), key.double(), value.double(), index, 0.1, 20)
    out = vertical_slash(query, key, value, index, 0.1, 20)
    assert out.dtype == dtype and relative_rms(out, exact) < bound


def on_a_gpu(lines: Lines) -> Lines:
    return Lines(*(getattr(lines, field.name).cuda() for field in fields(Lines)))


def as_a_twin(index: Index, lines: Lines, rows: int, keys: int, dense_rows: int) -> Index:
    """The twin's index with the heads that a made one runs dense and in tall blocks."""
    shape = index.rows_per_block, index.tile
    return replace(make_index_torch(lines, rows, keys, *shape, dense_rows, wide=index.wide), dense=index.dense)


@pytest.mark.gpu
@pytest.mark.parametrize("size", [64, 80, 96, 128, 256])
@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)])
@pytest.mark.parametrize(
    ("rows", "keys", "heads", "plans"), [(1, 77, 4, 4), (130, 1301, 4, 2), (700, 700, 6, 2), (65, 5000, 8, 1)]
)
def test_tall_blocks_and_pairs_on_a_gpu(
    rows: int, keys: int, heads: int, plans: int, size: int, dtype: torch.dtype, bound: float
) -> None:
    query, key, value = (part.cuda() for part in tensors(heads, 2, rows, keys, size, dtype))
    lines = on_a_gpu(random_lines(plans, keys, 3, 40, dense=1 if plans > 1 else None))
    lines = replace(lines, wide=torch.arange(plans, device="cuda") % 2 == 0)
    shape = block_shape(size, dtype, query.device)
    for most in (float("inf"), rows * keys / 3):
        index = make_index(lines, rows, keys, *shape, 20, most)
        twin = as_a_twin(index, lines, rows, keys, 20)
        exact = vertical_slash_torch(query.double(), key.double(), value.double(), twin, 0.1, 20)
        out = vertical_slash(query, key, value, index, 0.1, 20)
        assert out.dtype == dtype and relative_rms(out, exact) < bound


@pytest.mark.gpu
@pytest.mark.parametrize("most", [1, 30, 300])
@pytest.mark.parametrize(("rows", "keys"), [(1, 1), (33, 900), (2000, 2000), (700, 20000)])
def test_the_index_of_a_gpu_equals_the_twin(rows: int, keys: int, most: int) -> None:
    lines = on_a_gpu(random_lines(4, keys, 5, most))
    lines = replace(lines, wide=torch.arange(4, device="cuda") % 2 == 0)
    shape = block_shape(128, torch.bfloat16, torch.device("cuda"))
    ours = make_index(lines, rows, keys, *shape, 40)
    theirs = kernel_order(make_index_torch(lines, rows, keys, *shape, 40, wide=ours.wide))
    for field in fields(Index):
        mine, twin = getattr(ours, field.name), getattr(theirs, field.name)
        assert torch.equal(mine, twin) if isinstance(twin, torch.Tensor) else mine == twin, field.name


@pytest.mark.gpu
@pytest.mark.parametrize("rows", [131072, 4096])
def test_128k_keys_against_the_twin_on_a_few_row_blocks(rows: int) -> None:
    """The twin attends whole row blocks only, each as if it were the last: less than 1 GiB in all."""
    keys, size, block = 131072, 128, 128
    query, key, value = (part.cuda() for part in tensors(4, 2, rows, keys, size, torch.bfloat16))
    lines = on_a_gpu(random_lines(4, keys, 7, 400))
    lines = replace(lines, wide=torch.tensor([True, False, True, False], device="cuda"))
    shape = block_shape(size, torch.bfloat16, query.device)
    index = make_index(lines, rows, keys, *shape)
    out = vertical_slash(query, key, value, index, 0.1)
    whole = as_a_twin(index, lines, rows, keys, 0)
    for first in (0, rows // 2, rows - block):
        seen = keys - rows + first + block
        twin = replace(whole, covered=whole.covered[:, : whole.reach + seen], vertical=whole.vertical.clamp_max(seen))
        part = query[:, first : first + block], key[:, :seen], value[:, :seen]
        exact = vertical_slash_torch(*(tensor.float() for tensor in part), twin, 0.1)
        assert relative_rms(out[:, first : first + block], exact) < 1.5e-2


@pytest.mark.gpu
def test_a_gpu_chooses_what_a_cpu_chooses_and_repeats_itself() -> None:
    query, key, _ = tensors(4, 2, 64, 3000, 64)
    positions = torch.arange(2936, 3000)
    for objective in ("lines", "optimal", "latency"):
        rules = Rules(0.8, objective=objective)
        found = []
        for device in ("cpu", "cuda", "cuda"):
            given = (query.to(device), positions.to(device), key.to(device), 0.2)
            found.append(choose_lines(line_mass(*given), *given, rules))
        ours, first, again = found
        assert torch.equal(first.vertical, again.vertical) and torch.equal(first.slash, again.slash)
        counts = ours.vertical_count + ours.slash_count
        assert torch.allclose((first.vertical_count + first.slash_count).cpu().float(), counts.float(), rtol=0.02)
        assert torch.allclose(first.coverage.cpu(), ours.coverage, atol=2e-3)
