"""Where this is, what is installed, and what the machine can do at best: copies, products, launches."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from functools import partial
from importlib import metadata
from typing import Any

import torch

from loopserve_cli.bench.decode.bound import copy_bandwidth
from loopserve_cli.bench.device.attempt import Record, attempt
from loopserve_cli.bench.kernels.clock import captured_ms, median_ms
from loopserve_cli.environment import describe
from loopserve_kernels.device import device_name

PACKAGES = (
    *("torch", "triton", "transformers", "tokenizers", "accelerate", "safetensors", "gguf", "peft", "typer", "rich"),
    *("psutil", "numpy", "pytest", "pytest-xdist", "prompt_toolkit", "platformdirs", "bitsandbytes"),
)
PRODUCT = {"gpu": 8192, "cpu": 1024, "quick": 512}
DTYPES = {"cuda": ("bfloat16", "float16", "float32"), "cpu": ("float32", "bfloat16")}
MOVED = 2**28
# So many launches in a row: the last one's end is what is waited for.
LAUNCHES = 200


def run(device: torch.device, scale: str) -> Iterator[Record]:
    """The machine, then a record for each ceiling."""
    yield {"what": "machine", **machine(device)}
    yield attempt({"what": "copy"}, lambda: {"gb_per_s": copy_bandwidth(device) / 1e9})
    for dtype in DTYPES[device.type]:
        size = PRODUCT[scale]
        yield attempt({"what": "product", "dtype": dtype, "size": size}, partial(product, device, dtype, size))
    if device.type == "cuda":
        for way in ("to the device", "to the host"):
            yield attempt({"what": f"pinned {way}"}, partial(moved, device, way == "to the device"))
        yield attempt({"what": "launch"}, lambda: launch(device))


def machine(device: torch.device) -> Record:
    """Versions and sizes; None is unknown or absent."""
    return describe(device_name(device)) | {
        "packages": {name: installed(name) for name in PACKAGES},
        "compiler": shutil.which("gcc") or shutil.which("cc"),
        "gpu": gpu(device) if device.type == "cuda" else None,
    }


def gpu(device: torch.device) -> dict[str, Any]:
    """The GPU's properties as torch tells them."""
    found = torch.cuda.get_device_properties(device)
    return {
        "name": found.name,
        "capability": [found.major, found.minor],
        "processors": found.multi_processor_count,
        "memory_bytes": found.total_memory,
        "free_bytes": torch.cuda.mem_get_info(device)[0],
        "cudnn": torch.backends.cudnn.version(),
    }


def installed(name: str) -> str | None:
    """A package's version, None where it is not there."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def product(device: torch.device, dtype: str, size: int) -> Record:
    """A square matrix product."""
    matrix = torch.randn(size, size, device=device, dtype=getattr(torch, dtype))
    ms = median_ms(lambda: matrix @ matrix, device)
    return {"ms": ms, "tflops": 2 * size**3 / ms / 1e9}


def moved(device: torch.device, there: bool) -> Record:
    """A copy between pinned memory and the device."""
    host = torch.empty(MOVED, dtype=torch.uint8, pin_memory=True)
    own = torch.empty(MOVED, dtype=torch.uint8, device=device)
    source, target = (host, own) if there else (own, host)
    return {"gb_per_s": MOVED / median_ms(lambda: target.copy_(source, non_blocking=True), device) / 1e6}


def launch(device: torch.device) -> Record:
    """One small kernel among many: launched from Python, and replayed in a graph."""
    number = torch.zeros(1, device=device)

    def many() -> None:
        for _ in range(LAUNCHES):
            number.add_(1)

    eager, replay = median_ms(many, device), captured_ms(many, device)
    captured = replay["captured_ms"]
    return {
        "eager_us": eager * 1e3 / LAUNCHES,
        "captured_us": None if captured is None else captured * 1e3 / LAUNCHES,
        "refusal": replay["refusal"],
    }
