"""Memory of the host: what a layer gives back is kept for the next one, so that it need not be faulted in again.

glibc maps every large block anew and unmaps it when it is freed. The activations of one chunk of 32k rows are 128 MiB
a piece, and first touching a page costs more than writing it: a third of what prefill spent outside of attention.
"""

from __future__ import annotations

import ctypes
import platform

# Parameters of mallopt(3).
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
# Blocks from this size on are still mapped by themselves: stores of long dialogues, rather than activations.
MAPPED_BYTES = 2**30


def keep_freed() -> bool:
    """Keep freed blocks in the process; whether the allocator does. Nothing changes where it is not glibc's."""
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    # Minus one is never: what is kept is given back by `give_back`.
    return bool(library.mallopt(M_MMAP_THRESHOLD, MAPPED_BYTES)) and bool(library.mallopt(M_TRIM_THRESHOLD, -1))


def give_back() -> None:
    """Return what is free to the system, where the allocator is glibc's."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(0)
