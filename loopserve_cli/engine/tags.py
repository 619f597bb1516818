"""Thoughts between an opening and a closing tag, such as `<think>` and `</think>`."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from loopserve_cli.engine.detokenizer import MARK
from loopserve_cli.engine.splitter import Answer, Piece, Thoughts
from loopserve_cli.engine.stop_strings import held_back


@dataclass(frozen=True, slots=True)
class Tags:
    """What opens thoughts and what closes them, as the detokenizer writes it."""

    open: str
    close: str

    @property
    def special(self) -> bool:
        """Whether the opening is a special token, which no answer can hold as its text."""
        return self.open.startswith(MARK)


class TagSplitter:
    """Thoughts stand before the answer; only a special token opens them later too.

    So an answer that writes about `<think>` keeps its text. Thoughts that are never closed have no answer. An answer
    may stand between tags of its own, which are no text either.
    """

    def __init__(self, pairs: Sequence[Tags], wrappers: Sequence[Tags], parts: Sequence[str], prompt: str) -> None:
        """Begin after `prompt`, the end of what the model was given: it may have opened the tag already.

        `wrappers` are the tags that an answer may stand between, `parts` the special tokens that are no whole tag:
        they are erased wherever they stand alone.
        """
        self._parts = re.compile("|".join(map(re.escape, parts))) if parts else None
        self._pairs = pairs
        self._wrappers = wrappers
        self._wrapper: Tags | None = None
        self._thoughts, self._answer = Thoughts(), Answer()
        self._inside = next((tags for tags in pairs if prompt.rstrip().endswith(tags.open.rstrip())), None)
        self._answered = self._closed = self._over = False
        self._held = ""

    @property
    def thinking(self) -> bool:
        """Inside the tags."""
        return self._inside is not None

    @property
    def answering(self) -> bool:
        """Outside, and more than white space was said."""
        return self._inside is None and self._answered

    @property
    def undecided(self) -> bool:
        """The last letters may be a tag, or come before one; what parts thoughts from answer does not count."""
        return bool(self._held if self._inside is None and not self._closed else self._held.strip())

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain by now."""
        if self._over:
            return []
        self._held += text
        pieces: list[Piece] = []
        while self._held and (self._think(pieces) if self._inside else self._say(pieces)):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back."""
        rest, self._held = self._held, ""
        if self._inside is not None:
            return self._thoughts.write(self._erased(rest))
        return self._answer.write(self._erased(rest.rstrip("\n") if self._wrapper else rest))

    def _think(self, pieces: list[Piece]) -> bool:
        """Take thoughts up to their end; whether that has come."""
        assert self._inside is not None
        text, tags = self._held, self._inside
        if not self._thoughts.begun:
            start = text.lstrip()
            if start.startswith(tags.open):  # a model that opens again what its prompt has opened
                self._held = start[len(tags.open) :]
                return True
            if tags.open.startswith(start):
                return False
        thought, closed, rest = text.partition(tags.close)
        if not closed:
            keep = held_back(text, (tags.close,))
            thought, rest = text[: len(text) - keep], text[len(text) - keep :]
        pieces += self._thoughts.write(self._erased(thought))
        self._held = rest
        return self._close(tags) if closed else False

    def _say(self, pieces: list[Piece]) -> bool:
        """Take the answer up to where thoughts begin; whether they do."""
        if not self._answered:
            start = self._held.lstrip()
            for tags in self._pairs:
                if start.startswith(tags.open):
                    return self._open(tags, start[len(tags.open) :])
                if start.startswith(tags.close):  # the end of thoughts that were left out
                    self._held = start[len(tags.close) :]
                    return self._close(tags)
            wrappers = self._wrappers if self._closed else ()
            for tags in wrappers:
                if start.startswith(tags.open):
                    self._wrapper, self._held = tags, start[len(tags.open) :]
                    self._answer.begin()
                    return True
            tags_known = [tag for tags in self._pairs for tag in (tags.open, tags.close)]
            if any(tag.startswith(start) for tag in [*tags_known, *(tags.open for tags in wrappers)]):
                return False
            self._answered = True
        return self._say_wrapped(pieces) if self._wrapper else self._say_plainly(pieces)

    def _say_wrapped(self, pieces: list[Piece]) -> bool:
        """Take the answer up to the tag that ends it; what comes after that is no text."""
        assert self._wrapper is not None
        end = self._wrapper.close
        text, ended, _ = self._held.partition(end)
        self._over = bool(ended)
        keep = 0 if ended else held_back(text, (end,))
        said = text[: len(text) - keep].rstrip("\n")
        pieces += self._answer.write(self._erased(said))
        self._held = "" if ended else text[len(said) :]
        return False

    def _say_plainly(self, pieces: list[Piece]) -> bool:
        special = [tags for tags in self._pairs if tags.special]
        begins = {at: tags for tags in reversed(special) if (at := self._held.find(tags.open)) >= 0}
        if begins:
            at = min(begins)
            pieces += self._answer.write(self._erased(self._held[:at]))
            return self._open(begins[at], self._held[at + len(begins[at].open) :])
        keep = held_back(self._held, [tags.open for tags in special])
        pieces += self._answer.write(self._erased(self._held[: len(self._held) - keep]))
        self._held = self._held[len(self._held) - keep :]
        return False

    def _erased(self, text: str) -> str:
        return self._parts.sub("", text) if self._parts else text

    def _open(self, tags: Tags, rest: str) -> bool:
        self._inside, self._held = tags, rest
        self._thoughts.begin()
        return True

    def _close(self, tags: Tags) -> bool:
        self._inside, self._closed = None, True
        self._wrapper = next((wrapper for wrapper in self._wrappers if wrapper.open == tags.close), None)
        self._answer.begin()
        return True
