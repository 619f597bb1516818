"""The twins of a decode step's kernels: what is written, and that they compute what the models' own code does."""

from __future__ import annotations

import pytest
import torch
from attention_oracle import relative_rms
from step_oracle import norm_case, places, rotation_of, step_case
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb
from transformers.models.phi3 import modeling_phi3

from loopserve_kernels.gated import silu_mul
from loopserve_kernels.norm import add_rms_norm
from loopserve_kernels.rotate import rotate
from loopserve_kernels.step_write import step_write

TYPES = [(torch.float32, 1e-5), (torch.float16, 2e-3), (torch.bfloat16, 1.5e-2)]


@pytest.mark.parametrize("working", [False, True])
@pytest.mark.parametrize("ring", [False, True])
@pytest.mark.parametrize("turned", [0, 16])
def test_a_token_is_written_where_it_belongs_and_nowhere_else(turned: int, ring: bool, working: bool) -> None:
    query, key, value = step_case(4, 2, 16, torch.float32)
    store, slots, chosen = places(4, 2, 16, torch.float32, ring, working)
    rotation = rotation_of(1, 16, turned, torch.float32, normed=False) if turned else None
    wanted_query, wanted_key = query, key
    if rotation is not None:
        wanted_query, wanted_key = (part[0] for part in rotate(query[None], key[None], rotation))
    out = step_write(query, key, value, store, slots, chosen, rotation)
    assert torch.equal(out, wanted_query)
    assert torch.equal(store.keys[:, 4], wanted_key) and torch.equal(store.values[:, 4], value)
    assert bool(store.keys.isnan()[:, [0, 3, 5, 8]].all())
    if slots is not None:
        assert torch.equal(slots.queries[:, 2], wanted_query)
        assert slots.positions.tolist() == [0, 0, 1000, 0, 0]
        assert bool(slots.queries[:, [0, 1, 3, 4]].isnan().all())
    if chosen is not None:
        assert chosen.lengths.tolist() == [4, 7]
        for head, row in enumerate((3, 6)):
            assert torch.equal(chosen.keys[head, row], wanted_key[head])
            assert torch.equal(chosen.values[head, row], value[head])
        assert int(chosen.keys.isnan().any(-1).sum()) == 2 * 9 - 2


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_norm_is_the_models_to_the_bit(dtype: torch.dtype) -> None:
    x, delta, weight = norm_case(3, 64, dtype)
    norm = LlamaRMSNorm(64, 1e-5)
    norm.weight.data = weight
    total, out = add_rms_norm(x, delta, weight, 1e-5)
    assert torch.equal(total, x + delta) and torch.equal(out, norm(x + delta))
    assert torch.equal(add_rms_norm(x, None, weight, 1e-5)[1], norm(x))


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("turned", [16, 8])
def test_the_rotation_is_the_models_to_the_bit(turned: int, dtype: torch.dtype) -> None:
    query, key, _ = (part.unflatten(0, (-1, 2)).transpose(0, 1) for part in step_case(8, 4, 16, dtype))
    rotation = rotation_of(2, 16, turned, dtype, normed=False)
    apply = apply_rotary_pos_emb if turned == 16 else modeling_phi3.apply_rotary_pos_emb
    places = (part.transpose(0, 1)[None] for part in (query, key))
    theirs = apply(*places, rotation.cos[None], rotation.sin[None])
    for ours, wanted in zip(rotate(query, key, rotation), theirs, strict=True):
        assert torch.equal(ours, wanted[0].transpose(0, 1))


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "bound"), TYPES)
@pytest.mark.parametrize("turned", [0, 64, 128])
def test_the_kernel_writes_what_its_twin_does_on_a_gpu(turned: int, dtype: torch.dtype, bound: float) -> None:
    token = step_case(32, 8, 128, dtype)
    rotation = rotation_of(1, 128, turned, dtype, normed=turned == 128) if turned else None
    store, slots, chosen = places(32, 8, 128, dtype, ring=True, working=True)
    given = [part and type(part)(*(tensor.cuda() for tensor in part)) for part in (store, slots, chosen)]
    turned_there = rotation and type(rotation)(
        *(part.cuda() if isinstance(part, torch.Tensor) else part for part in rotation)
    )
    out = step_write(*(part.cuda() for part in token), *given, turned_there)
    exact = step_write(*token, store, slots, chosen, rotation)
    assert relative_rms(out.cpu(), exact) < bound
    for place, twin in zip(given, (store, slots, chosen), strict=True):
        for one, other in zip(place or (), twin or (), strict=True):
            written = ~other.isnan()
            assert torch.equal(one.cpu().isnan(), other.isnan())
            assert relative_rms(one.cpu()[written], other[written]) < bound


@pytest.mark.gpu
@pytest.mark.parametrize(("dtype", "bound"), TYPES)
def test_norm_gate_and_rotation_on_a_gpu(dtype: torch.dtype, bound: float) -> None:
    x, delta, weight = norm_case(5, 4096, dtype)
    for ours, exact in zip(
        add_rms_norm(x.cuda(), delta.cuda(), weight.cuda(), 1e-5), add_rms_norm(x, delta, weight, 1e-5), strict=True
    ):
        assert relative_rms(ours.cpu(), exact) < bound
    assert relative_rms(silu_mul(x.cuda(), delta.cuda()).cpu(), silu_mul(x, delta)) < bound
    query, key, _ = (part.unflatten(0, (-1, 5)).transpose(0, 1) for part in step_case(40, 10, 128, dtype))
    rotation = rotation_of(5, 128, 128, dtype, normed=False)
    there = rotation._replace(cos=rotation.cos.cuda(), sin=rotation.sin.cuda())
    for ours, exact in zip(rotate(query.cuda(), key.cuda(), there), rotate(query, key, rotation), strict=True):
        assert relative_rms(ours.cpu(), exact) < bound
