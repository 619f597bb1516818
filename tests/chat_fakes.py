"""What chat needs, small enough to read: an engine that says what it is told to, and a terminal's screen."""

from __future__ import annotations

import contextlib
import io
import json
import re
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from types import SimpleNamespace

from rich.console import Console

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.interrupts import Interrupts
from loopserve_cli.chat.session import Session
from loopserve_cli.chat.view import PlainView
from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.events import Event, PrefillProgress, Token, TurnDone
from loopserve_cli.engine.gauges import Gauges
from loopserve_cli.errors import ContextLimitError, LoopserveError
from loopserve_cli.policies.prefill import ChosenLines
from loopserve_cli.profile import PolicyOptions, Profile
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript import Header

FULL = Profile("full", "full attention", PolicyOptions("dense"), PolicyOptions("everything"))


class LetterTokenizer:
    """One id per character; roles are private-use characters."""

    chat_template = "role, text, end"
    all_special_tokens = ["\ue000", "\ue001", "\ue002", "\ue003"]
    added_tokens_decoder: dict[int, object] = {}
    marks = {"system": "\ue000", "user": "\ue001", "assistant": "\ue002"}

    def apply_chat_template(self, rows: list[dict[str, str]], tokenize: bool, add_generation_prompt: bool) -> str:
        text = "".join(f"{self.marks[row['role']]}{row['content']}\ue003" for row in rows)
        return text + ("\ue002" if add_generation_prompt else "")

    def __call__(self, text: str, add_special_tokens: bool) -> SimpleNamespace:
        return SimpleNamespace(input_ids=[ord(letter) for letter in text])


class ScriptedEngine:
    """Gives the next of `answers`, a word at a time; keeps what it was fed.

    `at_word(n)` is called before the answer's n-th word, and with -1 before prefill: a test presses keys
    there, or raises. With `thoughts` it thinks them before every answer.
    """

    model_name = "fake"
    device = "cpu"
    dtype = "float32"
    freezes = False

    def __init__(self, *answers: str, context_limit: int | None = 1000) -> None:
        self.answers = list(answers)
        self.context_limit = context_limit
        self.tokenizer = LetterTokenizer()
        self.tokens: list[int] = []
        self.profile = FULL
        self.asked: list[str] = []
        self.samplings: list[SamplingOptions] = []
        self.at_word: Callable[[int], None] = lambda number: None
        self.made_otherwise: list[str] = []
        self.loads = 0
        self.thoughts = ""
        self.bytes_each = 1024
        self.read: list[list[float] | None] | None = None
        self.lines: ChosenLines | None = None
        self.keeps_lines = False

    @property
    def held(self) -> str:
        return "".join(map(chr, self.tokens))

    def gauges(self) -> Gauges:
        return Gauges(len(self.tokens), rss_bytes=3 * 2**20, kv_used_host_bytes=self.bytes_each * len(self.tokens))

    def set_profile(self, profile: Profile) -> None:
        self.profile = profile

    def reset(self) -> None:
        self.tokens.clear()

    def rewind(self, length: int) -> None:
        assert 0 <= length <= len(self.tokens)
        del self.tokens[length:]

    def read_between(self, cuts: Sequence[int]) -> list[list[float] | None] | None:
        assert list(cuts) == sorted(cuts)
        return self.read

    @contextlib.contextmanager
    def aside(self, profile: Profile | None = None) -> Iterator[None]:
        before = list(self.tokens), self.profile
        self.profile = profile or self.profile
        try:
            yield
        finally:
            self.tokens[:], self.profile = before

    def save(self, path: Path) -> int:
        return path.write_text(f"{self.model_name} {self.tokens}")

    def saved(self, path: Path) -> SimpleNamespace:
        model, _, tokens = path.read_text().partition(" ")
        if model != self.model_name:
            raise LoopserveError(f"{path} was saved with another model ({model}, now {self.model_name})")
        return SimpleNamespace(tokens=json.loads(tokens))

    def restore(self, saved: SimpleNamespace) -> None:
        self.loads += 1
        self.tokens[:] = saved.tokens

    def feed(self, ids: list[int]) -> None:
        self.tokens += ids

    def feed_progress(self, ids: list[int]) -> Iterator[PrefillProgress]:
        for first in range(0, len(ids), 10):
            self.tokens += ids[first : first + 10]
            yield PrefillProgress(min(first + 10, len(ids)), len(ids))

    def turn(
        self, ids: list[int], sampling: SamplingOptions, cancelled: Callable[[], bool], submitted: float
    ) -> Iterator[Event]:
        cached = len(self.tokens)
        if self.context_limit is not None and cached + len(ids) > self.context_limit:
            raise ContextLimitError("the dialogue is too long for fake")
        self.samplings.append(sampling)
        self.at_word(-1)
        self.tokens += ids
        self.asked.append(self.held.rpartition("\ue001")[2].partition("\ue003")[0])
        yield PrefillProgress(len(ids), len(ids))
        thought, answer = (re.findall(r"\s*\S+\s*?", text) for text in (self.thoughts, self.answers.pop(0)))
        finish, said = "stop", 0
        for number, word in enumerate([*thought, *answer]):
            self.at_word(number)
            if cancelled():
                finish = "cancelled"
                break
            self.tokens += [ord(letter) for letter in word]
            said += 1
            yield Token(number, word, reasoning=number < len(thought))
        yield TurnDone(
            TurnRecord(
                profile=self.profile.name,
                tokens_new=len(ids),
                tokens_cached=cached,
                tokens_logical=len(self.tokens),
                tokens_output=said,
                finish_reason=finish,
                tokens_reasoning=min(said, len(thought)) if thought else None,
                ttft_ms=12.0,
                first_answer_ms=12.0 + len(thought) if said > len(thought) else None,
                rss_bytes=3 * 2**20,
            )
        )


