"""`loopserve chats`: the saved dialogues, newest first, and what was said in them."""

from __future__ import annotations

from loopserve_cli.chats.report import run

__all__ = ["run"]
