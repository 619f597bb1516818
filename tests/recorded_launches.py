"""Triton launches as they are asked for on tensors of the meta device, compiled for any architecture without a GPU.

What is compiled is the recorded launch itself: its constants, warps, stages and how its arguments are specialised. So
nothing that a test compiles can differ from what runs.
"""

from __future__ import annotations

import re
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import pytest
import triton
import triton.runtime.jit
from sass import BINARIES
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource, make_backend
from triton.runtime.jit import JITFunction, create_function_from_signature

from loopserve_kernels import device

OPTIONS = ("num_warps", "num_stages", "enable_fp_fusion")


@dataclass(frozen=True)
class Multiprocessor:
    """What one has: shared memory, and how much of it one block may take (both KiB), warps, blocks."""

    shared: int
    shared_of_block: int
    warps: int
    blocks: int
    registers: int = 65536


PROCESSORS = {
    80: Multiprocessor(164, 163, 64, 32),
    90: Multiprocessor(228, 227, 64, 32),
    120: Multiprocessor(100, 99, 48, 24),
}


@dataclass(frozen=True)
class Compiled:
    """One kernel for one architecture: registers per thread, bytes of shared memory and of spills, and its code."""

    name: str
    capability: int
    warps: int
    stages: int
    registers: int
    shared: int
    spilled: int
    ptx: str
    cubin: bytes

    @property
    def blocks(self) -> int:
        """How many programs one multiprocessor holds at once."""
        has = PROCESSORS[self.capability]
        of_warp = -(-self.registers * 32 // 256) * 256  # registers are given out by 256, shared memory with 1 KiB more
        by_memory = has.shared * 1024 // (self.shared + 1024)
        return min(has.blocks, has.warps // self.warps, has.registers // (of_warp * self.warps), by_memory)

    @property
    def fits(self) -> bool:
        """Whether a block may have as much shared memory as this one asks for."""
        return self.shared <= PROCESSORS[self.capability].shared_of_block * 1024

    @property
    def row(self) -> str:
        """A line of the table: kernel, target, registers, shared memory, spills, blocks per multiprocessor."""
        shape = f"{self.warps} warps, {self.stages} stages"
        return (f"{self.name:<28} sm_{self.capability:<4} {shape:<18} {self.registers:>4} registers "
                f"{self.shared / 1024:>4.0f} KiB {self.spilled:>5} spilled {self.blocks:>3} per SM")  # fmt: skip


@dataclass(frozen=True)
class Launch:
    """A kernel and what it was launched with, by name; options such as num_warps are among the arguments."""

    kernel: JITFunction
    arguments: dict[str, Any]

    @property
    def name(self) -> str:
        return self.kernel.__name__

    @property
    def constants(self) -> dict[str, Any]:
        """What the launcher fixes at compile time, the options included."""
        fixed = {param.name for param in self.kernel.params if param.is_constexpr} | set(OPTIONS)
        return {name: value for name, value in self.arguments.items() if name in fixed}

    @property
    def looks(self) -> dict[str, str]:
        """How Triton sees every other argument: its type, and whether it is 1 or a multiple of 16."""
        _, signature, constants, attributes = self.packed(90)
        return {
            name: f"{kind} {constants.get((place,), '')} {attributes.get((place,), '')}"
            for place, (name, kind) in enumerate(signature.items())
            if name not in self.constants
        }

    def packed(self, capability: int) -> tuple[Any, dict[str, str], dict[Any, Any], dict[Any, Any]]:
        """Options, signature, constants and attributes, made as a launch makes them."""
        backend = make_backend(GPUTarget("cuda", capability, 32))
        binder = create_function_from_signature(self.kernel.signature, self.kernel.params, backend)
        bound, specialization, options = binder(**self.arguments)
        return self.kernel._pack_args(backend, self.arguments, bound, specialization, options)

    def compiled(self, capability: int) -> Compiled:
        """The launch compiled for one architecture."""
        options, signature, constants, attributes = self.packed(capability)
        source = ASTSource(self.kernel, signature, constants, attributes)
        binary = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options.__dict__)
        found = resources(binary.asm["cubin"])
        shape = (options.num_warps, options.num_stages)
        return Compiled(self.name, capability, *shape, found[0], binary.metadata.shared, found[1],
                        binary.asm["ptx"], binary.asm["cubin"])  # fmt: skip


def launches_of(call: Callable[[], object], capability: int = 90) -> list[Launch]:
    """What `call` launches where a multiprocessor is so large, nothing of which is run."""
    found: list[Launch] = []

    def run(kernel: JITFunction, *args: Any, grid: Any = None, warmup: bool = False, **kwargs: Any) -> None:
        del grid, warmup
        found.append(Launch(kernel, dict(zip(kernel.arg_names, args, strict=False)) | kwargs))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(triton.runtime.jit.JITFunction, "run", run)
        patch.setattr(device, "COUNTED_SHARED_MEMORY", PROCESSORS[capability].shared * 1024)
        call()
    return found


def resources(cubin: bytes) -> tuple[int, int]:
    """Registers per thread, and bytes of a thread's stack: a kernel without arrays has one for what it spills."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [str(BINARIES / "cuobjdump"), "-res-usage", str(file)]
        report = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    registers, stack, local = re.search(r"REG:(\d+) STACK:(\d+) .*LOCAL:(\d+)", report).groups()
    return int(registers), int(stack) + int(local)
