"""Every Triton kernel against its twin under the interpreter. test_triton_interpreted.py runs it apart.

TRITON_INTERPRET is read when triton is imported, so it must be set before; bf16 is wrong there, so it stays out.
"""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

import pytest
import torch
from attention_oracle import random_lines, relative_rms, tensors
from decode_oracle import exact_decode, exact_mass, ring, working_set
from test_block_sparse import random_blocks
from test_coverage import SCALING, chosen, sample

from loopserve_kernels.block_index import make_block_index
from loopserve_kernels.block_sparse import block_sparse_torch
from loopserve_kernels.block_sparse_triton import block_sparse_triton
from loopserve_kernels.coverage import coverage_histogram
from loopserve_kernels.coverage_triton import first_covered_triton
from loopserve_kernels.decode_triton import decode_attention_triton
from loopserve_kernels.gather_triton import gather_keys_triton
from loopserve_kernels.index import build_index, make_index_torch
from loopserve_kernels.index_triton import make_index_triton
from loopserve_kernels.key_mass_triton import key_mass_triton
from loopserve_kernels.lines import line_mass_torch
from loopserve_kernels.lines_triton import line_mass_triton
from loopserve_kernels.ranking import forced_mass, ranked, ranks
from loopserve_kernels.rules import Rules
from loopserve_kernels.tile_index import Index
from loopserve_kernels.tile_order import kernel_order
from loopserve_kernels.tradeoff import best_tradeoff
from loopserve_kernels.tradeoff_triton import best_tradeoff_triton
from loopserve_kernels.vertical_slash import vertical_slash_torch
from loopserve_kernels.vertical_slash_triton import vertical_slash_triton

TYPES = [(torch.float32, 1e-5), (torch.float16, 2e-3)]


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize(
    ("rows", "keys", "size", "splits", "plans"),
    [(1, 50, 64, 3, 4), (33, 90, 80, 1, 2), (50, 50, 96, 1, 4), (17, 130, 128, 2, 1), (5, 40, 256, 1, 2)],
)
def test_vertical_slash(
    rows: int,
    keys: int,
    size: int,
    splits: int,
    plans: int,
    dtype: torch.dtype,
    bound: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **kind: empty(*shape, **kind).fill_(float("nan")))
    query, key, value = tensors(4, 2, rows, keys, size, dtype)
    lines = random_lines(plans, keys, 8, 10, dense=1 if plans > 1 else None)
    index = build_index(lines, keys, 32, 16)
    exact = vertical_slash_torch(query.double(), key.double(), value.double(), index, 0.1, 5)
    assert relative_rms(vertical_slash_triton(query, key, value, index, 0.1, 5, splits), exact) < bound


