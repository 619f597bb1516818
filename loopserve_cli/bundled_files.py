"""Where the files lie that come with the package: the demo model, and three dialogues in its language."""

from __future__ import annotations

from pathlib import Path

from loopserve_cli.errors import ModelError, UsageError
from loopserve_cli.nearest import hint

TRANSCRIPTS = {"demo": "demo.jsonl", "demo:long": "long.jsonl", "demo:xlong": "xlong.jsonl"}


def transcripts_folder() -> Path:
    """Where the bundled dialogues lie."""
    return Path(__file__).parent / "demo" / "transcripts"


def bundled_path(name: str) -> Path:
    """The file of a bundled dialogue; raises UsageError for a name that is not known."""
    if name not in TRANSCRIPTS:
        known = ", ".join(TRANSCRIPTS)
        raise UsageError(f"no bundled dialogue {name!r}; known: {known}{hint(name, TRANSCRIPTS)}")
    return transcripts_folder() / TRANSCRIPTS[name]


def demo_model_folder() -> Path:
    """The folder of the demo model; raises ModelError when it is not there."""
    folder = Path(__file__).parent / "demo" / "model"
    if not (folder / "model.safetensors").is_file():
        raise ModelError(
            f"the demo model is missing from {folder}; install loopserve again, or train it with"
            " `python -m loopserve_cli.demo.train --out DIR` and copy DIR/model there"
        )
    return folder
