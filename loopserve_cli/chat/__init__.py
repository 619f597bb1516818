"""The REPL: what a person types, what they see, and what is kept on disk."""

from __future__ import annotations

from loopserve_cli.chat.start import run

__all__ = ["run"]
