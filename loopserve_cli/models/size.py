"""How large a model's files are, and how many parameters they hold: read from the files' headers."""

from __future__ import annotations

import json
from math import prod
from pathlib import Path

from loopserve_cli.engine.gguf_files import parts_of
from loopserve_cli.engine.gguf_header import read_header
from loopserve_cli.errors import LoopserveError
from loopserve_cli.files import MODEL_TEXT_LIMIT, Refused, read_file

# What the safetensors library reads at most.
HEADER_LIMIT = 100_000_000


def disk_bytes(path: Path) -> int:
    """Bytes of a model's file, of all its parts, or of its folder; what is there under two names counts once."""
    files = [file for file in parts_of(path) if file.is_file()] if path.is_file() else path.rglob("*")
    return sum(file.stat().st_size for file in {file.resolve() for file in files} if file.is_file())


def parameters(path: Path) -> int | None:
    """How many numbers the weights are; None for formats that do not say so, and for weights packed by a quantiser."""
    try:
        if path.is_file():
            return sum(tensor.elements for file in parts_of(path) for tensor in read_header(file).tensors.values())
        settings = json.loads(read_file(path / "config.json", MODEL_TEXT_LIMIT))
        weights = sorted(file for file in path.glob("model*.safetensors") if file.is_file())
        if "quantization_config" in settings or not weights:
            return None
        return sum(in_safetensors(file) for file in weights)
    except (OSError, ValueError, TypeError, KeyError, AttributeError, LoopserveError, Refused):
        return None  # a damaged file is told when it is loaded


def in_safetensors(file: Path) -> int:
    """The numbers in one file. Its header is JSON behind its length in 8 bytes (the safetensors format)."""
    with file.open("rb") as data:
        size = int.from_bytes(data.read(8), "little")
        if size > HEADER_LIMIT:
            raise ValueError
        header = json.loads(data.read(size))
    return sum(prod(tensor["shape"]) for name, tensor in header.items() if name != "__metadata__")
