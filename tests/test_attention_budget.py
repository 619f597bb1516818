"""What the attention kernel costs per tile, read from the machine code of the very launches that a GPU would run."""

from __future__ import annotations

import sys
from functools import partial

import pytest

pytest.importorskip("triton", reason="Triton has no build for this platform")

import torch
from meta_calls import Case, attending, attending_in_pairs
from recorded_launches import PROCESSORS, Compiled, Launch, launches_of
from sass import Loop, loops

KERNEL = "vertical_slash_kernel"
# Instructions per warp and tile of 64 keys. The audit counted 612 and 979.
SLASHES, VERTICALS = 480, 720
WALKS = ("near", "whole", "part", "vertical")


def attention(case: Case, capability: int, length: int = 32768) -> list[Launch]:
    """Every variant for heads apart (narrow and tall) and for pairs, with and without splits."""
    found: dict[str, Launch] = {}
    for call in (attending, attending_in_pairs):
        for keys in (40, length):
            for launch in launches_of(partial(call, case, keys), capability):
                if launch.name == KERNEL:
                    found[str(launch.constants)] = launch
    return list(found.values())


def walks(kernel: Compiled) -> dict[str, Loop]:
    """The four loops with products in them, in the order of the code."""
    found = [loop for loop in loops(kernel.cubin) if loop.products]
    assert len(found) == len(WALKS), [loop.size for loop in found]
    return dict(zip(WALKS, found, strict=True))


def shown(kernel: Compiled, launch: Launch, case: Case) -> dict[str, Loop]:
    block = f"{launch.constants['HEIGHT']} rows x {launch.constants['MEMBERS']}" + " split" * launch.constants["SPLIT"]
    found = walks(kernel) if case.dtype != torch.float32 else {}
    sizes = ", ".join(f"{name} {loop.size}" for name, loop in found.items())
    sys.stderr.write(f"{kernel.row}  {case}  {block}  {sizes}\n")
    return found


@pytest.mark.parametrize("capability", PROCESSORS)
def test_instructions_per_tile(capability: int) -> None:
    variants = attention(case := Case(), capability)
    heights = {(launch.constants["HEIGHT"], launch.constants["MEMBERS"]) for launch in variants}
    assert heights == ({(64, 1), (64, 2), (128, 1)} if capability == 90 else {(64, 1)})
    for launch in variants:
        kernel = launch.compiled(capability)
        found = shown(kernel, launch, case)
        assert kernel.spilled == 0
        # Whole tiles hide nothing, so nothing there selects or compares score by score.
        assert found["whole"].opcodes["FSEL"] == 0
        assert found["whole"].size < found["part"].size
        if capability == 90:
            assert kernel.blocks >= (2 if kernel.warps == 4 else 1)
            assert "wgmma" in kernel.ptx
            assert max(found["whole"].size, found["part"].size) <= SLASHES
            assert found["vertical"].size <= VERTICALS
            # The scale and the maximum are one instruction, and the loads are copies that nothing waits for.
            assert found["whole"].opcodes["FFMA"] >= 32 and found["whole"].opcodes["FMUL"] <= 80
            assert found["vertical"].opcodes["LDGSTS"] > 8


@pytest.mark.slow
@pytest.mark.parametrize("case", [Case(64), Case(128, torch.float16), Case(128, torch.float32)], ids=str)
@pytest.mark.parametrize("capability", PROCESSORS)
def test_other_shapes_do_not_spill(case: Case, capability: int) -> None:
    for launch in attention(case, capability):
        kernel = launch.compiled(capability)
        shown(kernel, launch, case)
        assert kernel.spilled == 0 and kernel.fits


def test_lengths_make_one_variant() -> None:
    """Lengths 1, 16, 17 and 4096 differ in being 1 or a multiple of 16, on which Triton would specialise."""
    found: dict[str, set[str]] = {}
    for length in (1, 16, 17, 4096, 131072):
        for launch in launches_of(partial(attending, Case(), length)):
            split = launch.constants.get("SPLIT")
            kind = (launch.name, launch.constants.get("HEIGHT"), split)
            found.setdefault(str(kind), set()).add(str(launch.constants) + str(launch.looks))
    attention_kinds = [kind for kind in found if KERNEL in kind]
    assert len(attention_kinds) == 4, "narrow and tall, with and without splits"
    assert all(len(variants) == 1 for variants in found.values()), {k: len(v) for k, v in found.items()}
