"""A dialogue's keys and values in a file, so that a dialogue that goes on need not be prefilled again.

A safetensors file:

    tokens               int64 [N], the ids that the store holds
    layers.{i}.keys      [G, N, D], as the store has them
    layers.{i}.values    [G, N, D]
    sums                 int64 [blocks, 2], a checksum of tokens and of each head of each tensor above, in this order

and in its metadata, under "loopserve", JSON: the format's number, loopserve's version, the model's identity, and the
profiles under which the rows were computed.

It is read by safetensors, which maps the file into memory and compares lengths with the header. Names,
shapes and dtypes are compared with the model's before any tensor is read.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError, safe_open

from loopserve_cli.engine.identity import Identity
from loopserve_cli.engine.saved_digest import DIGEST_WORDS, counts, digests
from loopserve_cli.engine.saved_facts import Facts, OtherFormatError
from loopserve_cli.errors import LoopserveError

if TYPE_CHECKING:
    from loopserve_cli.engine.store import Store

DTYPES = {torch.float32: "F32", torch.float16: "F16", torch.bfloat16: "BF16", torch.int64: "I64"}
# A tensor as the header has it: its dtype by safetensors' name, and its shape.
Form = tuple[str, tuple[int, ...]]
# Hears how many bytes of how many are written, or read.
Told = Callable[[int, int], None]


@dataclass(frozen=True, slots=True)
class RowForm:
    """One layer's keys or values as a model makes them: dtype, heads G and size D."""

    dtype: torch.dtype
    heads: int
    size: int

    def of(self, tokens: int) -> Form:
        """In a file of so many tokens."""
        return DTYPES[self.dtype], (self.heads, tokens, self.size)


# Of every layer, its keys' and its values'.
Forms = Sequence[tuple[RowForm, RowForm]]


@dataclass(frozen=True, slots=True)
class SavedStore:
    """A file that holds a store: which model's, which tokens', and by which profiles (as text, and their names)."""

    path: Path
    identity: Identity
    profiles: Mapping[str, str]
    tokens: list[int]

    @classmethod
    def facts(cls, path: Path) -> Facts:
        """What a file says of itself, no tensor read. Raises LoopserveError for one that is not ours, or damaged."""
        with _opened(path) as file:
            return _facts(path, file)

    @classmethod
    def read(cls, path: Path, forms: Forms, vocabulary: int) -> SavedStore:
        """All but the keys and values, of a model with layers of these forms that knows so many ids.

        Raises LoopserveError for a file that is not one of ours, is damaged, or holds anything but such rows.
        """
        with _opened(path) as file:
            facts = _facts(path, file)
            held = _form(file, "tokens") if "tokens" in file.keys() else None  # noqa: SIM118 - it is no mapping
            count = held[1][0] if held is not None and len(held[1]) == 1 else 0
            if not count or {name: _form(file, name) for name in file.keys()} != _expected(forms, count):  # noqa: SIM118
                raise _damaged(path)
            tokens = file.get_tensor("tokens")
            told = file.get_tensor("sums")[:1]
            if not torch.equal(told, digests("tokens", _told(file), tokens)):
                raise _damaged(path)
            if int(tokens.min()) < 0 or int(tokens.max()) >= vocabulary:
                raise LoopserveError(f"{path}: holds tokens that the model does not know")
            return cls(path, facts.identity, facts.profiles, tokens.tolist())

    def into(self, store: Store, devices: Mapping[int, torch.device], told: Told | None = None) -> None:
        """Append the rows to an empty store of that model, layer by layer, each on its device; `told` hears of each.

        Raises LoopserveError where something is damaged; the store then holds some layers and others not.
        """
        with _opened(self.path) as file:
            facts, sums = _told(file), file.get_tensor("sums")
            done, read = 1, 0
            whole = self.path.stat().st_size
            for number, layer in enumerate(store.layers):
                rows = []
                for name in (f"layers.{number}.keys", f"layers.{number}.values"):
                    part = file.get_tensor(name)
                    sound = part.ndim == 3 and part.shape[1] == len(self.tokens)
                    if not sound or not torch.equal(sums[done : done + len(part)], digests(name, facts, part)):
                        raise _damaged(self.path)
                    done += len(part)
                    rows.append(part[None].to(devices[number]))
                layer.update(*rows)
                read += sum(part.nbytes for part in rows)
                if told is not None:
                    told(read, whole)


def _told(file: Any) -> str:
    """The metadata's text; empty where there is none."""
    return (file.metadata() or {}).get("loopserve") or ""


def _facts(path: Path, file: Any) -> Facts:
    told = _told(file)
    if not told:
        raise LoopserveError(f"{path}: is no cache that loopserve saved")
    try:
        return Facts.from_json(told)
    except OtherFormatError as error:
        raise LoopserveError(f"{path}: was saved by loopserve {error} in another format") from None
    except ValueError as error:
        raise _damaged(path) from error


def _form(file: Any, name: str) -> Form:
    part = file.get_slice(name)
    return part.get_dtype(), tuple(part.get_shape())


def _expected(forms: Forms, tokens: int) -> dict[str, Form]:
    """All tensors of a file with so many tokens, as its header must have them."""
    rows: dict[str, Form] = {"tokens": ("I64", (tokens,))}
    for number, pair in enumerate(forms):
        rows |= {
            f"layers.{number}.{name}": form.of(tokens) for name, form in zip(("keys", "values"), pair, strict=True)
        }
    blocks_ = sum(counts(shape for _, shape in rows.values()))
    return {**rows, "sums": ("I64", (blocks_, DIGEST_WORDS))}


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    """A safetensors file; whatever is wrong with it is a LoopserveError."""
    if path.is_dir():
        raise LoopserveError(f"{path}: is a folder, not a saved cache")
    if path.exists() and not path.is_file():
        raise LoopserveError(f"{path}: is no regular file, so no saved cache")
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
