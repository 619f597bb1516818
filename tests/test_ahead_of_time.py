"""The attention kernel compiles without a GPU for every architecture; test_compiled_launches.py has the others."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

pytest.importorskip("triton", reason="Triton has no build for this platform")

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.backends.nvidia.compiler import get_ptxas
from triton.compiler import ASTSource

from loopserve_kernels import vertical_slash_triton
from loopserve_kernels.vertical_slash import block_shape

# The number of warps under which no register spills at head size 128; autotuning may choose otherwise by time.
WARPS = {80: 8, 90: 4, 120: 8}
SHARED_KIB = {80: 163, 90: 227, 120: 99}
ELEMENT = {torch.float16: "fp16", torch.bfloat16: "bf16", torch.float32: "fp32"}
POINTERS = dict(
    p_position="i64", p_lse="fp32", p_vertical="fp32", p_slash="i64", p_vertical_rank="i32", p_slash_rank="i32",
    p_histogram="i64", p_bucket="i32", p_tile_start="i32", p_tile_length="i32", p_tile_count="i32", p_covered="u8",
    p_vertical_count="i32", p_dense="i1", p_part="fp32", p_count="i32", p_index="i32", p_length="i32", p_mass="fp32",
    p_out_count="i32",
)  # fmt: skip


def compiled(kernel, capability: int, dtype: torch.dtype, constants: dict, types: dict, options: dict):
    """The kernel for one architecture, from argument names alone: p_ is a pointer, scale_ and unit floats."""
    signature = {}
    for name in kernel.arg_names:
        if name in constants:
            signature[name] = "constexpr"
        elif name.startswith("p_"):
            signature[name] = "*" + types.get(name, POINTERS.get(name, ELEMENT[dtype]))
        else:
            signature[name] = "fp32" if name.startswith("scale") or name == "unit" else "i32"
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(kernel.arg_names)
               if name.startswith(("p_", "stride_"))}  # fmt: skip
    source = ASTSource(kernel, signature, {(kernel.arg_names.index(n),): v for n, v in constants.items()}, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options=options)


def resources(binary, tmp_path: Path) -> tuple[int, int]:
    """Registers per thread and bytes spilled, as ptxas reports them for the kernel's PTX."""
    file = tmp_path / "kernel.ptx"
    file.write_text(binary.asm["ptx"])
    target = re.search(r"\.target (sm_\w+)", binary.asm["ptx"]).group(1)
    ptxas = get_ptxas(int(re.sub(r"\D", "", target))).path
    command = [ptxas, "-v", f"--gpu-name={target}", str(file), "-o", str(tmp_path / "kernel.cubin")]
    report = subprocess.run(command, capture_output=True, text=True, check=True).stderr
    spilled = sum(int(count) for count in re.findall(r"(\d+) bytes spill", report))
    return int(re.search(r"Used (\d+) registers", report).group(1)), spilled


def show(name: str, capability: int, dtype: torch.dtype, size: int, binary, registers: int, spilled: int) -> None:
    sys.stderr.write(f"{name} sm_{capability} {ELEMENT[dtype]} D={size}: {registers} registers, "
                     f"{binary.metadata.shared / 1024:.0f} KiB shared, {spilled} bytes spilled\n")  # fmt: skip


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("dtype", [pytest.param(torch.float16, marks=pytest.mark.slow), torch.bfloat16, torch.float32])
def test_vertical_slash(capability: int, size: int, dtype: torch.dtype, tmp_path: Path) -> None:
    kernel = vertical_slash_triton.vertical_slash_kernel.fn
    block, tile = block_shape(size, dtype, torch.device("cuda"))
    for split in (False, True):
        constants = dict(DTYPE=str(dtype), D=size, BLOCK_D=size, M=block, TILE=tile, SPLIT=split,
                         PRECISION="ieee" if dtype == torch.float32 else "tf32")  # fmt: skip
        types = {"p_vertical": "i32", "p_out": "fp32" if split else ELEMENT[dtype]}
        warps = 4 if dtype == torch.float32 else WARPS[capability]
        binary = compiled(kernel, capability, dtype, constants, types, dict(num_warps=warps, num_stages=2))
        registers, spilled = resources(binary, tmp_path)
        show("vertical_slash" + "_split" * split, capability, dtype, size, binary, registers, spilled)
        assert spilled == 0
        assert binary.metadata.shared <= SHARED_KIB[capability] * 1024
        if capability == 90 and dtype != torch.float32:
            assert "wgmma" in binary.asm["ptx"]


@pytest.mark.slow
@pytest.mark.parametrize("size", [80, 96, 256])
@pytest.mark.parametrize("capability", [80, 90, 120])
def test_other_head_sizes_fit(capability: int, size: int, tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        block, tile = block_shape(size, dtype, torch.device("cuda"))
        constants = dict(DTYPE=str(dtype), D=size, BLOCK_D=triton.next_power_of_2(size), M=block, TILE=tile,
                         SPLIT=False, PRECISION="ieee" if dtype == torch.float32 else "tf32")  # fmt: skip
        kernel = vertical_slash_triton.vertical_slash_kernel.fn
        binary = compiled(kernel, capability, dtype, constants, {"p_vertical": "i32"}, dict(num_warps=4, num_stages=1))
        show("vertical_slash", capability, dtype, size, binary, *resources(binary, tmp_path))
        assert binary.metadata.shared <= SHARED_KIB[capability] * 1024
