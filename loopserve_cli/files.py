"""Files that a user names, read only where they end: no devices, no more than a limit."""

from __future__ import annotations

import gzip
import io
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

MIB = 1 << 20
PROFILE_LIMIT = MIB
MESSAGE_LIMIT = 64 * MIB
TRANSCRIPT_LIMIT = 1024 * MIB
# The largest tokenizer.json of today's models has 35 MB.
MODEL_TEXT_LIMIT = 256 * MIB
CHUNK = MIB


class Refused(Exception):
    """A file that is not read to its end; the message follows the file's name."""


def read_file(path: Path, limit: int, streams: bool = False) -> bytes:
    """The file's bytes, at most `limit` of them; with `streams` also a pipe's.

    A pipe that nobody writes to is empty. Raises Refused for a device, a socket and what is larger; OSError as open().
    """
    # Opened without waiting for a pipe's writer, and looked at when it is open: the name may change its file before.
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK | os.O_NOCTTY)
    try:
        status = os.fstat(descriptor)
        if streams and stat.S_ISFIFO(status.st_mode):
            os.set_blocking(descriptor, True)
        else:
            _check(status, limit)
        return _read(lambda size: os.read(descriptor, size), limit)
    finally:
        os.close(descriptor)


def read_stream(stream: BinaryIO, limit: int) -> bytes:
    """What comes from an open stream until its end; raises Refused where that is more than `limit` bytes."""
    return _read(stream.read, limit)


def unpacked(raw: bytes, limit: int) -> bytes:
    """The bytes that gzip packed; raises Refused for more than `limit`, EOFError, OSError or zlib.error as gzip."""
    with gzip.GzipFile(fileobj=io.BytesIO(raw)) as packed:
        data = packed.read(limit + 1)
    if len(data) > limit:
        raise Refused(f"unpacks to more than {limit // MIB} MiB, the limit; give a smaller file")
    return data


def check_file(path: Path, limit: int) -> None:
    """Raise Refused for what read_file would refuse: for files that a library opens by itself; OSError as stat()."""
    _check(path.stat(), limit)


def _check(status: os.stat_result, limit: int) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise IsADirectoryError
    if not stat.S_ISREG(status.st_mode):
        raise Refused("is a device or a pipe; give a regular file")
    if status.st_size > limit:
        raise too_large(limit)


def too_large(limit: int) -> Refused:
    """The refusal of what is longer than the limit."""
    return Refused(f"is larger than {limit // MIB} MiB, the limit; give a smaller file")


def _read(read: Callable[[int], bytes], limit: int) -> bytes:
    data = bytearray()
    while len(data) <= limit and (chunk := read(min(CHUNK, limit + 1 - len(data)))):
        data += chunk
    if len(data) > limit:
        raise too_large(limit)
    return bytes(data)
