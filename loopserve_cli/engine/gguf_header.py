"""What a GGUF file says of itself, read without torch: its architecture, its settings and its table of tensors.

transformers' reader takes seconds for a vocabulary, and raises anything for a damaged file. This reads a header in
milliseconds, and checks that the file holds all that it lists. Format: ggml's docs/gguf.md, versions 2 and 3.
"""

from __future__ import annotations

import mmap
import struct
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

from loopserve_cli.errors import ModelError

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# The kinds of values, by the format's number: how struct reads them.
SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
STRING, ARRAY = 8, 9
# Far above the headers of today's models: a file that claims more is damaged, and reading it would not end.
HEADER_LIMIT, MOST_ENTRIES, MOST_NUMBERS = 2**27, 2**20, 2**24
F32 = 0


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of the table: its sizes, how its numbers are stored, and where it starts in the file's data."""

    name: str
    sizes: tuple[int, ...]
    kind: int
    offset: int

    @property
    def elements(self) -> int:
        """How many numbers it holds."""
        return prod(self.sizes)


@dataclass(frozen=True, slots=True)
class GgufHeader:
    """A file's settings by key (of an array only its length, unless it holds numbers) and its tensors by name.

    Bytes from `settings_end` to `data_start` are the table, from there on the tensors.
    """

    path: Path
    settings: dict[str, Any]
    tensors: dict[str, TensorEntry]
    settings_end: int
    data_start: int

    @property
    def architecture(self) -> str:
        """What llama.cpp calls the architecture."""
        return str(self.settings.get("general.architecture", "unknown"))

    @property
    def alignment(self) -> int:
        """Tensors start at multiples of so many bytes."""
        return int(self.settings.get("general.alignment", 32))

    def own(self, key: str) -> Any:
        """A setting of the architecture's, such as "rope.scaling.type"; None where it is not given."""
        return self.settings.get(f"{self.architecture}.{key}")

    def size_of(self, tensor: TensorEntry) -> int:
        """Bytes that a tensor takes in the file; raises ModelError for a kind of numbers that is not known."""
        from gguf.constants import GGML_QUANT_SIZES, GGMLQuantizationType

        try:
            block, stored = GGML_QUANT_SIZES[GGMLQuantizationType(tensor.kind)]
        except (ValueError, KeyError) as error:
            raise ModelError(
                f"{self.path}: its tensor {tensor.name} is stored in a way (ggml type {tensor.kind}) that the "
                "installed gguf package does not know; pip install --upgrade gguf"
            ) from error
        return tensor.elements // block * stored

    def numbers(self, name: str) -> list[float]:
        """The values of a small tensor, which must be float32."""
        tensor = self.tensors[name]
        if tensor.kind != F32:
            raise ModelError(f"{self.path}: its tensor {name} is not float32, so it cannot be read")
        with self.path.open("rb") as file:
            file.seek(self.data_start + tensor.offset)
            return list(struct.unpack(f"<{tensor.elements}f", file.read(4 * tensor.elements)))


def read_header(path: Path) -> GgufHeader:
    """A file's header; raises ModelError, in one line, for a file that is empty, no GGUF, damaged or cut off."""
    size = path.stat().st_size
    if size == 0:
        raise ModelError(f"{path}: the file is empty; copy it again")
    length = min(size, HEADER_LIMIT)
    with path.open("rb") as file, mmap.mmap(file.fileno(), length, access=mmap.ACCESS_READ) as data:
        if data[:4] != MAGIC:
            raise ModelError(f"{path}: is no GGUF file (it does not begin with {MAGIC.decode()}); copy it again")
        try:
            header = _Reader(data).header(path)
        except (struct.error, LookupError, ValueError, ArithmeticError, MemoryError) as error:
            raise ModelError(f"{path}: is damaged: its header cannot be read; copy it again") from error
    _check_length(header, size)
    return header


def _check_length(header: GgufHeader, size: int) -> None:
    for tensor in header.tensors.values():
        end = header.data_start + tensor.offset + header.size_of(tensor)
        if end > size:
            raise ModelError(
                f"{header.path}: is cut off: it has {size:,} bytes, and {tensor.name} ends at {end:,}; copy it again"
            )


class _Reader:
    """Walks through the bytes of a header."""

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        self.at = 4

    def header(self, path: Path) -> GgufHeader:
        version = self.scalar("I")
        if version not in VERSIONS:
            known = " and ".join(map(str, VERSIONS))
            raise ModelError(f"{path}: is GGUF version {version}, but only {known} (little-endian) can be read")
        tensors, settings = self.scalar("Q"), self.scalar("Q")
        if max(tensors, settings) > MOST_ENTRIES:
            raise ValueError
        values = {}
        for _ in range(settings):
            key = self.text()
            values[key] = self.value(self.scalar("I"))
        end = self.at
        table = [self.tensor() for _ in range(tensors)]
        alignment = int(values.get("general.alignment", 32))
        start = -(-self.at // alignment) * alignment
        return GgufHeader(path, values, {entry.name: entry for entry in table}, end, start)

    def scalar(self, kind: str) -> Any:
        (value,) = struct.unpack_from(f"<{kind}", self.data, self.at)
        self.at += struct.calcsize(f"<{kind}")
        return value

    def text(self) -> str:
        size = self.scalar("Q")
        raw = self.data[self.at : self.at + size]
        if len(raw) < size:
            raise IndexError
        self.at += size
        return raw.decode("utf-8")

    def value(self, kind: int) -> Any:
        if kind == STRING:
            return self.text()
        if kind != ARRAY:
            return self.scalar(SCALARS[kind])
        inner, count = self.scalar("I"), self.scalar("Q")
        if count > MOST_NUMBERS:
            raise ValueError
        if inner == STRING:
            for _ in range(count):
                size = self.scalar("Q")
                self.at += size
            return count
        values = struct.unpack_from(f"<{count}{SCALARS[inner]}", self.data, self.at)
        self.at += struct.calcsize(f"<{count}{SCALARS[inner]}")
        return list(values)

    def tensor(self) -> TensorEntry:
        name = self.text()
        sizes = tuple(self.scalar("Q") for _ in range(self.scalar("I")))
        return TensorEntry(name, sizes, self.scalar("I"), self.scalar("Q"))
