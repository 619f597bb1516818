"""Text inside the page: compressed, in letters that end no element, and known by its hash."""

from __future__ import annotations

import base64
import gzip
import hashlib
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Packed:
    """Code in the page, and the hash that lets it run."""

    text: str
    source: str

    @classmethod
    def of(cls, code: str) -> Packed:
        """The code, compressed."""
        return cls(packed(code), source_hash(code))


def packed(text: str) -> str:
    """The text in gzip and base64, the same each time; the page unpacks it with DecompressionStream."""
    return base64.b64encode(gzip.compress(text.encode(), compresslevel=6, mtime=0)).decode("ascii")


def source_hash(code: str) -> str:
    """What a Content-Security-Policy lets run: this code and no other."""
    return f"'sha256-{base64.b64encode(hashlib.sha256(code.encode()).digest()).decode('ascii')}'"
