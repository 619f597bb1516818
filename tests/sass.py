"""Loops of a kernel's machine code, from nvdisasm: it lies beside Triton's ptxas."""

from __future__ import annotations

import re
import subprocess
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

import triton

BINARIES = Path(triton.__file__).parent / "backends" / "nvidia" / "bin"


@dataclass(frozen=True)
class Loop:
    """Instructions of one iteration by opcode, for every warp alike."""

    opcodes: Counter[str]

    @property
    def size(self) -> int:
        return self.opcodes.total()

    @property
    def products(self) -> int:
        """Instructions for the matrix unit."""
        return self.opcodes["HGMMA"] + self.opcodes["HMMA"]


def loops(cubin: bytes) -> list[Loop]:
    """Every loop, in the order of the code: what lies between a label and a branch back to it."""
    with TemporaryDirectory() as folder:
        file = Path(folder) / "kernel.cubin"
        file.write_bytes(cubin)
        command = [str(BINARIES / "nvdisasm"), "-c", str(file)]
        listing = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    labels: dict[str, int] = {}
    code: list[str] = []
    for line in listing.splitlines():
        if label := re.match(r"\s*(\.L_\S+):", line):
            labels[label.group(1)] = len(code)
        elif instruction := re.match(r"\s*/\*[0-9a-f]{4,}\*/\s+(.*?);", line):
            code.append(instruction.group(1).strip())
    found = []
    for place, instruction in enumerate(code):
        back = re.search(r"BRA.*`\((\.L_\S+)\)", instruction)
        if back and labels.get(back.group(1), len(code)) <= place:
            found.append(Loop(Counter(opcode(line) for line in code[labels[back.group(1)] : place + 1])))
    return found


def opcode(instruction: str) -> str:
    """HGMMA of `@!P0 HGMMA.64x64x16.F32.BF16 R24, ...`."""
    return re.sub(r"^@!?U?P\w+\s+", "", instruction).split()[0].split(".")[0]
