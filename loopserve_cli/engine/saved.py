"""A dialogue's keys and values in a file, so that a dialogue that goes on need not be prefilled again.

A safetensors file:

    tokens               int64 [N], the ids that the store holds
    layers.{i}.keys      [G, N, D], as the store has them
    layers.{i}.values    [G, N, D]
    sums                 int64, a checksum of each tensor above, in this order

and in its metadata, under "loopserve", JSON: the format's number, loopserve's version, the model's identity, and the
profiles under which the rows were computed.

It is written here and not by safetensors' `save_file`, which takes all tensors at once, contiguous and in the host's
memory: the store has them in larger buffers, and perhaps on a GPU. So one head's rows at a time are copied, and only
from a GPU. It is read by safetensors, which maps the file into memory.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from loopserve_cli import __version__
from loopserve_cli.engine.identity import Identity, words
from loopserve_cli.errors import LoopserveError, UsageError

if TYPE_CHECKING:
    from loopserve_cli.engine.store import Store

FORMAT = 1
DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}


@dataclass(frozen=True, slots=True)
class SavedStore:
    """A file that holds a store: which model's, which tokens', and by which profiles (as text, and their names)."""

    path: Path
    identity: Identity
    profiles: Mapping[str, str]
    tokens: list[int]

    @classmethod
    def read(cls, path: Path) -> SavedStore:
        """All but the keys and values. Raises LoopserveError for a file that is not one of ours, or damaged."""
        with _opened(path) as file:
            told = (file.metadata() or {}).get("loopserve")
            if told is None:
                raise LoopserveError(f"{path}: is no cache that loopserve saved")
            try:
                facts = json.loads(told)
                if facts["format"] != FORMAT:
                    raise LoopserveError(f"{path}: was saved by loopserve {facts['version']} in another format")
                identity, profiles = Identity(**facts["identity"]), dict(facts["profiles"])
            except (ValueError, TypeError, KeyError) as error:
                raise _damaged(path) from error
            tokens, sums = file.get_tensor("tokens"), file.get_tensor("sums")
            if tokens.dtype != torch.int64 or tokens.ndim != 1 or sums.tolist()[:1] != [_checksum(tokens)]:
                raise _damaged(path)
            return cls(path, identity, profiles, tokens.tolist())

    def into(self, store: Store, devices: Mapping[int, torch.device]) -> None:
        """Append the rows to an empty store of that model, layer by layer, each on its device.

        Raises LoopserveError where something is damaged; the store then holds some layers and others not.
        """
        with _opened(self.path) as file:
            sums = file.get_tensor("sums").tolist()
            if len(sums) != 1 + 2 * len(store.layers):
                raise _damaged(self.path)
            for number, layer in enumerate(store.layers):
                keys, values = (file.get_tensor(f"layers.{number}.{name}") for name in ("keys", "values"))
                whole = all(part.ndim == 3 and part.shape[1] == len(self.tokens) for part in (keys, values))
                if not whole or [_checksum(keys), _checksum(values)] != sums[2 * number + 1 : 2 * number + 3]:
                    raise _damaged(self.path)
                layer.update(*(part[None].to(devices[number]) for part in (keys, values)))


def write(path: Path, store: Store, tokens: Sequence[int], identity: Identity, profiles: Mapping[str, str]) -> int:
    """Write a store that holds exactly `tokens`, in one step; returns the file's bytes.

    A file that is already there is replaced if it is one of ours. Raises LoopserveError if it is not, and OSError
    when the disk refuses; the old file is then as it was.
    """
    target = path.resolve()  # a link stays a link
    _clear(path, target)
    facts = {"format": FORMAT, "version": __version__, "identity": asdict(identity), "profiles": dict(profiles)}
    tensors = dict(_tensors(store, tokens))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    # It holds all that was said, so nobody else may read it.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            _write(file, tensors, json.dumps(facts))
            size = file.tell()
        os.replace(temporary, target)
    except BaseException:  # also on Ctrl-C: half a file is of no use, and may be large
        temporary.unlink(missing_ok=True)
        raise
    return size


def _clear(path: Path, target: Path) -> None:
    """Refuse to replace a file that is not ours, and remove what killed processes left of theirs."""
    if target.exists():
        try:
            SavedStore.read(target)
        except LoopserveError:
            raise UsageError(
                f"{path}: exists already and is no cache that loopserve saved; remove it or give another name"
            ) from None
    for left in target.parent.glob(glob.escape(f".{target.name}.") + "*.tmp"):
        left.unlink(missing_ok=True)


def _tensors(store: Store, tokens: Sequence[int]) -> Iterator[tuple[str, Tensor]]:
    """What is written, by name and in order; keys and values are views of the store."""
    yield "tokens", torch.tensor(tokens, dtype=torch.int64)
    for number, layer in enumerate(store.layers):
        for name, rows in zip(("keys", "values"), layer.rows(), strict=True):
            assert rows.shape[2] == len(tokens), "every token has its row"
            yield f"layers.{number}.{name}", rows[0]


def _write(file: BinaryIO, tensors: Mapping[str, Tensor], facts: str) -> None:
    """The header and the tensors' bytes, as https://github.com/huggingface/safetensors#format has it."""
    header: dict[str, Any] = {"__metadata__": {"loopserve": facts}}
    begin = 0
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    for name, (dtype, shape) in {**shapes, "sums": (torch.int64, (len(shapes),))}.items():
        end = begin + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    sums = []
    for tensor in tensors.values():
        total = torch.zeros((), dtype=torch.int64)
        for block in _blocks(tensor):
            block = block.cpu()
            total += words(block).sum()
            file.write(_raw(block))
        sums.append(total)
    file.write(_raw(torch.stack(sums)))


def _checksum(tensor: Tensor) -> int:
    """The sum of all bytes, eight at a time: finds what was cut off, turned over or never reached the disk."""
    return int(torch.stack([words(block).sum() for block in _blocks(tensor)]).sum())


def _blocks(tensor: Tensor) -> Iterator[Tensor]:
    """Contiguous parts: the heads of keys or values, or the whole of a list."""
    yield from tensor if tensor.ndim == 3 else (tensor,)


def _raw(block: Tensor) -> memoryview:
    return block.view(torch.uint8).numpy().data


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; whatever is wrong with it is a LoopserveError."""
    if path.is_dir():
        raise LoopserveError(f"{path}: is a folder, not a saved cache")
    try:
        with safe_open(path, framework="pt") as file:
            yield file
    except SafetensorError as error:
        raise _damaged(path) from error
    except FileNotFoundError:
        raise LoopserveError(f"{path}: no such file") from None
    except OSError as error:
        raise LoopserveError(f"{path}: cannot be read: {error.strerror or error}") from None


def _damaged(path: Path) -> LoopserveError:
    return LoopserveError(f"{path}: is damaged, or no safetensors file")