def test_all_heads_dense() -> None:
    query, key, value = tensors(2, 1, 40, 100, 80)
    lines = random_lines(2, 100, 1)
    lines.dense.fill_(True)
    index = build_index(lines, 100, 16, 32)
    causal = torch.arange(100) <= torch.arange(60, 100)[:, None]
    exact = torch.nn.functional.scaled_dot_product_attention(
        query.double(), key.double().expand(2, -1, -1), value.double().expand(2, -1, -1), attn_mask=causal, scale=0.1
    )
    assert relative_rms(vertical_slash_triton(query, key, value, index, 0.1, 0, 2), exact) < 1e-5


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize(
    ("rows", "keys", "size", "block", "splits", "plans"),
    [(1, 50, 64, 16, 3, 4), (33, 90, 80, 32, 1, 2), (50, 50, 96, 16, 1, 4), (7, 80, 128, 64, 2, 1),
     (5, 20, 256, 32, 1, 2), (100, 300, 64, 128, 1, 4)],
)  # fmt: skip
def test_block_sparse(
    rows: int,
    keys: int,
    size: int,
    block: int,
    splits: int,
    plans: int,
    dtype: torch.dtype,
    bound: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query, key, value = tensors(4, 2, rows, keys, size, dtype)
    index = make_block_index(random_blocks(plans, rows, keys, block, dense=1 if plans > 1 else None))
    exact = block_sparse_torch(query.double(), key.double(), value.double(), index, 0.1)
    nan_filled(monkeypatch)
    assert relative_rms(block_sparse_triton(query, key, value, index, 0.1, splits), exact) < bound


def test_a_block_that_is_left_out_shows() -> None:
    query, key, value = tensors(1, 1, 20, 100, 64)
    index = make_block_index(random_blocks(1, 20, 100, 16))
    exact = block_sparse_torch(query.double(), key.double(), value.double(), index, 0.1)
    fewer = replace(index, count=(index.count - 1).clamp_min(0))
    assert relative_rms(block_sparse_triton(query, key, value, fewer, 0.1, 1), exact) > 1e-2


INDEXED = [
    # rows of a block, tile, new rows, keys, lines, line heads, dense rows, whether dear heads are dense
    (16, 16, 33, 90, 5, 1, 0, False),
    (64, 64, 1, 1, 1, 2, 0, False),
    (64, 64, 130, 400, 150, 2, 40, False),
    (16, 16, 150, 300, 2, 3, 1, True),
    (64, 32, 150, 300, 2, 4, 0, True),
    (16, 16, 20, 300, 50, 2, 999, False),
]


@pytest.mark.parametrize("wide", [False, True])
@pytest.mark.parametrize(("rows", "tile", "new", "keys", "most", "plans", "dense_rows", "priced"), INDEXED)
def test_index(
    rows: int, tile: int, new: int, keys: int, most: int, plans: int, dense_rows: int, priced: bool, wide: bool
) -> None:
    lines = random_lines(plans, keys, keys + most, most)
    tall = torch.arange(plans) % 2 == 0 if wide else None
    given = (lines, new, keys, rows, tile, dense_rows)
    free = make_index_torch(*given, wide=tall)
    assert free.entries is not None
    price = float(free.entries.min()) if priced else float("inf")
    ours, theirs = make_index_triton(*given, price, tall), kernel_order(make_index_torch(*given, price, tall))
    for field in fields(Index):
        mine, twin = getattr(ours, field.name), getattr(theirs, field.name)
        if isinstance(twin, torch.Tensor):
            assert mine.dtype == twin.dtype and torch.equal(mine, twin), field.name
        else:
            assert mine == twin, field.name
    assert bool(ours.dense.any()) == priced and not ours.dense.all()


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize(
    ("heads", "groups", "plans", "rows", "keys", "size", "shape", "splits"),
    [
        (2, 1, 2, 100, 150, 64, (64, 64), 1),  # heads apart, one of them in tall blocks
        (4, 2, 2, 70, 130, 64, (64, 64), 2),  # two heads of a group in a block
        (2, 1, 1, 65, 65, 80, (64, 64), 1),  # one choice for all
        (3, 1, 1, 70, 100, 128, (64, 64), 3),  # three heads in a group: none in pairs
        (2, 2, 2, 3, 40, 64, (64, 64), 2),  # fewer keys than a tile has
        (2, 1, 2, 50, 70, 96, (32, 16), 1),
    ],
)
def test_tall_blocks_and_pairs(
    heads: int,
    groups: int,
    plans: int,
    rows: int,
    keys: int,
    size: int,
    shape: tuple[int, int],
    splits: int,
    dtype: torch.dtype,
    bound: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    query, key, value = tensors(heads, groups, rows, keys, size, dtype)
    lines = random_lines(plans, keys, rows, 15, dense=1 if plans > 2 else None)
    wide = torch.arange(plans) % 2 == 0
    for tall, dense_rows in ((None, 0), (wide, 5)):
        index = make_index_torch(lines, rows, keys, *shape, dense_rows, wide=tall)
        exact = vertical_slash_torch(query.double(), key.double(), value.double(), index, 0.1, dense_rows)
        made = make_index_triton(lines, rows, keys, *shape, dense_rows, float("inf"), tall)
        with monkeypatch.context() as patch:
            nan_filled(patch)
            out = vertical_slash_triton(query, key, value, made, 0.1, dense_rows, splits)
        assert relative_rms(out, exact) < bound


def test_a_line_in_the_wrong_place_shows() -> None:
    """The bound above is tight enough: without the verticals or the whole tiles the answer is far outside it."""
    query, key, value = tensors(1, 1, 70, 130, 64, torch.float16)
    lines = random_lines(1, 130, 3, 6)
    made = make_index_triton(lines, 70, 130, 64, 64, 0, float("inf"), None)
    exact = vertical_slash_torch(
        query.double(), key.double(), value.double(), make_index_torch(lines, 70, 130, 64, 64), 0.1
    )
    for fewer in (
        replace(made, vertical_count=made.vertical_count * 0),
        replace(made, full_count=made.full_count * 0, tile_count=made.tile_count - made.full_count),
    ):
        assert relative_rms(vertical_slash_triton(query, key, value, fewer, 0.1), exact) > 1e-2


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize("share", ["head", "group"])
@pytest.mark.parametrize(("count", "keys"), [(5, 150), (67, 130)])
def test_line_mass_and_coverage(count: int, keys: int, share: str, dtype: torch.dtype, bound: float) -> None:
    rows, key, _ = tensors(4, 2, count, keys, 64, dtype)
    positions = torch.randperm(keys)[:count].sort().values
    exact = line_mass_torch(rows.double(), positions, key.double(), 0.2, share)
    mass = line_mass_triton(rows, positions, key, 0.2, share)
    for ours, theirs in ((mass.lse, exact.lse), (mass.vertical, exact.vertical), (mass.slash, exact.slash)):
        assert ours.shape == theirs.shape and relative_rms(ours, theirs) < bound
    # By rank, what the lines are the first to cover is the histogram of every cell's better rank.
    order = ranked(torch.cat(forced_mass(mass, Rules(sinks=2, local=3)), 1), 2 * keys)
    rank = ranks(order, 2 * keys)
    by_rank = coverage_histogram(exact, rank[:, :keys], rank[:, keys:], 2 * keys)
    first = first_covered_triton(mass, positions, 2, 3).transpose(0, 1).flatten(1)
    assert relative_rms(first.gather(1, order), by_rank) < bound


@pytest.mark.parametrize(("share", "objective", "alpha", "wide", "found"), [
    ("head", "latency", 0.5, True, []), ("head", "latency", 0.97, True, ["wide"]),
    ("head", "latency", 0.97, False, ["dense"]), ("group", "optimal", 0.9, False, []),
])  # fmt: skip
def test_the_tradeoff_finds_the_twin_s_lines(
    share: str, objective: str, alpha: float, wide: bool, found: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """To the line, on rows that see a band and a sink; one head sees noise, which is dear."""
    nan_filled(monkeypatch)
    for module in ("tradeoff", "tradeoff_triton"):  # so cheap that one of these heads is worth it
        monkeypatch.setattr(f"loopserve_kernels.{module}.WIDE_COLUMN", 0.77)
    rows, positions, key = sample("band", 2, 1, 90, 17)
    rows[1] = torch.randn(17, 32, generator=torch.Generator().manual_seed(0))
    rules = Rules(
        alpha, sinks=2, local=3, objective=objective, rows_per_block=16, wide=wide, most_columns=50.0 + 30 * wide
    )
    mass = line_mass_triton(rows, positions, key, SCALING, share)
    twin = line_mass_torch(rows, positions, key, SCALING, share)
    theirs = best_tradeoff(replace(twin, vertical=mass.vertical, slash=mass.slash), rules)
    ours = best_tradeoff_triton(mass, positions, rules)
    for plan in range(theirs.dense.shape[0]):
        assert chosen(ours, plan) == chosen(theirs, plan)
        assert bool((ours.vertical[plan, ours.vertical_count[plan] :] == 90).all())
        assert bool((ours.slash[plan, ours.slash_count[plan] :] == 90).all())
    assert torch.equal(ours.dense, theirs.dense) and torch.equal(ours.wide, theirs.wide)
    assert torch.allclose(ours.coverage, theirs.coverage, atol=1e-6)
    assert [name for name in ("dense", "wide") if getattr(ours, name).any()] == found
    assert not ours.dense.all()


def nan_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher allocates is full of NaN, or of 77, so that anything it leaves unwritten shows."""
    empty = torch.empty

    def filled(*shape: int, **kind: Any) -> torch.Tensor:
        room = empty(*shape, **kind)
        return room.fill_(float("nan") if room.is_floating_point() else 77)

    monkeypatch.setattr(torch, "empty", filled)


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize("pool", ["mean", "max"])
@pytest.mark.parametrize(
    ("heads", "groups", "slots", "keys", "size"),
    [(6, 2, 1, 1, 64), (4, 4, 5, 600, 80), (8, 1, 16, 97, 96), (14, 2, 20, 301, 128), (4, 2, 70, 1100, 64)],
)
def test_key_mass(
    heads: int,
    groups: int,
    slots: int,
    keys: int,
    size: int,
    pool: str,
    dtype: torch.dtype,
    bound: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    nan_filled(monkeypatch)
    query, positions, key = ring(heads, groups, slots, keys, size, dtype)
    exact = exact_mass(query, positions, key, 0.1, pool)
    assert relative_rms(key_mass_triton(query, positions, key, 0.1, pool), exact) < bound
    # The same again in a larger store, from a ring with two slots that are not used.
    room = torch.full((groups, keys + 150, size), float("nan"), dtype=dtype)
    room[:, :keys] = key
    query = torch.cat([query, torch.full((heads, 2, size), float("nan"), dtype=dtype)], 1)
    positions = torch.cat([positions, torch.tensor([0, 10**6])])
    mass = key_mass_triton(query, positions, room, 0.1, pool, torch.tensor(slots, dtype=torch.int32))
    assert relative_rms(mass[:, :keys], exact) < bound
    assert torch.equal(mass[:, keys:], torch.zeros(groups, 150))


@pytest.mark.parametrize("size", [64, 80])
def test_gather_keys(size: int) -> None:
    _, key, value = tensors(6, 3, 1, 90, size)
    index = torch.randperm(90)[:66].reshape(3, 22).sort(1).values.to(torch.int32)
    count = torch.tensor([22, 17, 0], dtype=torch.int32)
    index[1, 17:], index[2] = 90, 90
    room = torch.full((2, 30, 3, size), float("nan")).transpose(1, 2)
    counted = torch.full((3,), -1, dtype=torch.int32)
    gather_keys_triton(key, value, index, count, room[0], room[1], counted)
    assert torch.equal(counted, count)
    for out, store in zip(room, (key, value), strict=True):
        for head, rows in enumerate(count.tolist()):
            assert torch.equal(out[head, :rows], store[head, index[head, :rows].long()])
            assert bool(out[head, rows:].isnan().all())


@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize("splits", [1, 3])
@pytest.mark.parametrize(
    ("heads", "lengths", "size"),
    [(6, [1, 1], 64), (4, [9, 9, 9, 9], 80), (8, [200], 128), (14, [130, 3], 96), (6, [64, 301, 17], 256),
     (71, [70], 64)],
)  # fmt: skip
def test_decode_attention(
    heads: int,
    lengths: list[int],
    size: int,
    splits: int,
    dtype: torch.dtype,
    bound: float,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    given = working_set(heads, lengths, size, dtype)
    exact = exact_decode(*given, 0.1)
    nan_filled(monkeypatch)
    assert relative_rms(decode_attention_triton(*given, 0.1, splits), exact) < bound
