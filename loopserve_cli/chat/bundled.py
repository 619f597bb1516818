"""The dialogues that come with the package, under the names that replay knows: demo, demo:long, demo:xlong."""

from __future__ import annotations

from pathlib import Path

from loopserve_cli.bundled_files import bundled_path


def is_bundled(path: Path) -> bool:
    """Whether a name is that of a bundled dialogue; a file of that name goes before it."""
    name = str(path)
    return (name == "demo" or name.startswith("demo:")) and not path.exists()


def located(path: Path) -> Path:
    """The file that a name leads to; raises UsageError for a bundled dialogue that there is not."""
    return bundled_path(str(path)) if is_bundled(path) else path
