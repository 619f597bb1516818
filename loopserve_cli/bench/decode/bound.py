"""How fast a step could be at most: it must read the weights and the keys, and memory gives so many bytes a second."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from loopserve_cli.bench.kernels.clock import Clock
from loopserve_cli.engine.store import empty_cache

if TYPE_CHECKING:
    from loopserve_cli.engine.loader import LoadedModel

# Copied bytes: more than any cache holds.
COPIED = {"cpu": 2**28, "cuda": 2**30}
COPIES = 7


@dataclass(frozen=True, slots=True)
class Bound:
    """What a step reads, and how fast: `weight_bytes` each time, `kv_bytes_per_token` for every key that it looks at.

    The bandwidth is what a copy reaches on the device, bytes read and written.
    """

    weight_bytes: int
    kv_bytes_per_token: int
    bandwidth_bytes_per_s: float

    def step_ms(self, keys: float) -> float:
        """Milliseconds of a step that reads so many keys in every layer."""
        return (self.weight_bytes + keys * self.kv_bytes_per_token) / self.bandwidth_bytes_per_s * 1e3


def bound_of(loaded: LoadedModel) -> Bound:
    """The model's bytes, and its device's bandwidth, measured now."""
    return Bound(weights_read(loaded), kv_bytes_per_token(loaded), copy_bandwidth(loaded.device))


def weights_read(loaded: LoadedModel) -> int:
    """Bytes of weights that a step reads: of an embedding that is not the output layer too it is one row."""
    embedding = loaded.model.get_input_embeddings().weight
    shared = loaded.model.get_output_embeddings().weight is embedding
    return sum(p.nbytes for p in loaded.model.parameters()) - (0 if shared else embedding.nbytes)


def kv_bytes_per_token(loaded: LoadedModel) -> int:
    """Bytes of keys and values that a token adds to the full cache, over all layers."""
    config = loaded.model.config.get_text_config()
    size = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return 2 * loaded.layers * int(config.num_key_value_heads) * size * loaded.model.dtype.itemsize


def copy_bandwidth(device: torch.device) -> float:
    """Bytes a second, read and written, of the fastest of a few large copies on the device."""
    best = fastest_copy_ms(device)
    empty_cache(device)
    return 2 * COPIED[device.type] / best * 1e3


def fastest_copy_ms(device: torch.device) -> float:
    """Milliseconds; the buffers are written first, since memory that never was costs nothing to read."""
    source = torch.ones(COPIED[device.type], dtype=torch.uint8, device=device)
    target = torch.zeros_like(source)
    clock = Clock(device)
    return min(clock.ms(lambda: target.copy_(source)) for _ in range(COPIES))
