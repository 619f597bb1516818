"""What can go wrong while a model loads, in one line each."""

from __future__ import annotations

from json import JSONDecodeError
from textwrap import shorten

from loopserve_cli.engine.hub import not_here, offline
from loopserve_cli.engine.sources import resolve
from loopserve_cli.errors import LoopserveError, ModelError


class ReadableErrors:
    """Turn what the hub, transformers and safetensors raise while loading into one line."""

    def __init__(self, name: str) -> None:
        """Name the model in every message."""
        self.name = name

    def __enter__(self) -> None:
        """Nothing to prepare."""

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: object) -> None:
        """Translate; what is no loading failure passes as it is."""
        from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError

        if error is None or isinstance(error, ModelError):
            return
        if isinstance(error, GatedRepoError):
            raise ModelError(f"{self.name} is gated: accept its terms on the hub, then `hf auth login`") from error
        first = shorten(str(error), 320, placeholder=" ...")
        unreachable = isinstance(error, LocalEntryNotFoundError | HfHubHTTPError | ConnectionError)
        if unreachable or (isinstance(error, OSError) and from_hub(self.name)):
            why = "HF_HUB_OFFLINE is set" if offline() else "the hub cannot be reached or has no such model"
            raise ModelError(not_here(self.name, why)) from error
        damaged = damaged_file(error)
        if damaged is not None:
            raise ModelError(f"{self.name}: cannot be loaded: {damaged} is damaged ({first}); copy it again") from error
        if isinstance(error, KeyError):
            raise ModelError(f"{self.name}: cannot be loaded: one of its files lacks {first}; copy it again") from error
        if isinstance(error, OSError | ValueError | ImportError):
            raise ModelError(f"{self.name}: cannot be loaded: {first}") from error


def from_hub(name: str) -> bool:
    """Whether a model has to be fetched from the hub."""
    try:
        return resolve(name).on_hub
    except LoopserveError:
        return False


def damaged_file(error: BaseException) -> str | None:
    """Which file could not be parsed, if that is what the error says."""
    from safetensors import SafetensorError

    if isinstance(error, SafetensorError):
        return "its weights file"
    if isinstance(error, JSONDecodeError):
        return "one of its JSON files"
    # The tokenizers library has no errors of its own kind.
    return "its tokenizer.json" if type(error) is Exception else None
