"""The GPU with its driver and Triton, the memory, and the disk that models are kept on."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from loopserve_cli.doctor.check import GIB, Check, gib

BF16_CAPABILITY = (8, 0)
TRITON_CAPABILITY = (7, 0)
SMALL_DISK = 20 * GIB


@dataclass(frozen=True, slots=True)
class Gpu:
    """A CUDA device as torch sees it."""

    index: int
    name: str
    capability: tuple[int, int]
    free_bytes: int
    total_bytes: int


def find_gpus() -> list[Gpu]:
    """The CUDA devices, or none."""
    import torch

    if not torch.cuda.is_available():
        return []
    return [
        Gpu(i, torch.cuda.get_device_name(i), torch.cuda.get_device_capability(i), *torch.cuda.mem_get_info(i))
        for i in range(torch.cuda.device_count())
    ]


def driver_version() -> str | None:
    """The NVIDIA driver's version as nvidia-smi tells it; None without a driver."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    query = [program, "--query-gpu=driver_version", "--format=csv,noheader"]
    try:
        answer = subprocess.run(query, capture_output=True, text=True, timeout=20, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    lines = answer.stdout.split()
    return lines[0] if answer.returncode == 0 and lines else None


def gpu_checks(gpus: list[Gpu], driver: str | None, cuda: str | None) -> Iterator[Check]:
    """What there is to run on. `cuda` is the CUDA version torch was built with, None for a CPU build."""
    for gpu in gpus:
        major, minor = gpu.capability
        found = f"{gpu.name}, capability {major}.{minor}, {gib(gpu.free_bytes)} of {gib(gpu.total_bytes)} free"
        advice = None if gpu.capability >= BF16_CAPABILITY else "it has no fast bfloat16; use --dtype float16"
        yield Check(f"GPU {gpu.index}", "note" if advice else "ok", found, advice)
    if gpus:
        yield Check("driver", "ok", f"{driver or 'n/a'}, torch built for CUDA {cuda or 'n/a'}")
    elif driver is None:
        yield Check("GPU", "note", "no NVIDIA GPU or driver found", "the CPU is used: fine for the demo model")
    elif cuda is None:
        yield Check(
            "GPU",
            "note",
            f"driver {driver} is here, but this torch was built without CUDA",
            "install a CUDA build of torch (its website has the command) to use the GPU",
        )
    else:
        yield Check(
            "GPU",
            "note",
            f"driver {driver} is here, but torch for CUDA {cuda} finds no device",
            f"update the driver for CUDA {cuda}, and see that CUDA_VISIBLE_DEVICES does not hide the GPU",
        )


def triton_check(gpus: list[Gpu]) -> Check:
    """Whether the Triton kernels can run; without a GPU they are not needed."""
    try:
        import triton
    except (ImportError, OSError) as error:
        if not gpus:
            return Check("Triton", "ok", "not installed; no GPU: Triton kernels are not used, the CPU path is")
        return Check("Triton", "note", f"does not load: {error}", "pip install triton (Linux only)")
    if not gpus:
        return Check("Triton", "ok", f"{triton.__version__}; no GPU: Triton kernels are not used, the CPU path is")
    if min(gpu.capability for gpu in gpus) < TRITON_CAPABILITY:
        return Check("Triton", "note", triton.__version__, "it needs a GPU of capability 7.0 or newer")
    if not os.environ.get("CC") and not any(map(shutil.which, ("gcc", "clang", "cc"))):
        return Check("Triton", "note", triton.__version__, "it needs a C compiler: install gcc, or set CC")
    return Check("Triton", "ok", triton.__version__)


def memory_check() -> Check:
    """Main memory."""
    memory = psutil.virtual_memory()
    return Check("memory", "ok", f"{gib(memory.available)} of {gib(memory.total)} available, {os.cpu_count()} CPUs")


def disk_check(cache: Path) -> Check:
    """Room where downloaded models are kept; the folder itself may not exist yet."""
    standing = next(folder for folder in (cache, *cache.parents) if folder.exists())
    free = shutil.disk_usage(standing).free
    if free < SMALL_DISK:
        return Check(
            "model cache", "note", f"{cache}: only {gib(free)} free", "set HF_HOME to a folder on a larger disk"
        )
    return Check("model cache", "ok", f"{cache}: {gib(free)} free")
