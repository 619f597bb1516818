"""Memory that ran out: how it shows, and what it leaves behind."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from loopserve_cli.engine.held import Held
from loopserve_cli.engine.store import empty_cache
from loopserve_cli.errors import LoopserveError


@contextmanager
def whole_or_nothing(held: Held, device: torch.device) -> Iterator[None]:
    """Undo a half-done forward pass: layers before the failure have stored what later ones have not."""
    try:
        yield
    except BaseException as error:
        held.undo_pass()
        if is_out_of_memory(error):
            empty_cache(device)
            raise LoopserveError(
                f"out of memory at {len(held.tokens)} stored tokens, which are kept; "
                "shorten the message, /undo, or use --quant nf4"
            ) from error
        raise


def is_out_of_memory(error: BaseException) -> bool:
    """Whether torch or Python ran out of memory; torch's CPU allocator says so only in its text."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)
