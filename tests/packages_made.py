"""Installed packages that ship models: folders as pip leaves them."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest


def install(site: Path, name: str, module: str, files: dict[str, Path | bytes]) -> None:
    """A distribution called `name` whose package `module` holds the files, copied or written."""
    lines = []
    for place, content in {"__init__.py": b"", **files}.items():
        target = site / module / place
        target.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Path):
            shutil.copy(content, target)
        else:
            target.write_bytes(content)
        lines.append(f"{module}/{place},,")
    info = site / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
    (info / "top_level.txt").write_text(f"{module}\n")
    lines += [f"{info.name}/{file},," for file in ("METADATA", "top_level.txt", "RECORD")]
    (info / "RECORD").write_text("\n".join(lines) + "\n")


def on_path(site: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have Python find what was installed there."""
    monkeypatch.syspath_prepend(str(site))
