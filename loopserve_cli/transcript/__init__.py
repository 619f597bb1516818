"""Dialogue files: reads every supported format, writes ours as a chat goes on, converts between them."""

from __future__ import annotations

from loopserve_cli.transcript.convert import SAVE_FORMATS, convert, save_dialogues
from loopserve_cli.transcript.ours import Header
from loopserve_cli.transcript.read import read_dialogues
from loopserve_cli.transcript.writer import TranscriptWriter, resume

__all__ = ["SAVE_FORMATS", "Header", "TranscriptWriter", "convert", "read_dialogues", "resume", "save_dialogues"]
