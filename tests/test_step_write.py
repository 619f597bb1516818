"""The twins of a decode step's kernels: what is written, and that they compute what the models' own code does."""

from __future__ import annotations

import pytest
import torch
from step_oracle import norm_case, places, rotation_of, step_case
from transformers.models.llama.modeling_llama import LlamaRMSNorm, apply_rotary_pos_emb
from transformers.models.phi3 import modeling_phi3

from loopserve_kernels.norm import add_rms_norm
from loopserve_kernels.rotate import rotate
from loopserve_kernels.step_write import step_write


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
