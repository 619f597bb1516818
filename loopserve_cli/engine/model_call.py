"""How a transformers model is called on its way forward, whichever version of transformers it comes from."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from loopserve_cli.engine.fused import FusedModel

# transformers 5.24 gave the argument a new name, and 5.40 takes the old one away. Code that comes with a model may
# have the old name for ever.
NEW_NAME, OLD_NAME = "cache", "past_key_values"


def cache_argument(model: Any, cache: Any) -> dict[str, Any]:
    """The cache under the name by which this model's `forward` takes it."""
    return {_cache_name(type(model).forward): cache}


@lru_cache
def _cache_name(forward: Callable[..., Any]) -> str:
    return NEW_NAME if NEW_NAME in inspect.signature(forward).parameters else OLD_NAME


def next_logits(model: Any, ids: Tensor, positions: Tensor, cache: Any, **told: Any) -> Tensor:
    """Run the model over ids [1, n] at their positions [1, n]; the logits of the last, [1, V].

    `told` goes on to the attention function. The cache has taken in keys and values of all n. The model is one of
    transformers, or a `FusedModel` of it.
    """
    if isinstance(model, FusedModel):
        return model.next_logits(ids, positions, cache, **told)
    out = model(
        input_ids=ids,
        position_ids=positions,
        use_cache=True,
        logits_to_keep=1,
        **cache_argument(model, cache),
        **told,
    )
    logits: Tensor = out.logits[:, -1]
    return logits


def positions(first: int, count: int, device: torch.device) -> Tensor:
    """Position ids [1, count] of tokens that begin at `first`."""
    return torch.arange(first, first + count, device=device)[None]
