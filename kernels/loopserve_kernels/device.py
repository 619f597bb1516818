"""What a tensor's device means here: a CPU runs the torch paths, anything else the Triton kernels.

Tensors of the meta device count as a GPU's: they have shapes and no memory, so what a GPU would be asked to do can be
counted on a machine without one.
"""

from __future__ import annotations

import torch
from torch import Tensor

# An H100's, where no GPU is: on the meta device, and on a CPU under Triton's interpreter.
COUNTED_PROCESSORS = 132
COUNTED_SHARED_MEMORY = 228 * 1024


def on_gpu(tensor: Tensor) -> bool:
    """Whether the Triton kernels serve this tensor."""
    return tensor.device.type != "cpu"


def device_name(device: torch.device) -> str:
    """A GPU's name as its driver tells it; else the kind of device, for example cpu."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type


def processors(device: torch.device) -> int:
    """Multiprocessors of a device."""
    if device.type != "cuda":
        return COUNTED_PROCESSORS
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count


def shared_memory(device: torch.device) -> int:
    """Bytes of shared memory of one multiprocessor."""
    if device.type != "cuda":
        return COUNTED_SHARED_MEMORY
    size: int = torch.cuda.get_device_properties(device).shared_memory_per_multiprocessor
    return size
