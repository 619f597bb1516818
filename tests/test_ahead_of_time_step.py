"""A decode step's fused kernels compile without a GPU for the architectures they must run on, and spill nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("triton", reason="Triton has no build for this platform")

import torch
import triton
from test_ahead_of_time import ELEMENT, resources, show
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from loopserve_kernels import gated_triton, norm_triton, rotate_triton, step_write_triton

INDICES = {"p_row", "p_slot", "p_position", "p_ring_position"}


def compiled(kernel: Any, capability: int, dtype: torch.dtype, constants: dict[str, Any], warps: int) -> Any:
    """The kernel for one architecture, from argument names: p_ is a pointer, eps a float, all else a whole number."""

    def kind(name: str) -> str:
        if name in constants:
            return "constexpr"
        if name.startswith("p_"):
            return "*i64" if name in INDICES else "*i32" if name == "p_length" else f"*{ELEMENT[dtype]}"
        return "fp32" if name == "eps" else "i32"

    names = kernel.arg_names
    aligned = {(place,): [["tt.divisibility", 16]] for place, name in enumerate(names) if name.startswith("p_")}
    values = {(names.index(name),): value for name, value in constants.items()}
    source = ASTSource(kernel, {name: kind(name) for name in names}, values, aligned)
    return triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": warps})


def check(
    name: str, kernel: Any, capability: int, size: int, constants: dict[str, Any], warps: int, path: Path
) -> None:
    for dtype in (torch.bfloat16, torch.float32):
        binary = compiled(kernel, capability, dtype, constants, warps)
        registers, spilled = resources(binary, path)
        show(name, capability, dtype, size, binary, registers, spilled)
        assert spilled == 0


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("width", [4096, 8192])
def test_add_rms_norm(capability: int, width: int, tmp_path: Path) -> None:
    constants = dict(C=width, BLOCK_C=width, ADD=True)
    check("add_rms_norm", norm_triton.add_rms_norm_kernel, capability, width, constants, norm_triton.norm_warps(width),
          tmp_path)  # fmt: skip


@pytest.mark.parametrize("capability", [80, 90, 120])
def test_silu_mul(capability: int, tmp_path: Path) -> None:
    columns = gated_triton.COLUMNS
    check("silu_mul", gated_triton.silu_mul_kernel, capability, columns, dict(COLUMNS=columns), 4, tmp_path)


@pytest.mark.parametrize("capability", [80, 90, 120])
@pytest.mark.parametrize("size", [64, 128])
@pytest.mark.parametrize("normed", [False, True])
def test_rotate_and_step_write(normed: bool, capability: int, size: int, tmp_path: Path) -> None:
    constants = dict(D=size, BLOCK_D=size, R=size, NORM=normed)
    check("rotate", rotate_triton.rotate_kernel, capability, size, constants, 1, tmp_path)
    for chosen in (False, True):
        check("step_write", step_write_triton.step_write_kernel, capability, size,
              constants | dict(RING=chosen, WORKING=chosen), 1, tmp_path)  # fmt: skip
