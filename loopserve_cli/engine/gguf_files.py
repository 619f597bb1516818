"""GGUF files in a folder: which are models, and which are parts of one."""

from __future__ import annotations

import re
from pathlib import Path

from loopserve_cli.engine.gguf_header import MAGIC

# One of several files that hold one model, as llama.cpp names them.
PART = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})\.gguf", re.IGNORECASE)


def is_gguf(path: Path) -> bool:
    """Whether a file is one by its name or its first bytes."""
    if path.suffix.lower() == ".gguf":
        return True
    with path.open("rb") as file:
        return file.read(4) == MAGIC


def is_file_of_gguf(path: Path) -> bool:
    """Whether a path is that of a file, there, that is named so; a link may lead nowhere."""
    return path.suffix.lower() == ".gguf" and path.is_file()


def whole_models(folder: Path) -> list[Path]:
    """The GGUF files of a folder, of one in parts its first, without those of an image encoder."""
    files = sorted(file for file in folder.iterdir() if is_file_of_gguf(file))
    parts = {file: PART.fullmatch(file.name) for file in files}
    first = [file for file in files if (part := parts[file]) is None or int(part["number"]) == 1]
    return [file for file in first if not file.name.lower().startswith("mmproj")]


def parts_of(file: Path) -> list[Path]:
    """All the files of the model that a file is of, in order, whether or not they are there."""
    part = PART.fullmatch(file.name)
    if part is None:
        return [file]
    count = int(part["count"])
    return [file.with_name(f"{part['stem']}-{n:05}-of-{count:05}.gguf") for n in range(1, count + 1)]
