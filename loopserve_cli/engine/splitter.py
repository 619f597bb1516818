"""Telling what is thought from what is answered, in text that comes in pieces."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from loopserve_cli.engine.detokenizer import MARK


@dataclass(frozen=True, slots=True)
class Piece:
    """Some text of the thoughts (`reasoning`) or of the answer, never empty."""

    text: str
    reasoning: bool = False


class Splitter(Protocol):
    """Text with marks in, pieces out; how the text is cut changes nothing in what comes out altogether."""

    @property
    def thinking(self) -> bool:
        """Whether what comes next is thought."""

    @property
    def answering(self) -> bool:
        """Whether the answer has begun and goes on."""

    @property
    def undecided(self) -> bool:
        """Whether text is held back because it may become markup."""

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain by now."""

    def finish(self) -> list[Piece]:
        """What was held back, at the end of the turn."""


class Everything:
    """The splitter of a model that does not think aloud: all text is the answer's."""

    thinking = False
    answering = True
    undecided = False

    def feed(self, text: str) -> list[Piece]:
        """The text as it is."""
        return [Piece(text.replace(MARK, ""))] if text else []

    def finish(self) -> list[Piece]:
        """Nothing is held back."""
        return []


class Thoughts:
    """The text of all thoughts of a turn: newlines around each belong to the markup, an empty line parts them."""

    def __init__(self) -> None:
        """Nothing is thought yet."""
        self._any = self._begun = False
        self._newlines = ""

    @property
    def begun(self) -> bool:
        """Whether this thought has text."""
        return self._begun

    def begin(self) -> None:
        """A thought begins, perhaps not the first."""
        self._begun, self._newlines = False, ""

    def write(self, text: str) -> list[Piece]:
        """Go on with the thought; newlines at its end wait for what follows them."""
        text = text.replace(MARK, "")
        text = self._newlines + text if self._begun else text.lstrip("\n")
        said = text.rstrip("\n")
        if not said:
            self._newlines = text if self._begun else ""
            return []
        self._newlines = text[len(said) :]
        parting = "\n\n" if self._any and not self._begun else ""
        self._any = self._begun = True
        return [Piece(parting + said, reasoning=True)]


class Answer:
    """The text of the answer, perhaps in several parts with thoughts between them."""

    def __init__(self) -> None:
        """Nothing is said yet."""
        self._last = ""
        self._bare = self._parted = False

    def begin(self) -> None:
        """A part begins behind markup: newlines before the first belong to it, a later one is never glued to it."""
        self._bare = not self._last
        self._parted = bool(self._last)

    def write(self, text: str) -> list[Piece]:
        """Go on with the answer."""
        text = text.replace(MARK, "")
        if self._bare:
            text = text.lstrip("\n")
        if not text:
            return []
        if self._parted and not self._last.isspace() and not text[0].isspace():
            text = "\n\n" + text
        self._last, self._bare, self._parted = text[-1], False, False
        return [Piece(text)]
