"""Models from GGUF files, by transformers' reader: dequantised, and held against what the file lists."""

from __future__ import annotations

import functools
import shutil
import struct
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any, BinaryIO

from loopserve_cli.engine.gguf_header import GgufHeader, read_header
from loopserve_cli.engine.gguf_positions import FREQUENCIES, LONG, SHORT, complete_positions
from loopserve_cli.engine.sources import Source
from loopserve_cli.errors import ModelError

if TYPE_CHECKING:
    from transformers import PreTrainedConfig, PreTrainedModel

GIB = 2**30
# Tensors that are settings of positions, and no weights.
NO_WEIGHTS = (FREQUENCIES, LONG, SHORT)


def header_of(source: Source) -> GgufHeader:
    """The header of a source's GGUF file."""
    return read_header(Path(source.place) / source.gguf[0])


@contextmanager
def opened(source: Source, progress: Callable[[str], None] = lambda _: None) -> Iterator[Source]:
    """The source with at most one GGUF file, for as long as it is read; nothing changes where it has none."""
    if not source.gguf:
        yield source
        return
    with joined(source, progress) as whole, quick_reader():
        yield whole


@contextmanager
def quick_reader() -> Iterator[None]:
    """Have transformers' reader parse a file once and draw no bar.

    It parses the file for the settings and again for the weights, and builds the same table of names for each of a
    model's modules: of SmolLM2's 17 s of loading those were 9. Its bar is not reached by disable_progress_bar.
    """
    import gguf
    from transformers import modeling_gguf_pytorch_utils as reader

    once = {name: functools.cache(getattr(gguf, name)) for name in ("GGUFReader", "get_tensor_name_map")}
    with ExitStack() as stack:
        for name, function in once.items():
            stack.enter_context(swapped(gguf, name, function))
        stack.enter_context(swapped(reader, "tqdm", lambda items, **_: items))
        yield


@contextmanager
def swapped(module: ModuleType, name: str, value: object) -> Iterator[None]:
    """A module with another value under a name, if it has the name."""
    if not hasattr(module, name):
        yield
        return
    old = getattr(module, name)
    setattr(module, name, value)
    try:
        yield
    finally:
        setattr(module, name, old)


@contextmanager
def readable(name: str) -> Iterator[None]:
    """Turn whatever transformers' reader raises into one line."""
    try:
        yield
    except ModelError:
        raise
    except Exception as error:  # it raises anything: KeyError for a setting, ValueError for an architecture
        first = " ".join(str(error).split())[:200]
        why = first or type(error).__name__
        raise ModelError(f"{name}: transformers' GGUF reader cannot load it: {why}") from error


def complete_config(config: PreTrainedConfig, source: Source) -> PreTrainedConfig:
    """The configuration with what the reader leaves out: positions, and bfloat16 as what to compute in on a GPU."""
    complete_positions(config, header_of(source))
    if config.dtype is None:
        config.dtype = "bfloat16"
    return config


def dequantised() -> Any:
    """The setting that has weights dequantised; None where transformers does nothing else."""
    import transformers

    kind = getattr(transformers, "GgufConfig", None)
    return None if kind is None else kind(dequantize=True)


def check_complete(model: PreTrainedModel, source: Source, name: str) -> None:
    """Refuse a model with fewer weights than its file: the reader leaves out tensors that it does not know."""
    tensors = header_of(source).tensors.values()
    listed = sum(tensor.elements for tensor in tensors if tensor.name not in NO_WEIGHTS)
    loaded = sum(parameter.numel() for parameter in model.parameters())
    if listed != loaded:
        raise ModelError(
            f"{name}: transformers' GGUF reader makes {loaded:,} weights of its {listed:,}, so it would be another "
            "model; use its safetensors files"
        )


@contextmanager
def joined(source: Source, progress: Callable[[str], None] = lambda _: None) -> Iterator[Source]:
    """The source with one GGUF file; parts are put together in a temporary file, which transformers cannot read."""
    if len(source.gguf) < 2:
        yield source
        return
    files = [Path(source.place) / name for name in source.gguf]
    size = sum(file.stat().st_size for file in files)
    with tempfile.TemporaryDirectory(prefix="loopserve-") as folder:
        free = shutil.disk_usage(folder).free
        if size > free:
            raise ModelError(
                f"joining the {len(files)} parts of {files[0].name} takes {size / GIB:.1f} GiB, but {folder} has "
                f"{free / GIB:.1f} GiB; free some, or set TMPDIR"
            )
        progress(f"joining {len(files)} GGUF files in {folder}: {size / GIB:.2f} GiB")
        whole = Path(folder) / "joined.gguf"
        join([read_header(file) for file in files], whole)
        yield replace(source, place=folder, gguf=(whole.name,))


def join(parts: list[GgufHeader], target: Path) -> None:
    """One file with the settings of the first part and the tensors of all."""
    first = parts[0]
    entries = [(part, tensor) for part in parts for tensor in part.tensors.values()]
    with target.open("wb") as out, first.path.open("rb") as settings:
        out.write(settings.read(8))  # magic and version
        settings.seek(16)
        out.write(struct.pack("<Q", len(entries)) + settings.read(first.settings_end - 16))
        at = 0
        for part, tensor in entries:
            name = tensor.name.encode()
            out.write(struct.pack(f"<Q{len(name)}sI", len(name), name, len(tensor.sizes)))
            out.write(struct.pack(f"<{len(tensor.sizes)}QIQ", *tensor.sizes, tensor.kind, at))
            at += padded(part.size_of(tensor), first.alignment)
        fill(out, first.alignment)
        for part, tensor in entries:
            with part.path.open("rb") as data:
                data.seek(part.data_start + tensor.offset)
                out.write(data.read(part.size_of(tensor)))
            fill(out, first.alignment)


def padded(size: int, alignment: int) -> int:
    """The next multiple of the alignment."""
    return -(-size // alignment) * alignment


def fill(out: BinaryIO, alignment: int) -> None:
    """Zeros up to the next multiple of the alignment."""
    out.write(bytes(padded(out.tell(), alignment) - out.tell()))
