"""Python's garbage collector, kept out of what is measured."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def settled() -> Iterator[None]:
    """Inside, the objects there are now are not gone over again: with torch loaded that takes half a second.

    What is made inside is collected as ever. Afterwards all is as before, so that the process ends cleanly.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
