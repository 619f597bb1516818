"""What a tensor's device means here: a CPU runs the torch paths, anything else the Triton kernels.

Tensors of the meta device count as a GPU's: they have shapes and no memory, so what a GPU would be asked to do can be
counted on a machine without one.
"""

from __future__ import annotations

import torch
from torch import Tensor

# An H100's multiprocessors, for the meta device.
COUNTED_PROCESSORS = 132


def on_gpu(tensor: Tensor) -> bool:
    """Whether the Triton kernels serve this tensor."""
    return tensor.device.type != "cpu"


def processors(device: torch.device) -> int:
    """Multiprocessors of a device."""
    if device.type == "meta":
        return COUNTED_PROCESSORS
    count: int = torch.cuda.get_device_properties(device).multi_processor_count
    return count
