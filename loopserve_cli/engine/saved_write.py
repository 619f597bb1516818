"""Writes a store to a file, in one step: what stands in it is told in `saved`.

This is not safetensors' `save_file`, which takes all tensors at once, contiguous and in the host's memory: the store
has them in larger buffers, and perhaps on a GPU. So one head's rows at a time are copied, and only from a GPU.
"""

from __future__ import annotations

import glob
import json
import os
import secrets
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import Tensor

from loopserve_cli.engine.identity import Identity
from loopserve_cli.engine.saved import DTYPES, SavedStore, Told
from loopserve_cli.engine.saved_digest import DIGEST_WORDS, blocks, counts, digest, raw
from loopserve_cli.engine.saved_facts import Facts
from loopserve_cli.engine.store import Store
from loopserve_cli.errors import LoopserveError, UsageError


def write(
    path: Path,
    store: Store,
    tokens: Sequence[int],
    identity: Identity,
    profiles: Mapping[str, str],
    told: Told | None = None,
) -> int:
    """Write a store that holds exactly `tokens`, in one step; returns the file's bytes. `told` hears of each part.

    A file that is already there is replaced if it is one of ours. Raises LoopserveError if it is not, and OSError
    when the disk refuses; the old file is then as it was.
    """
    target = path.resolve()  # a link stays a link
    _clear(path, target)
    tensors = dict(_tensors(store, tokens))
    temporary = target.with_name(f".{target.name}.{secrets.token_hex(4)}.tmp")
    # It holds all that was said, so nobody else may read it.
    handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    try:
        with open(handle, "wb") as file:
            _write(file, tensors, Facts(identity, profiles).to_json(), told)
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
            SavedStore.facts(target)
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


def _write(file: BinaryIO, tensors: Mapping[str, Tensor], facts: str, told: Told | None) -> None:
    """The header and the tensors' bytes, as https://github.com/huggingface/safetensors#format has it."""
    header: dict[str, Any] = {"__metadata__": {"loopserve": facts}}
    begin = 0
    shapes = {name: (tensor.dtype, tuple(tensor.shape)) for name, tensor in tensors.items()}
    checked = (sum(counts(shape for _, shape in shapes.values())), DIGEST_WORDS)
    for name, (dtype, shape) in {**shapes, "sums": (torch.int64, checked)}.items():
        end = begin + torch.Size(shape).numel() * dtype.itemsize
        header[name] = {"dtype": DTYPES[dtype], "shape": shape, "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    sums = []
    for name, tensor in tensors.items():
        for number, block in enumerate(blocks(tensor)):
            block = block.cpu()
            sums.append(digest(name, number, facts, block))
            file.write(raw(block))
            if told is not None:
                told(file.tell(), 8 + len(text) + begin)
    file.write(raw(torch.stack(sums)))
