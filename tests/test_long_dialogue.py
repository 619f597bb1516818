"""Two hundred turns: nothing grows but the store."""

from __future__ import annotations

import gc

import pytest
import tiny
import torch
from test_engine import run, some_ids

from loopserve_cli.engine.engine import Engine
from loopserve_cli.profile import load_profile


def live_bytes(engine: Engine) -> tuple[int, int]:
    """Tensors alive in this process that are not the store's: how many, and their bytes."""
    gc.collect()
    store = {part.untyped_storage().data_ptr() for layer in engine._store.layers for part in layer.tensors}
    found = {}
    for thing in gc.get_objects():
        # What other tests left may be stand-ins without memory.
        if type(thing) in (torch.Tensor, torch.nn.Parameter) and thing.device.type == "cpu":
            storage = thing.untyped_storage()
            if storage.data_ptr() not in store:
                found[storage.data_ptr()] = storage.nbytes()
    return len(found), sum(found.values())


@pytest.mark.parametrize("tier", ["device", "host", "evict"])
@pytest.mark.parametrize("profile", ["loopserve", "snapkv"])
def test_nothing_grows_but_the_store_over_200_turns(profile: str, tier: str) -> None:
    settings = ["keep.budget=24", f"retain.tier={tier}"]
    settings += ["keep.interval=2", "keep.recent=4"] if profile == "loopserve" else []
    engine = Engine(tiny.loaded("llama"), load_profile(profile).with_overrides(settings))
    seen = []
    for turn in range(1, 201):
        run(engine, some_ids(8, seed=turn), max_new_tokens=6)
        if turn in (40, 120, 200):
            seen.append(live_bytes(engine))
    assert seen[0] == seen[1] == seen[2]
    assert len(engine.tokens) > 200 * 8