def make_session(*answers: str, save: Path | None = None, **engine: int | None) -> Session:
    """A session on a scripted engine; what it prints is in `printed`."""
    conversation = Conversation(ScriptedEngine(*answers, **engine))  # type: ignore[arg-type]
    out = Console(file=io.StringIO(), width=200, markup=False, highlight=False)
    err = Console(file=io.StringIO(), width=200, markup=False, highlight=False)
    session = Session(conversation, SamplingOptions(), Autosave.off(), PlainView(out.file), out, err, Interrupts())  # type: ignore[arg-type]
    if save is not None:
        session.autosave = Autosave.new(save, Header("fake", "full", id=conversation.id), session.warn)
    return session


def engine_of(session: Session) -> ScriptedEngine:
    return session.conversation.engine  # type: ignore[return-value]


def printed(session: Session) -> tuple[str, str]:
    """What went to stdout and to stderr since the last call."""
    texts = []
    for console in (session.out, session.err):
        assert isinstance(console.file, io.StringIO)
        texts.append(console.file.getvalue())
        console.file.seek(0)
        console.file.truncate()
    return texts[0], texts[1]


def dialogue_of(session: Session) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in session.conversation.messages]


class Screen:
    """The lines that a terminal would show: text, newlines, carriage returns, cursor up, erase in line."""

    def __init__(self, output: str) -> None:
        self.lines = [""]
        self.row = self.column = 0
        for text, control in re.findall(r"([^\x1b\r\n]+)|(\x1b\[[?\d;]*[A-Za-z]|\r|\n)", output):
            self._type(text) if text else self._act(control)

    def _type(self, text: str) -> None:
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + text + line[self.column + len(text) :]
        self.column += len(text)

    def _act(self, control: str) -> None:
        if control == "\n":
            self.row, self.column = self.row + 1, 0
            self.lines += [""] * (self.row + 1 - len(self.lines))
        elif control == "\r":
            self.column = 0
        elif control.endswith("A"):
            self.row -= int(control[2:-1] or 1)
            assert self.row >= 0
        elif control == "\x1b[2K":
            self.lines[self.row] = ""
        else:
            assert control[-1] in "mhl", control

    @property
    def text(self) -> str:
        return "\n".join(line.rstrip() for line in self.lines).rstrip("\n")
