"""One choice of keys for all layers of a model of 8B, on tensors without memory: what a GPU would be asked to do."""

from __future__ import annotations

from typing import Any

import torch
from launches import Counted, counted

from loopserve_cli.engine.decoding import DecodeTurn
from loopserve_cli.engine.store import Store
from loopserve_cli.policies.keep import keep_policy
from loopserve_cli.profile import KEEP_DEFAULTS, PolicyOptions

HEADS, GROUPS, SIZE, LAYERS = 32, 8, 128, 32


def counted_choice(policy: str, keys: int = 32768, layers: int = LAYERS, **settings: Any) -> Counted:
    """What a choice of `policy` among so many keys asks for, once its working sets have their buffers."""
    given = {**KEEP_DEFAULTS[policy], **settings}
    if policy == "progressive":
        given["first"] = "prompt"
    store = Store(layers)
    turn = DecodeTurn(keep_policy(PolicyOptions(policy, given)), store)
    made = {"dtype": torch.bfloat16, "device": "meta"}
    key = torch.empty(1, GROUPS, keys, SIZE, **made)
    for number, layer in enumerate(store.layers):
        layer.update(key, key)
        turn.observe(number, torch.empty(1, HEADS, 64, SIZE, **made), key, 0.1)
    with counted():
        turn._selection.choose(turn._layers)
    with counted() as found:
        turn._selection.choose(turn._layers)
    return found
