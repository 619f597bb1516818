"""/lines: which lines the last prefill that chose any computes, as tables and as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from loopserve_cli.chat import lines_view
from loopserve_cli.chat.commands.command import path_argument
from loopserve_cli.chat.figures import UNKNOWN
from loopserve_cli.chat.session import Session
from loopserve_cli.errors import UsageError
from loopserve_cli.policy_settings import BLOCK_POLICIES

if TYPE_CHECKING:
    from loopserve_cli.policies.prefill import ChosenLines

USAGE = "/lines [LAYER [HEAD]] [--png FILE]"
PNG = "--png"


def lines(session: Session, argument: str) -> None:
    """A table of layers; of a layer a table of heads; of a head its lines, drawn, or written as a picture."""
    words, png = _parsed(argument)
    found = session.conversation.engine.lines
    numbers = [_number(word, name) for word, name in zip(words, ("LAYER", "HEAD"), strict=False)]
    if found is None or not found.any:
        session.data(f"{UNKNOWN}: {_why_none(session)}")
        return
    for number, name, count in zip(numbers, ("layer", "head"), (found.layers, found.heads), strict=False):
        if number >= count:
            raise UsageError(f"there is no {name} {number}; they are 0 to {count - 1}")
    session.data(lines_view.heading(found, session.conversation.began()))
    if png is not None:
        _write(session, found, numbers, png)
    elif not numbers:
        session.data(lines_view.layers(found, session.out.width))
    elif len(numbers) == 1:
        session.data(lines_view.heads(found, numbers[0], session.out.width))
    else:
        size = session.out.size
        session.data(lines_view.drawing(found, numbers[0], numbers[1], size.width, size.height))


def choices(session: Session, before: list[str]) -> list[str]:
    """A layer, then a head, then a picture's flag."""
    found = session.conversation.engine.lines
    if found is None or PNG in before:
        return []
    if len(before) > 1:
        return [PNG]
    return [str(number) for number in range((found.layers, found.heads)[len(before)])]


def _parsed(argument: str) -> tuple[list[str], str | None]:
    """The words before --png, and the file that follows it."""
    before, flag, after = f"{argument} ".partition(f"{PNG} ")
    words = before.split()
    if len(words) > 2:
        raise UsageError(f"too many words; {USAGE}")
    if flag and len(words) < 2:
        raise UsageError("which head? /lines LAYER HEAD --png FILE")
    return words, after.strip() if flag else None


def _number(word: str, name: str) -> int:
    if not word.isascii() or not word.isdecimal():
        raise UsageError(f"{name} is {word[:40]!r}, but must be a number; {USAGE}")
    return int(word[:9])


def _why_none(session: Session) -> str:
    """Why there is nothing to show."""
    engine = session.conversation.engine
    if engine.profile.prefill.policy == "dense":
        return f"profile {engine.profile.name} chooses no lines: its prefill is dense"
    if engine.profile.prefill.policy in BLOCK_POLICIES:
        by_head = "`loopserve replay --out` keeps their density by head"
        return f"profile {engine.profile.name} chooses blocks, not lines; {by_head}"
    return (
        "no prefill of what the cache holds has chosen lines; one does where many new tokens meet a long dialogue "
        "(prefill.min_new, prefill.min_keys)"
    )


def _write(session: Session, found: ChosenLines, numbers: list[int], name: str) -> None:
    """The head's picture; a file that is there stays."""
    path = path_argument(name, "/lines LAYER HEAD --png FILE")
    if path.suffix.lower() != ".png":
        raise UsageError(f"{path}: the picture is a PNG; give a name that ends in .png")
    layer, head = numbers
    picture = lines_view.picture(found, layer, head)
    _save(path, picture)
    session.note(f"{path}: lines of layer {layer}, head {head}; the darker, the more of a spot's cells lie on them")


def _save(path: Path, data: bytes) -> None:
    try:
        with path.open("xb") as file:
            file.write(data)
    except FileExistsError:
        raise UsageError(f"{path} exists already; give another name") from None
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror}; give another name") from None
