"""One chat: the dialogue, how it samples, where it is saved and how it is shown; and what a turn does to them."""

from __future__ import annotations

import contextlib
import traceback
from collections.abc import Callable, Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import cast

from rich.console import Console, RenderableType
from rich.text import Text

from loopserve_cli.chat.autosave import Autosave
from loopserve_cli.chat.change import ttft_change
from loopserve_cli.chat.figures import count, turn_line
from loopserve_cli.chat.fullness import check_length, make_room
from loopserve_cli.chat.initial_settings import InitialSettings
from loopserve_cli.chat.interrupts import Interrupts, quiet_keyboard
from loopserve_cli.chat.newcomer import asides
from loopserve_cli.chat.shown import NotShown, Shown
from loopserve_cli.chat.view import View, is_plain, show
from loopserve_cli.chat.wait_bar import WaitBar, tokens
from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.events import Event, PrefillProgress, TurnDone
from loopserve_cli.engine.layerwise import told_within
from loopserve_cli.errors import ContextLimitError, LoopserveError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.printable import printable
from loopserve_cli.stats import TurnRecord
from loopserve_cli.transcript.open_file import Stamp


@dataclass(frozen=True, slots=True)
class Attachment:
    """A file's text that goes in front of the next message."""

    name: str
    text: str


class Session:
    """What the commands and the loop work on. Answers and data go to `out`, everything else to `err`."""

    def __init__(
        self,
        conversation: Conversation,
        sampling: SamplingOptions,
        autosave: Autosave,
        view: View,
        out: Console,
        err: Console,
        interrupts: Interrupts | None = None,
    ) -> None:
        """Begin with the conversation as it is."""
        self.conversation = conversation
        self.sampling = sampling
        self.autosave = autosave
        self.view = view
        others = {"thinking": "show" if view.shows_thinking else "hide", "turn_line": "on"}
        self.initial = InitialSettings(sampling, conversation.engine.profile, others)
        self.out = out
        self.err = err
        self.interrupts = interrupts or Interrupts()
        self.records = [m.record for m in conversation.messages if m.record is not None]
        self.attachments: list[Attachment] = []
        self.next_input = ""
        self.unanswered: str | None = None
        self.copies: dict[Path, Stamp] = {}
        self.closing = False
        self.debug = False
        self.turn_line = True
        self.on_full = "stop"
        self.single = False  # one turn and no prompt after it: an error is then the only line
        self.examples = 0

    def data(self, renderable: RenderableType) -> None:
        """Print what was asked for."""
        self.out.print(Text(printable(renderable)) if isinstance(renderable, str) else renderable)

    def note(self, line: str, between_words: bool = False) -> None:
        """Say something by the way, in one dim line; on a narrow terminal it may be told to break between words."""
        self.err.print(Text(printable(line), style="dim"), soft_wrap=not (between_words and self.err.is_terminal))

    def warn(self, line: str) -> None:
        """Say something that the user should not miss."""
        self.err.print(Text(printable(line), style="yellow"), soft_wrap=True)

    def complain(self, error: Exception) -> None:
        """Say what is wrong, in one line; of an error that nobody foresaw also its kind, and with --debug where."""
        line = str(error)
        if not isinstance(error, LoopserveError | NotShown):
            first = line.strip().partition("\n")[0]
            line = f"{type(error).__name__}: {first} (--debug shows the traceback)"
            if self.debug:
                self.err.print(Text(printable("".join(traceback.format_exception(error)))), soft_wrap=True)
        self.err.print(Text(printable(f"error: {line}"), style="red"), soft_wrap=True)

    def state(self) -> Callable[[], None]:
        """Remember the dialogue as it is; what is returned puts it back, and the file with it."""
        conversation, autosave = self.conversation, self.autosave
        messages, template, tools = list(conversation.messages), conversation.template, conversation.tools
        unanswered, attachments, records = self.unanswered, list(self.attachments), list(self.records)

        def put_back() -> None:
            self.autosave, self.unanswered, self.attachments, self.records = autosave, unanswered, attachments, records
            conversation.template, conversation.tools = template, tools
            conversation.load(messages)
            self.sync()

        return put_back

    @property
    def plain(self) -> bool:
        """Whether nothing may be drawn on `err`."""
        return is_plain(self.err)

    @property
    def model(self) -> str:
        """The model's name."""
        return self.conversation.engine.model_name

    @property
    def last(self) -> TurnRecord | None:
        """What the newest turn measured."""
        return self.records[-1] if self.records else None

    def standing(self) -> list[bool]:
        """Of every record, whether its turn still stands, rather than being taken back."""
        held = {id(message.record) for message in self.conversation.messages}
        return [id(record) in held for record in self.records]

    def sync(self) -> None:
        """Bring the transcript on disk up to date."""
        waiting = [Message("user", self.unanswered)] if self.unanswered is not None else []
        self.autosave.sync([*self.conversation.messages, *waiting])

    def ask(self, text: str) -> TurnRecord | None:
        """Send a message, with what is attached before it; None if it was stopped before the answer began.

        Raises LoopserveError when the turn fails; the dialogue is then as before.
        """
        attached, self.attachments = self.attachments, []
        whole = "\n\n".join([*(a.text.rstrip("\n") for a in attached), text])
        try:  # looked at before it is written to the file, which may be long
            check_length(self, whole)
            record = self._turn(whole, list(self.conversation.messages))
        except ContextLimitError:
            self.next_input, self.attachments = text, attached  # to be shortened and asked again
            raise
        except LoopserveError:
            if attached:
                self.note(f"attached no more: {', '.join(a.name for a in attached)}")
            raise
        if record is None:
            self.next_input, self.attachments = text, attached
        return record

    def retry(self) -> TurnRecord | None:
        """Ask the last message again in place of its answer; the old answer comes back if that fails."""
        before = list(self.conversation.messages)
        text = self.unanswered if self.unanswered is not None else self.conversation.undo()
        if text is None:
            raise UsageError("there is no message to ask again")
        record = self._turn(text, before)
        if record is None:
            self.note("stopped before the answer began; the dialogue is as it was")
        return record

    def take_back(self) -> str:
        """Undo the last exchange, or let go of a message that has no answer; returns the message."""
        text = self.unanswered if self.unanswered is not None else self.conversation.undo()
        if text is None:
            raise UsageError("there is nothing to take back")
        self.unanswered = None
        self.sync()
        return text

    def feed(self) -> None:
        """Prefill the history, outside any turn's time; Ctrl-C leaves the rest to the next turn."""
        if not self.conversation.turns:
            return
        bar = WaitBar(self.err, "prefill", tokens, disable=self.plain)
        with self.interrupts.catching() as cancelled, bar:
            progress = cast("Generator[PrefillProgress]", self.conversation.prefill_progress())
            total = None

            def within(event: PrefillProgress) -> None:
                before = event.cached or 0
                bar.show(before + event.done, total or before + event.total)

            stopped = contextlib.suppress(KeyboardInterrupt)  # pressed twice before there was an event
            told = told_within(self.conversation.engine, within)
            with told, contextlib.closing(progress) as events, stopped, self.interrupts.raising() as begun:
                for event in events:
                    begun()
                    total = event.total
                    bar.show(event.done, event.total)
                    if cancelled():
                        break
        held = len(self.conversation.engine.tokens)
        in_cache = f"{count(held)} of {count(total or held)} tokens of history are in the cache"
        self.note(in_cache + ("; the next turn prefills the rest" if total and held < total else ""))

    def _turn(self, text: str, before: list[Message]) -> TurnRecord | None:
        """One turn; unless it leaves an answer, the dialogue is put back to `before`. Ctrl-C only stops the answer.

        Where the terminal is gone, or the program was told to end, the message stays, to be asked again.
        """
        with quiet_keyboard(), self.interrupts.catching(self.view.stopping) as cancelled:
            waiting, self.unanswered = self.unanswered, text
            anew = self.conversation.messages == before  # else the file keeps the old answer until there is a new one
            if anew:
                self.sync()
            record: TurnRecord | None = None
            shown = Shown()
            kept = False
            try:
                make_room(self, text)
                record = self.generate(text, lambda: shown.gone is not None or cancelled(), shown)
                kept = record is not None and (record.finish_reason != "cancelled" or bool(record.output_text))
            except KeyboardInterrupt:  # pressed twice while nothing asked for it
                record = None
            finally:
                self.unanswered = None
                if not kept:
                    self.conversation.load(before)
                    ending = shown.gone is not None or self.interrupts.ending is not None
                    self.unanswered = text if anew and ending else waiting
                self.sync()
            if record is not None and kept:
                self.records.append(record)
            if shown.gone is not None:
                raise NotShown(shown.gone) from shown.gone
            if record is None or not kept:
                return None
            if self.turn_line:
                self.note(turn_line(record, ttft_change(self.conversation.messages)), between_words=True)
            for line in asides(self.model, text):
                self.note(line)
            if record.finish_reason == "length" and record.tokens_reasoning and not record.output_text:
                self.warn("all of it was thought, and there is no answer; a larger max_new_tokens leaves room for one")
            return record

    def generate(self, text: str, cancelled: Callable[[], bool], shown: Shown) -> TurnRecord | None:
        """Run the turn and show it. Until it tells of itself, a second Ctrl-C raises KeyboardInterrupt."""
        record = None
        turn = cast("Generator[Event]", self.conversation.ask(text, self.sampling, cancelled))
        # Closed here, and not when it is collected: it puts the dialogue back as it found it.
        with contextlib.closing(turn) as events:
            shown.draw(self.view.begin)
            try:
                draw = partial(show, self.view)
                within = told_within(self.conversation.engine, lambda event: shown.draw(partial(draw, event)))
                with within, self.interrupts.raising() as begun:
                    for event in events:
                        begun()
                        shown.draw(partial(draw, event))
                        if isinstance(event, TurnDone):
                            record = event.record
            finally:
                shown.draw(self.view.end)
        return None if record is None else self._with_drawing(record, shown.ms)

    def _with_drawing(self, record: TurnRecord, milliseconds: float) -> TurnRecord:
        """The record, there and in the dialogue, with what showing the turn took."""
        whole = replace(record, ui_ms=milliseconds)
        messages = self.conversation.messages
        if messages and messages[-1].record is record:
            messages[-1] = replace(messages[-1], record=whole)
        return whole
