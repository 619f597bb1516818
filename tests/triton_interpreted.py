"""Every Triton kernel against its twin under the interpreter. test_triton_interpreted.py runs it apart.

TRITON_INTERPRET is read when triton is imported, so it must be set before; bf16 is wrong there, so it stays out.
"""

from __future__ import annotations

import pytest
import torch
from attention_oracle import random_lines, relative_rms, tensors
from decode_oracle import exact_decode, exact_mass, ring, working_set

from loopserve_kernels.coverage import bucket_mass_torch, coverage_histogram_torch
from loopserve_kernels.coverage_triton import bucket_mass_triton, coverage_histogram_triton
from loopserve_kernels.decode_triton import decode_attention_triton
from loopserve_kernels.gather_triton import gather_keys_triton
from loopserve_kernels.index import build_index
from loopserve_kernels.key_mass_triton import key_mass_triton
from loopserve_kernels.lines import line_mass_torch
from loopserve_kernels.lines_triton import line_mass_triton
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
@pytest.mark.parametrize("share", ["head", "group"])
@pytest.mark.parametrize(("count", "keys"), [(5, 150), (67, 130)])
def test_line_mass_and_coverage(count: int, keys: int, share: str, dtype: torch.dtype, bound: float) -> None:
    rows, key, _ = tensors(4, 2, count, keys, 64, dtype)
    positions = torch.randperm(keys)[:count].sort().values
    exact = line_mass_torch(rows.double(), positions, key.double(), 0.2, share)
    mass = line_mass_triton(rows, positions, key, 0.2, share)
    for ours, theirs in ((mass.lse, exact.lse), (mass.vertical, exact.vertical), (mass.slash, exact.slash)):
        assert ours.shape == theirs.shape and relative_rms(ours, theirs) < bound
    plans = mass.vertical.shape[0]
    rank = torch.stack([torch.randperm(2 * keys) for _ in range(plans)]).clamp_max(60).to(torch.int32)
    given = (rank[:, :keys], rank[:, keys:])
    ours = coverage_histogram_triton(rows, positions, key, 0.2, mass.lse, *given, 60)
    theirs = coverage_histogram_torch(rows.double(), positions, key.double(), 0.2, exact.lse, *given, 60)
    assert relative_rms(ours, theirs) < bound
    bucket = torch.randint(0, 6, (plans, keys), dtype=torch.int32)
    ours = bucket_mass_triton(rows, positions, key, 0.2, mass.lse, bucket, 6)
    theirs = bucket_mass_torch(rows.double(), positions, key.double(), 0.2, exact.lse, bucket, 6)
    assert relative_rms(ours, theirs) < bound


def nan_filled(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a launcher allocates is full of NaN, so that anything it leaves unwritten shows."""
    empty = torch.empty
    monkeypatch.setattr(torch, "empty", lambda *shape, **kind: empty(*shape, **kind).fill_(float("nan")))


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
