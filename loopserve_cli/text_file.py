"""A text file that a user names, read whole, or one line that says why not."""

from __future__ import annotations

from pathlib import Path

from loopserve_cli.errors import UsageError
from loopserve_cli.files import Refused, read_file


def read_text(path: Path, limit: int, not_a_folder: str, streams: bool = False) -> str:
    """The file's text without a byte order mark, at most `limit` bytes of it; with `streams` also a pipe's.

    Raises UsageError, which advises `not_a_folder` for a folder; where there is no file, FileNotFoundError.
    """
    try:
        return read_file(path, limit, streams).decode("utf-8-sig")
    except Refused as refusal:
        raise UsageError(f"{path}: {refusal}") from None
    except FileNotFoundError:
        raise
    except IsADirectoryError:
        raise UsageError(f"{path}: is a folder; {not_a_folder}") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be read: {error.strerror}; check its path and mode") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path}: is not UTF-8 text; save it as UTF-8") from None
