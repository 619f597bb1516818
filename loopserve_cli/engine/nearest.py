"""What a mistyped name of a model was meant to be."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from loopserve_cli.engine.gguf_files import is_file_of_gguf
from loopserve_cli.nearest import nearest

LIST = "`loopserve models` lists what is here"


def models_in(folder: Path) -> dict[str, str]:
    """The models that lie in a folder: by name, their paths."""
    if not folder.is_dir():
        return {}
    found = [path for path in folder.iterdir() if is_file_of_gguf(path) or _is_model(path)]
    return {path.name: f"./{path}" if folder == Path() else str(path) for path in sorted(found)}


def did_you_mean(name: str, known: Mapping[str, str]) -> str | None:
    """The question, for the nearest name; None where none is like it."""
    near = nearest(name, known)
    meant = known[near] if near is not None else name
    return f"did you mean {meant}? {LIST}" if meant != name else None


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "adapter_config.json"))
