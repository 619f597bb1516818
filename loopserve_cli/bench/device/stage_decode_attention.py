"""Decode attention in GB/s: one row over so many keys, which is nothing but reading them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from functools import partial

import torch

from loopserve_cli.bench.decode.bound import copy_bandwidth
from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.kernels.clock import captured_ms, median_ms
from loopserve_cli.bench.kernels.options import LAYERS, Layer
from loopserve_kernels.decode import decode_attention

KEYS = {"gpu": (1024, 8192, 32768, 131072), "cpu": (1024, 8192, 32768), "quick": (1024, 8192)}
SIZES = {"gpu": (64, 128), "cpu": (64, 128), "quick": (64,)}


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """A record per head size and number of keys."""
    copy = copy_bandwidth(device)
    for size in SIZES[scale]:
        layer = replace(LAYERS[device.type], size=size)
        for keys in KEYS[scale]:
            facts = {"keys": keys, "heads": layer.heads, "size": size, "dtype": layer.dtype}
            yield attempt(facts, partial(rate, layer, keys, device, copy))


def rate(layer: Layer, keys: int, device: torch.device, copy: float) -> Record:
    """Time and rate, called and captured; `of_copy` is the better one's share of what a copy reaches."""
    dtype: torch.dtype = getattr(torch, layer.dtype)
    query = torch.randn(layer.heads, layer.size, device=device, dtype=dtype)
    key, value = torch.randn(2, layer.groups, keys, layer.size, device=device, dtype=dtype)
    lengths = torch.full((layer.groups,), keys, dtype=torch.int32, device=device)
    scaling = layer.size**-0.5

    def attend() -> torch.Tensor:
        return decode_attention(query, key, value, lengths, scaling)

    eager, captured = median_ms(attend, device), captured_ms(attend, device)
    best = min(ms for ms in (eager, captured["captured_ms"]) if ms is not None)
    per_s = (key.nbytes + value.nbytes) / best * 1e3
    return {"eager_ms": eager, **captured, "gb_per_s": per_s / 1e9, "of_copy": per_s / copy}
