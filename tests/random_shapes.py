"""Tiny shapes for models of random weights."""

from __future__ import annotations

import pytest

from loopserve_cli import shapes
from loopserve_cli.shapes import Shape

LLAMA = Shape("Tiny-Llama", 2, 64, 128, 4, 2, 32, 1500, tied=False, context=4096)
QWEN = Shape("Tiny-Qwen", 2, 64, 128, 4, 2, 16, 1024, tied=True, context=2048, kind="qwen2", rope_base=1e6)


def know_tiny_shapes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let `--model random:` know them too."""
    monkeypatch.setattr(shapes, "SHAPES", (*shapes.SHAPES, LLAMA, QWEN))
