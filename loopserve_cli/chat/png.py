"""A grey picture as a PNG file (ISO/IEC 15948), of nothing but the standard library."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence

SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Bits per sample, grey, and the only methods there are.
KIND = (8, 0, 0, 0, 0)


def grey_png(rows: Sequence[bytes]) -> bytes:
    """The file's bytes: one byte per pixel, 0 black, 255 white; all rows are as long as the first."""
    size = struct.pack(">II5B", len(rows[0]), len(rows), *KIND)
    pixels = zlib.compress(b"".join(b"\0" + row for row in rows), 9)
    return SIGNATURE + _chunk(b"IHDR", size) + _chunk(b"IDAT", pixels) + _chunk(b"IEND", b"")


def _chunk(name: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
