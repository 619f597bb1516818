"""Every kernel compiles without a GPU for the architectures it must run on; registers and shared memory are shown."""

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

from loopserve_kernels import (
    coverage_triton,
    decode_triton,
    gather_triton,
    key_mass_triton,
    lines_triton,
    splits_triton,
    vertical_slash_triton,
)
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


SAMPLED = [
    lines_triton.row_lse_kernel,
    lines_triton.line_mass_kernel,
    coverage_triton.coverage_histogram_kernel,
    coverage_triton.bucket_mass_kernel,
]


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("kernel", SAMPLED, ids=lambda kernel: kernel.__name__)
def test_sampled_kernels(kernel, capability: int, size: int, tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        block, tile, warps = lines_triton.sample_shape(dtype)
        constants = dict(D=size, BLOCK_D=size, M=block, TILE=tile,
                         PRECISION="ieee" if dtype == torch.float32 else "tf32")  # fmt: skip
        options = dict(num_warps=warps, num_stages=2)
        binary = compiled(kernel, capability, dtype, constants, {"p_out": "fp32"}, options)
        registers, spilled = resources(binary, tmp_path)
        show(kernel.__name__, capability, dtype, size, binary, registers, spilled)
        assert spilled == 0
        assert binary.metadata.shared <= SHARED_KIB[capability] * 1024


@pytest.mark.parametrize("capability", [80, 90, 120])
def test_merge_splits(capability: int, tmp_path: Path) -> None:
    constants = dict(D=128, BLOCK_D=128, BLOCK_S=8)
    kernel = splits_triton.merge_splits_kernel
    binary = compiled(kernel, capability, torch.bfloat16, constants, {}, {})
    registers, spilled = resources(binary, tmp_path)
    show("merge_splits", capability, torch.bfloat16, 128, binary, registers, spilled)
    assert spilled == 0


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32])
@pytest.mark.parametrize("members", [4, 7])
def test_decode_attention(capability: int, size: int, dtype: torch.dtype, members: int, tmp_path: Path) -> None:
    block, tile, warps, stages = decode_triton.decode_shape(members, size, dtype)
    for split in (False, True):
        constants = dict(D=size, BLOCK_D=size, M=block, TILE=tile, SPLIT=split,
                         PRECISION="ieee" if dtype == torch.float32 else "tf32")  # fmt: skip
        types = {"p_out": "fp32" if split else ELEMENT[dtype]}
        options = dict(num_warps=warps, num_stages=stages)
        binary = compiled(decode_triton.decode_attention_kernel, capability, dtype, constants, types, options)
        registers, spilled = resources(binary, tmp_path)
        show("decode_attention" + "_split" * split, capability, dtype, size, binary, registers, spilled)
        assert spilled == 0
        programs = 1 if capability == 120 else 2
        assert programs * binary.metadata.shared <= SHARED_KIB[capability] * 1024, "as many as splits are made for"
        if dtype != torch.float32:
            assert "cp.async" in binary.asm["ptx"], "keys are loaded ahead of their use"


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("size", [64, 128, 256])
def test_merge_of_as_many_splits_as_decode_makes(capability: int, size: int, tmp_path: Path) -> None:
    constants = dict(D=size, BLOCK_D=size, BLOCK_S=decode_triton.MOST_SPLITS)
    binary = compiled(splits_triton.merge_splits_kernel, capability, torch.bfloat16, constants, {}, {})
    registers, spilled = resources(binary, tmp_path)
    show("merge_splits_decode", capability, torch.bfloat16, size, binary, registers, spilled)
    assert spilled == 0


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("kernel", ["ring_lse_kernel", "key_mass_kernel"])
def test_key_mass(kernel: str, capability: int, size: int, tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        for members, slots in ((4, 16), (7, 16), (4, 20)):
            block, ring, tile, warps = key_mass_triton.ring_shape(members, slots, dtype)
            constants = dict(D=size, BLOCK_D=size, M=block, R=ring, TILE=tile, COUNTED=True,
                             PRECISION="ieee" if dtype == torch.float32 else "tf32")  # fmt: skip
            options = dict(num_warps=warps, num_stages=key_mass_triton.LSE_STAGES)
            if kernel == "key_mass_kernel":
                constants |= dict(BLOCK_R=triton.next_power_of_2(slots), MEAN=False)
                options["num_stages"] = key_mass_triton.MASS_STAGES
            binary = compiled(getattr(key_mass_triton, kernel), capability, dtype, constants, {}, options)
            registers, spilled = resources(binary, tmp_path)
            show(kernel, capability, dtype, size, binary, registers, spilled)
            assert spilled == 0
            assert binary.metadata.shared <= SHARED_KIB[capability] * 1024


@pytest.mark.parametrize("capability", [80, 90, 120])
def test_merge_of_the_lse_of_key_mass(capability: int, tmp_path: Path) -> None:
    constants = dict(BLOCK=key_mass_triton.MERGED_ROWS, BLOCK_S=key_mass_triton.MOST_SPLITS)
    binary = compiled(key_mass_triton.merge_lse_kernel, capability, torch.float32, constants, {}, {})
    registers, spilled = resources(binary, tmp_path)
    show("merge_lse", capability, torch.float32, 0, binary, registers, spilled)
    assert spilled == 0


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("size", [64, 128])
def test_gather_keys(capability: int, size: int, tmp_path: Path) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        constants = dict(D=size, BLOCK_D=size, ROWS=gather_triton.ROWS)
        binary = compiled(gather_triton.gather_keys_kernel, capability, dtype, constants, {}, {})
        registers, spilled = resources(binary, tmp_path)
        show("gather_keys", capability, dtype, size, binary, registers, spilled)
        assert spilled == 0
        assert "ld.global.v4" in binary.asm["ptx"], "rows are read 16 bytes at a time"


@pytest.mark.slow
@pytest.mark.parametrize("size", [80, 96, 256])
@pytest.mark.parametrize("capability", [80, 90, 120])
def test_decode_kernels_fit_at_other_head_sizes(capability: int, size: int, tmp_path: Path) -> None:
    width = triton.next_power_of_2(size)
    for dtype in (torch.bfloat16, torch.float32):
        precision = dict(D=size, BLOCK_D=width, PRECISION="ieee" if dtype == torch.float32 else "tf32")
        block, tile, warps, stages = decode_triton.decode_shape(4, size, dtype)
        constants = dict(M=block, TILE=tile, SPLIT=False, **precision)
        options = dict(num_warps=warps, num_stages=stages)
        decode = compiled(decode_triton.decode_attention_kernel, capability, dtype, constants, {}, options)
        block, ring, tile, warps = key_mass_triton.ring_shape(4, 16, dtype)
        constants = dict(M=block, R=ring, TILE=tile, COUNTED=False, BLOCK_R=16, MEAN=True, **precision)
        options = dict(num_warps=warps, num_stages=key_mass_triton.MASS_STAGES)
        mass = compiled(key_mass_triton.key_mass_kernel, capability, dtype, constants, {}, options)
        del constants["BLOCK_R"], constants["MEAN"]
        options = dict(num_warps=warps, num_stages=key_mass_triton.LSE_STAGES)
        lse = compiled(key_mass_triton.ring_lse_kernel, capability, dtype, constants, {}, options)
        for name, binary in (("decode_attention", decode), ("key_mass", mass), ("ring_lse", lse)):
            show(name, capability, dtype, size, binary, *resources(binary, tmp_path))
            assert binary.metadata.shared <= SHARED_KIB[capability] * 1024
