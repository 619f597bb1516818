"""Harmony, the messages that gpt-oss writes: which of them are thoughts, answers and calls of tools.

    <|channel|>analysis<|message|>…<|end|><|start|>assistant<|channel|>final<|message|>…<|return|>

Source: OpenAI, "Harmony response format" (github.com/openai/harmony, docs/format.md). The channel `analysis` is the
chain of thought; `final`, and `commentary` that goes to nobody in particular, are for the user; a message with a
recipient (`to=functions.name`) calls a tool. Some models have no channels, and think in messages to themselves
(`to=self`).
"""

from __future__ import annotations

import re
from collections.abc import Callable

from loopserve_cli.engine.detokenizer import MARK
from loopserve_cli.engine.splitter import Answer, Piece, Thoughts
from loopserve_cli.engine.stop_strings import held_back

START, CHANNEL, MESSAGE, END = "<|start|>", "<|channel|>", "<|message|>", "<|end|>"
HARMONY = (START, CHANNEL, MESSAGE, END, "<|return|>", "<|call|>", "<|constrain|>", "<|eom|>", "<|eot|>")
# The rest of a header whose role the prompt has written: nothing, or to whom the message goes.
ROLE_WRITTEN = re.compile(r"\s*(t|to|to=\S*\s*)?")
NOBODY = ("user", "all")
TO_ITSELF = "to=self"


class HarmonySplitter:
    """One message after another; roles, channels and other headers are no text.

    A call of a tool stands in the answer as a paragraph of its own, `[call functions.name] arguments`.
    """

    def __init__(self, word: Callable[[str], str], prompt: str) -> None:
        """Begin after `prompt`, the end of what the model was given, in the middle of a message.

        `word` is how the detokenizer writes one of Harmony's words: behind a MARK where it is a special token.
        """
        self._words = {name: word(name) for name in HARMONY}
        self._any = re.compile("|".join(map(re.escape, self._words.values())))
        self._thoughts, self._answer = Thoughts(), Answer()
        self._in_header = self._reasoning = self._answered = False
        self._held = ""
        self._role_written = False
        _, start, message = prompt.rpartition(self._words[START])
        if start:
            self._in_header = True
            self.feed(message)
            self._role_written = self._in_header and self._words[CHANNEL] not in self._held
            if self._role_written:
                self._held = ""
            self._answered = False

    @property
    def thinking(self) -> bool:
        """In a message of the channel `analysis`."""
        return not self._in_header and self._reasoning

    @property
    def answering(self) -> bool:
        """In a message for the user that has begun."""
        return not self._in_header and not self._reasoning and self._answered

    @property
    def undecided(self) -> bool:
        """The last letters may be one of Harmony's words."""
        return not self._in_header and bool(self._held)

    def feed(self, text: str) -> list[Piece]:
        """The pieces that are certain by now."""
        self._held += text
        pieces: list[Piece] = []
        while self._held and (self._read_header(pieces) if self._in_header else self._read_text(pieces)):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """What was held back; a header without its message says nothing."""
        rest, self._held = self._held, ""
        return [] if self._in_header else self._write(rest)

    def _read_header(self, pieces: list[Piece]) -> bool:
        """Take a header up to its end; whether that has come."""
        if self._role_written and not self._may_be_header():
            self._begin("", pieces)  # a model that does not speak Harmony: what it says is its answer
            return True
        header, found, rest = self._held.partition(self._words[MESSAGE])
        if found:
            self._held = rest
            self._begin(header.rpartition(self._words[START])[2], pieces)
        return bool(found)

    def _may_be_header(self) -> bool:
        found = self._any.search(self._held)
        keep = held_back(self._held, list(self._words.values())) if found is None else 0
        end = found.start() if found is not None else len(self._held) - keep
        return ROLE_WRITTEN.fullmatch(self._held[:end]) is not None

    def _begin(self, header: str, pieces: list[Piece]) -> None:
        """A message begins."""
        self._in_header = self._role_written = False
        _, _, after = header.partition(self._words[CHANNEL])
        found = re.search(rf"to=([^\s{MARK}<]+)", header)
        recipient = found.group(1) if found is not None and found.group(1) not in NOBODY else None
        analysis = re.match(r"\s*analysis\b", after) is not None and recipient is None
        self._reasoning = analysis or recipient == "self"
        (self._thoughts if self._reasoning else self._answer).begin()
        if recipient is not None and not self._reasoning:
            pieces += self._write(f"[call {recipient}] ")

    def _read_text(self, pieces: list[Piece]) -> bool:
        """Take a message's text up to its end; whether that has come."""
        found = self._any.search(self._held)
        if found is None:
            keep = held_back(self._held, list(self._words.values()))
            text, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
            pieces += self._write(text)
            return False
        pieces += self._write(self._held[: found.start()])
        word, self._held = found.group(), self._held[found.end() :]
        if word == self._words[CHANNEL]:  # a header that begins without the end of the message before it
            self._held = word + self._held
        if word != self._words[MESSAGE]:  # a second one in a message means nothing
            self._in_header = True
        return True

    def _write(self, text: str) -> list[Piece]:
        if self._reasoning:
            return self._thoughts.write(text)
        pieces = self._answer.write(text)
        self._answered = self._answered or bool(pieces)
        return pieces
