"""Memory that ran out: how it shows, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from loopserve_cli.engine.host_memory import give_back
from loopserve_cli.engine.store import empty_cache
from loopserve_cli.errors import LoopserveError

if TYPE_CHECKING:
    from loopserve_cli.engine.dialogue_state import DialogueState


@contextmanager
def whole_or_nothing(state: DialogueState, device: torch.device) -> Iterator[None]:
    """Undo a half-done forward pass: layers before the failure have stored what later ones have not."""
    try:
        yield
    except BaseException as error:
        state.undo_pass()
        if is_out_of_memory(error):
            empty_cache(device)
            give_back()
            raise LoopserveError(
                f"out of memory at {len(state.tokens)} stored tokens, which are kept; "
                "shorten the message, /undo, or use --quant nf4"
            ) from error
        raise


@contextmanager
def memory_told(doing: str) -> Iterator[None]:
    """Turn memory that runs out into a line that says at what."""
    try:
        yield
    except BaseException as error:
        if is_out_of_memory(error):
            raise LoopserveError(f"out of memory while {doing}; use --quant nf4, or a shorter dialogue") from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory; some of torch's allocators say so only in their text."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    # torch's CPU allocator, and that of pinned memory.
    told = ("can't allocate memory", "out of memory")
    return isinstance(error, RuntimeError) and any(words in str(error) for words in told)
