"""Numbers that are none: where a model computes NaN or infinity, and what is kept then."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from loopserve_cli.errors import NumbersError

if TYPE_CHECKING:
    from loopserve_cli.engine.dialogue_state import DialogueState

REMEDIES = {
    "float16": "float16 overflows above 65,504: use --dtype bfloat16 or --dtype float32",
    "bfloat16": "use --dtype float32, or another model if that fails too",
}


def healthy(logits: Tensor) -> Tensor:
    """Whether logits [..., V] can be drawn from, bool [..., 1], without waiting for the device.

    The largest must be finite: NaN and infinity win every maximum, and minus infinity only where there is nothing
    else. A model may mask single ids with minus infinity.
    """
    return logits.amax(-1, keepdim=True).isfinite()


def numbers_error(name: str, dtype: str, quant: str | None) -> NumbersError:
    """The one line for a turn whose logits are no numbers."""
    remedy = REMEDIES.get(dtype, "its weights are damaged or not made for this architecture: use another model")
    if quant is not None:
        remedy = f"leave --quant {quant} out, or {remedy}"
    return NumbersError(f"{name} computed NaN or infinity in {dtype}, so there is no answer; {remedy}")


@contextmanager
def undone_unless_numbers(state: DialogueState, before: int) -> Iterator[None]:
    """On a NumbersError hold no more than the first `before` tokens, and nothing from the first bad row on."""
    try:
        yield
    except NumbersError:
        state.rewind(min(before, len(state.tokens)))
        sound = _sound(state)
        if sound is not None and sound < len(state.tokens):
            state.rewind(sound)
        raise


@torch.inference_mode()
def _sound(state: DialogueState) -> int | None:
    """How many leading tokens have finite keys and values in all layers; None if that is all of them.

    A tier that evicts holds rows of other tokens, so there one bad row costs all of them.
    """
    first = [_first_bad(part) for layer in state.store.layers if layer.length for part in layer.rows()]
    bad = [row for row in first if row is not None]
    if not bad:
        return None
    return 0 if state.freezes else min(bad)


def _first_bad(rows: Tensor) -> int | None:
    """The first row of keys or values [1, G, N, D] that is not finite."""
    broken = (~rows.isfinite()).any(-1).flatten(0, 1).any(0).nonzero()
    return int(broken[0]) if len(broken) else None
