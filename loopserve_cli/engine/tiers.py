"""Where the full history stays: one kind of layer per tier, and the way from one to another."""

from __future__ import annotations

import torch

from loopserve_cli.engine.handover import Handover
from loopserve_cli.engine.host_tier import host_layers
from loopserve_cli.engine.rope import Rope
from loopserve_cli.engine.store import Store


def empty_store(tier: str, layers: int, handover: Handover | None = None, rope: Rope | None = None) -> Store:
    """A store of so many layers; "evict" holds what it holds on the device, like "device"."""
    assert tier in ("device", "host", "evict"), tier
    return Store(host_layers(layers) if tier == "host" else layers, handover, rope)


@torch.inference_mode()
def carried(old: Store, new: Store) -> Store:
    """The new store with all that the old one held; that is emptied layer by layer, so that only one lies twice."""
    for source, target in zip(old.layers, new.layers, strict=True):
        if source.length:
            target.wanted = source.capacity
            target.update(*source.everything(source.length))
        source.reset()
    return new
