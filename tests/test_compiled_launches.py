"""Every launch compiles as it is made, for the architectures it must run on, and a new length compiles nothing."""

from __future__ import annotations

import importlib
import pkgutil
import re
import sys
from dataclasses import replace
from functools import partial

import pytest

pytest.importorskip("triton", reason="Triton has no build for this platform")

import torch
from meta_calls import CALLS, Case
from recorded_launches import OPTIONS, PROCESSORS, Compiled, Launch, launches_of
from triton.runtime.jit import JITFunction

import loopserve_kernels

LENGTHS = (33, 48, 1000, 4096, 6711, 32768, 131072)
SHORT_AND_LONG = (40, 32768)
# A short history is not split over the device: the kernel that merges nothing is one more variant, and the only one.
MAY_DIFFER = {"SPLIT"}
CASES = [Case(128, torch.bfloat16), Case(128, torch.float32)]
SMALLER = [
    pytest.param(case, marks=pytest.mark.slow) for case in (Case(64), Case(64, torch.float32), Case(heads=28, groups=4))
]
ODD = [Case(size, dtype) for size in (80, 96, 256) for dtype in (torch.bfloat16, torch.float32)]


def launches(name: str, case: Case, *lengths: int, capability: int = 90) -> list[Launch]:
    return [launch for length in lengths for launch in launches_of(partial(CALLS[name], case, length), capability)]


def compiled(name: str, case: Case, capability: int) -> list[Compiled]:
    """Every variant that a short and a long history launch, shown as a table."""
    found, seen = [], set()
    for launch in launches(name, case, *SHORT_AND_LONG, capability=capability):
        variant = (launch.name, str(launch.constants), str(launch.looks))
        if variant not in seen:
            seen.add(variant)
            found.append(launch.compiled(capability))
            sys.stderr.write(f"{found[-1].row}  {case}\n")
    return found


@pytest.mark.parametrize("capability", PROCESSORS)
@pytest.mark.parametrize("case", [*CASES, *SMALLER], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_what_runs_compiles_without_spills(name: str, case: Case, capability: int) -> None:
    for kernel in compiled(name, case, capability):
        assert kernel.spilled == 0
        assert kernel.fits and kernel.blocks > 0


@pytest.mark.slow
@pytest.mark.parametrize("capability", PROCESSORS)
@pytest.mark.parametrize("case", ODD, ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_other_head_sizes_fit(name: str, case: Case, capability: int) -> None:
    assert all(kernel.fits for kernel in compiled(name, case, capability))


@pytest.mark.parametrize("case", CASES, ids=str)
@pytest.mark.parametrize("capability", PROCESSORS)
def test_decoding_reads_ahead_with_room_for_a_second_program(case: Case, capability: int) -> None:
    attention = [k for k in compiled("decode attention", case, capability) if k.name == "decode_attention_kernel"]
    assert len(attention) == 2, "with and without splits"
    for kernel in attention:
        assert kernel.blocks >= (1 if capability == 120 else 2), "as many as splits are made for"
        if case.dtype != torch.float32:
            assert "cp.async" in kernel.ptx, "keys are loaded ahead of their use"


def test_choosing_adds_in_one_order() -> None:
    for kernel in compiled("choosing, optimal", Case(), 90):
        assert not re.search(r"\b(atom|red)\.", kernel.ptx), f"{kernel.name} adds to what others add to"


@pytest.mark.parametrize("capability", PROCESSORS)
def test_rows_are_gathered_16_bytes_at_a_time(capability: int) -> None:
    (kernel,) = compiled("gather", Case(), capability)
    assert "ld.global.v4" in kernel.ptx


@pytest.mark.parametrize("case", [*CASES, *SMALLER, Case(80)], ids=str)
@pytest.mark.parametrize("name", CALLS)
def test_a_new_length_makes_no_new_variant(name: str, case: Case) -> None:
    by_kernel: dict[tuple[str, object], list[Launch]] = {}
    for launch in launches(name, case, *LENGTHS):
        # Attention is launched for low and for tall blocks in every call, whatever its length.
        by_kernel.setdefault((launch.name, launch.constants.get("TALL")), []).append(launch)
    for kernel, found in by_kernel.items():
        for launch in found:
            changed = {n for n, value in launch.constants.items() if value != found[0].constants[n]} - MAY_DIFFER
            same_split = next(f for f in found if f.constants.get("SPLIT") == launch.constants.get("SPLIT"))
            changed |= {n for n, look in launch.looks.items() if look != same_split.looks[n]}
            assert not changed, f"{kernel}: a length changes {changed}"


@pytest.mark.parametrize("name", CALLS)
def test_numbers_that_stand_anywhere_make_no_new_variant(name: str) -> None:
    """Positions, counts and chosen keys may begin at any element of a larger tensor."""
    for launch in launches(name, Case(), *SHORT_AND_LONG):
        numbers = {n for n, t in launch.arguments.items() if isinstance(t, torch.Tensor) and not t.is_floating_point()}
        elsewhere = {name: torch.empty(2, dtype=launch.arguments[name].dtype)[1:] for name in numbers}
        assert replace(launch, arguments=launch.arguments | elsewhere).looks == launch.looks


@pytest.mark.parametrize("name", CALLS)
def test_every_launch_says_how_it_is_compiled(name: str) -> None:
    for launch in launches(name, Case(), *SHORT_AND_LONG):
        assert set(OPTIONS) <= set(launch.arguments), f"{launch.name} leaves {OPTIONS} to Triton's defaults"
        assert launch.arguments["enable_fp_fusion"] is True


def test_every_kernel_is_among_them() -> None:
    reached = {launch.name for name in CALLS for launch in launches(name, Case(), *SHORT_AND_LONG)}
    assert reached >= kernels(), f"tests/meta_calls.py calls nothing that launches {kernels() - reached}"


def kernels() -> set[str]:
    """Every kernel of the package that is launched from the host, by name."""
    names = [module.name for module in pkgutil.iter_modules(loopserve_kernels.__path__)]
    modules = [importlib.import_module(f"loopserve_kernels.{name}") for name in names if name.endswith("_triton")]
    found = {value.__name__ for module in modules for value in vars(module).values() if isinstance(value, JITFunction)}
    return {name for name in found if name.endswith("_kernel")}
