"""Pinned memory of the host, of the size that was asked for.

torch rounds pinned blocks up to powers of two and keeps them for later use, so that a cache of 9 GiB takes 16. Here
pages are taken from the system as they are and made known to CUDA (`cudaHostRegister`), until their last tensor goes.
"""

from __future__ import annotations

import ctypes
import math
import mmap
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

# cudaHostRegisterPortable and cudaHostRegisterMapped: for every device, and for kernels that read it where it lies.
FLAGS = 1 | 2


def pinned_empty(shape: Sequence[int], dtype: torch.dtype, device: torch.device) -> Tensor:
    """A tensor on the CPU that copies to and from `device` need not wait for, and that its kernels can read.

    Raises MemoryError when the system or CUDA has no pages to pin.
    """
    count = math.prod(shape)
    if not count:
        return torch.empty(tuple(shape), dtype=dtype)
    pages = RegisteredPages.of(count * dtype.itemsize, torch.cuda.cudart(), device)
    return torch.frombuffer(pages, dtype=dtype, count=count).view(tuple(shape))


class RegisteredPages(mmap.mmap):
    """Pages that CUDA knows; a tensor over them keeps them alive, and they are given back after the last."""

    runtime: Any = None
    address = 0
    device: torch.device

    @classmethod
    def of(cls, size: int, runtime: Any, device: torch.device) -> RegisteredPages:
        """So many bytes, known to CUDA's `runtime`; raises MemoryError where they cannot be had."""
        private = {"flags": mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS} if hasattr(mmap, "MAP_PRIVATE") else {}
        try:
            pages = cls(-1, size, **private)
        except OSError as error:
            raise MemoryError(f"out of memory: {size:,} bytes of the host's") from error
        if hasattr(mmap, "MADV_DONTFORK"):
            pages.madvise(mmap.MADV_DONTFORK)  # a page that a child shares would be copied away from under the device
        address = ctypes.addressof(ctypes.c_char.from_buffer(pages))
        pages.device = device
        with torch.cuda.device(device):
            error_code = int(runtime.cudaHostRegister(address, size, FLAGS))
        if error_code:
            raise MemoryError(f"out of memory: CUDA pins no {size:,} bytes of the host's (error {error_code})")
        pages.runtime, pages.address = runtime, address
        return pages

    def __del__(self) -> None:
        """Let CUDA forget the pages, once nothing that was asked of it still reads them."""
        if self.runtime is not None:
            torch.cuda.synchronize(self.device)
            self.runtime.cudaHostUnregister(self.address)
