"""What a mistyped name of a model was meant to be."""

from __future__ import annotations

from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path

from loopserve_cli.engine.gguf_files import is_file_of_gguf

# Of difflib's measure of likeness, 0 to 1: one letter wrong in three of four is a slip, half of them another name.
ALIKE = 0.7
LIST = "`loopserve models` lists what is here"


def models_in(folder: Path) -> dict[str, str]:
    """The models that lie in a folder: by name, their paths."""
    if not folder.is_dir():
        return {}
    found = [path for path in folder.iterdir() if is_file_of_gguf(path) or _is_model(path)]
    return {path.name: f"./{path}" if folder == Path() else str(path) for path in sorted(found)}


def did_you_mean(name: str, known: Mapping[str, str]) -> str | None:
    """The question, for the nearest name; None where none is like it."""
    folded = {key.casefold(): value for key, value in known.items()}
    near = get_close_matches(name.casefold(), list(folded), n=1, cutoff=ALIKE)
    meant = folded[near[0]] if near else name
    return f"did you mean {meant}? {LIST}" if meant != name else None


def _is_model(path: Path) -> bool:
    return any((path / name).is_file() for name in ("config.json", "adapter_config.json"))
