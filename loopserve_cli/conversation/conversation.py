"""A growing dialogue: what is said, asked, taken back and put in its place.

Every turn the whole dialogue is rendered with the chat template, and the ids the engine already holds
are compared with it (see `prefix`). So undo, edit, a changed system prompt, a recorded answer in place of a
generated one, and templates that rewrite earlier turns (Qwen3 drops old thinking) are all one mechanism, and a
resumed dialogue is fed exactly as one that never stopped.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from loopserve_cli.config import SamplingOptions
from loopserve_cli.conversation.answer import answer_ids
from loopserve_cli.conversation.prefix import CachedPrefix, Segment, common_prefix
from loopserve_cli.engine.events import Event, PrefillProgress, Token, TurnDone
from loopserve_cli.errors import UsageError
from loopserve_cli.messages import Message
from loopserve_cli.template import Template
from loopserve_cli.template.clock import parse_date
from loopserve_cli.transcript.read import to_stderr

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.profile import Profile


class Conversation:
    """A growing dialogue on one engine."""

    def __init__(
        self,
        engine: Engine,
        system: str | None = None,
        conversation_id: str | None = None,
        tools: Sequence[Mapping[str, Any]] = (),
        date: str | None = None,
        warn: Callable[[str], None] = to_stderr,
        special_tokens: bool = False,
    ) -> None:
        """Start an empty dialogue; the engine's store is emptied.

        `tools` and `date` (ISO 8601, local; None: now) are what the template is told of them, `warn` hears what it
        leaves out, and `special_tokens` lets control tokens in what is said stand as such. Raises UsageError for a
        template that cannot be used.
        """
        self.engine = engine
        self.tools = tuple(tools)
        self._special_tokens = special_tokens
        self._warn = warn
        self.template = self._template(date)
        self.id = conversation_id or uuid.uuid4().hex[:12]
        self.messages: list[Message] = []
        self._prefix = CachedPrefix(engine)
        self.set_system(system)
        engine.reset()

    @property
    def system(self) -> str | None:
        """The system prompt, if there is one."""
        first = self.messages[0] if self.messages else None
        return first.content if first is not None and first.role == "system" else None

    @property
    def turns(self) -> int:
        """How many user messages the dialogue has, with those that are forgotten."""
        return sum(m.role == "user" for m in self.messages)

    @property
    def _begun(self) -> bool:
        """Whether there is a user message to read: some templates refuse a dialogue without one."""
        return any(m.role == "user" and not m.forgotten for m in self.messages)

    @property
    def date(self) -> str:
        """When the dialogue began, ISO 8601, local time: the date that the template writes."""
        return self.template.date.isoformat()

    def begin(self, date: str | None = None, tools: Sequence[Mapping[str, Any]] = ()) -> None:
        """Be a dialogue of that date (None: now) with those tools; the next turn feeds again what that changes."""
        self.tools = tuple(tools)
        self.template = self._template(date)

    def _template(self, date: str | None) -> Template:
        """The model's template for this dialogue; what it leaves out of the tools is told."""
        when = None if date is None else parse_date(date)
        template = Template(self.engine.tokenizer, self.tools, when, self._special_tokens)
        left_out = template.tools_left_out if self.tools else []
        if left_out:
            self._warn(f"the model's chat template leaves out the dialogue's tools: {', '.join(left_out)}")
        return template

    def set_system(self, text: str | None) -> None:
        """Change the system prompt, or remove it by a blank one; the next turn feeds again what that changes."""
        rest = self.messages[1:] if self.system is not None else self.messages
        self.messages = [Message("system", text), *rest] if text and text.strip() else list(rest)

    def ask(
        self, text: str, sampling: SamplingOptions, cancelled: Callable[[], bool] = lambda: False
    ) -> Iterator[Event]:
        """Say `text` and yield the turn's events; the last, `TurnDone`, carries the whole record.

        The user message counts as said at once; the answer joins the dialogue when the turn ends, also
        when it was cancelled. If the turn fails (ContextLimitError, out of memory), or if its iterator is
        closed early, the dialogue is as before.
        """
        before = list(self.messages)
        submitted = time.perf_counter()
        self.messages.append(Message("user", text))
        try:
            new_ids, rolled_back = self._reconcile(generation_prompt=True)
            self._prefix.begin_turn(self.turns - 1)
            segments = self._segments(new_ids)
            # The end of the last answer goes with the question; whole turns that were lost go before it.
            if len([begins for begins, _ in segments if begins]) > 1:
                *lost, (_, new_ids) = segments
                self._prefix.feed(lost)
            tokenize_ms = (time.perf_counter() - submitted) * 1e3
            answer: list[str] = []
            thoughts: list[str] = []
            for event in self.engine.turn(new_ids, sampling, cancelled, submitted):
                if isinstance(event, Token):
                    (thoughts if event.reasoning else answer).append(event.text)
                if not isinstance(event, TurnDone):
                    yield event
                    continue
                reasoning = "".join(thoughts) or None
                record = replace(
                    event.record,
                    conversation_id=self.id,
                    turn=self.turns,
                    tokens_rolled_back=rolled_back + (event.record.tokens_rolled_back or 0),
                    tokenize_ms=tokenize_ms,
                    output_text="".join(answer),
                    reasoning_text=reasoning,
                )
                partial = record.finish_reason == "cancelled"
                self.messages.append(Message("assistant", "".join(answer), partial, record, reasoning))
                before = list(self.messages)
                yield replace(event, record=record)
        finally:
            self.messages = before
            self._prefix.return_to(self.turns)

    def replace_answer(self, text: str, reasoning: str | None = None) -> None:
        """Put a recorded answer, and what was thought before it, in place of the generated one and prefill it.

        This is outside any turn's time.
        """
        if not self.messages or self.messages[-1].role != "assistant":
            raise UsageError("there is no answer to replace")
        self.messages[-1] = replace(self.messages[-1], content=text, partial=False, reasoning=reasoning)
        self.prefill()

    def answer_ids(self, text: str, reasoning: str | None = None, partial: bool = False) -> list[int]:
        """The ids with which the model would say `text` as its last answer, up to the token that ends it.

        A `partial` answer ends without that token. Empty where the template writes what was said before otherwise
        once there is an answer.
        """
        assert self.messages and self.messages[-1].role == "assistant"
        answer = Message("assistant", text, partial, reasoning=reasoning)
        return answer_ids(self.template, self.messages[:-1], answer, self.engine.stop_ids)

    def prefill(self) -> None:
        """Feed what the engine does not hold yet, without generating; nothing is fed before the first message."""
        if self._begun:
            self._prefix.feed(self._segments(self._reconcile(generation_prompt=False)[0]))

    def prefill_progress(self) -> Iterator[PrefillProgress]:
        """As `prefill`, with progress in tokens of the whole dialogue; closed early, it keeps what was fed."""
        if self._begun:
            yield from self._prefix.feed_progress(self._segments(self._reconcile(generation_prompt=False)[0]))

    def take_up(self, path: Path) -> int:
        """Hold what a saved cache has of this dialogue, as far as they agree; how many tokens, 0 if as many are held.

        Raises LoopserveError, in one line, for a file that is damaged or another model's, or has little of it.
        """
        full = self.template.ids(self.messages, generation_prompt=False, limit=self.engine.context_limit)
        return self._prefix.take_up(path, full)

    def settle(self) -> int:
        """Forget what the engine holds beyond the dialogue as it is now; how many tokens that were."""
        return self._prefix.roll_back(self._ids())

    @property
    def missing(self) -> int:
        """How many tokens of the dialogue so far the engine does not hold."""
        return self._prefix.missing(self._ids())

    def _ids(self) -> list[int]:
        """The whole dialogue as the template writes it; nothing before the first message."""
        return self.template.ids(self.messages, generation_prompt=False) if self._begun else []

    @contextmanager
    def aside(self, profile: Profile | None = None) -> Iterator[None]:
        """What is said or taken back inside, perhaps under another profile, is afterwards as if it had not been.

        See `Engine.aside`: another profile has the same tier, which does not evict.
        """
        messages = list(self.messages)
        with self._prefix.aside(profile):
            try:
                yield
            finally:
                self.messages = messages

    def begin_turn_anew(self) -> str | None:
        """Be as before the last turn was asked, its message's first token fed by the next; its text, None without one.

        Unlike `undo`, which lets full attention keep what the store has of the message.
        """
        if not self.turns:
            return None
        began = self.began()[-1]
        text = self.undo()
        if began < len(self.engine.tokens):
            self._prefix.rewind(began)
        return text

    def began(self) -> list[int]:
        """Of every turn, how many of the tokens that the engine holds come before it; ascending."""
        return self._prefix.began(self.template, self.messages)

    def undo(self) -> str | None:
        """Take back the last exchange and forget its keys; returns its user text, or None if there was none."""
        last = max((i for i, m in enumerate(self.messages) if m.role == "user"), default=None)
        if last is None:
            return None
        text = self.messages[last].content
        self.messages = self.messages[:last]
        # Where nothing is held a dialogue that is too long would be tokenised for nothing.
        self._prefix.roll_back(self._ids() if self.engine.tokens else [])
        self._prefix.return_to(self.turns)
        return text

    def load(self, messages: list[Message]) -> None:
        """Replace the whole dialogue; what the engine holds of it already is kept."""
        agreed = messages[: common_prefix(self.messages, messages)]
        self.messages = list(messages)
        self._prefix.return_to(sum(m.role == "user" for m in agreed))

    def clear(self) -> None:
        """Forget everything but the system prompt and the tools; the dialogue that begins has a new date."""
        self.messages = self.messages[:1] if self.system is not None else []
        self.begin(tools=self.tools)
        self._prefix.clear()

    def _reconcile(self, generation_prompt: bool) -> tuple[list[int], int]:
        """Roll the engine back to where it agrees with the template; the ids to feed and how many were undone."""
        full = self.template.ids(self.messages, generation_prompt, self.engine.context_limit)
        rolled_back = self._prefix.roll_back(full[:-1] if generation_prompt else full)
        return full[len(self.engine.tokens) :], rolled_back

    def _segments(self, new_ids: list[int]) -> list[Segment]:
        return self._prefix.segments(self.template, self.messages, new_ids)
