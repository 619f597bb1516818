"""The models at hand, shown: as a table, or as one JSON document."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

import psutil
from rich.text import Text

from loopserve_cli.config import ModelOptions
from loopserve_cli.models.inventory import Found, find_models
from loopserve_cli.output import new_table, output_console, print_document
from loopserve_cli.shapes import HEADROOM, SHAPES

BYTES = {"float32": 4, "float16": 2, "bfloat16": 2}
GIB = 2**30


def run(dtype: str, as_json: bool) -> int:
    """Print what is at hand and whether its weights fit; 0 also when there is only the demo model."""
    ModelOptions(dtype=dtype)  # refuses a dtype that is not known
    where, memory = memory_free()
    if dtype == "auto":
        dtype = "float32" if where == "main memory" else "bfloat16"
    rows = [row(found, BYTES[dtype], memory) for found in find_models()]
    if as_json:
        document = {"command": "models", "dtype": dtype, "memory": where, "memory_bytes": memory, "models": rows}
        print_document(document)
    else:
        show(rows, dtype, where, memory)
    return 0


def memory_free() -> tuple[str, int]:
    """Where models run here, and its free bytes. torch is asked only where there is a driver: it takes seconds."""
    if shutil.which("nvidia-smi"):
        from loopserve_cli.doctor.hardware import find_gpus

        gpus = find_gpus()
        if gpus:
            return f"GPU {gpus[0].index}", gpus[0].free_bytes
    return "main memory", psutil.virtual_memory().available


def row(found: Found, bytes_per_weight: int, memory: int) -> dict[str, Any]:
    """One model as JSON types; what is not known is null."""
    weights = None if found.parameters is None else found.parameters * bytes_per_weight
    fits = None if weights is None else weights <= memory * (1 - HEADROOM)
    return asdict(found) | {"weight_bytes": weights, "fits": fits}


def show(rows: Sequence[dict[str, Any]], dtype: str, where: str, memory: int) -> None:
    """The table; under it what --model takes besides."""
    table = new_table()
    table.add_column("--model", overflow="fold")
    table.add_column("from")
    for heading in ("on disk", "parameters", f"in {dtype}"):
        table.add_column(heading, justify="right")
    table.add_column("fits")
    for one in rows:
        sizes = (size(one["disk_bytes"]), millions(one["parameters"]), size(one["weight_bytes"]))
        table.add_row(one["model"], one["origin"], *sizes, one["problem"] or answer(one["fits"]))
    console = output_console()
    console.print(table)
    room = f"{memory / GIB:.1f} GiB of {where} free, of which {HEADROOM:.0%} are left; a dialogue comes on top"
    console.print(Text(f"{room}. --quant nf4 takes about a seventh of float32."), soft_wrap=True)
    shapes = ", ".join(shape.model for shape in SHAPES)
    console.print(Text(f"For timings, random:NAME makes a model of random weights: {shapes}."), soft_wrap=True)


def size(count: int | None) -> str:
    """Bytes in MiB or GiB."""
    if count is None:
        return "n/a"
    return f"{count / GIB:.1f} GiB" if count >= GIB else f"{count / 2**20:.0f} MiB"


def millions(count: int | None) -> str:
    """Parameters in millions or billions."""
    if count is None:
        return "n/a"
    return f"{count / 1e9:.1f} B" if count >= 1e9 else f"{count / 1e6:.0f} M"


def answer(fits: bool | None) -> str:
    """Whether it fits, in a word."""
    return "n/a" if fits is None else "yes" if fits else "no"
