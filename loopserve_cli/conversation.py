"""A dialogue: messages on one side, the engine's token ids on the other, and the template between them.

Every turn the whole dialogue is rendered with the chat template, and the ids the engine already holds
are compared with it: what agrees stays, what differs is rolled back, and only the rest is fed. So undo,
edit, a changed system prompt, a recorded answer in place of a generated one, and templates that rewrite
earlier turns (Qwen3 drops old thinking) are all one mechanism, and a resumed dialogue is fed exactly as
one that never stopped.
"""

from __future__ import annotations

import itertools
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.events import Event, PrefillProgress, Token, TurnDone
from loopserve_cli.errors import LoopserveError, UsageError
from loopserve_cli.messages import Message
from loopserve_cli.template import Template
from loopserve_cli.template.clock import parse_date
from loopserve_cli.transcript.read import to_stderr

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.profile import Profile


# Two dialogues agree in what the template writes first, and a saved cache is read whole or not at all.
LEAST_SHARE = 0.1

T = TypeVar("T")


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
        self._begins: dict[int, int] = {}  # by turns before it, what the engine held when a turn began
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
            self._begins[self.turns - 1] = len(self.engine.tokens)
            segments = self._segments(new_ids)
            # The end of the last answer goes with the question; whole turns that were lost go before it.
            if len([begins for begins, _ in segments if begins]) > 1:
                *lost, (_, new_ids) = segments
                for begins, part in lost:
                    self._feed(begins, part)
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
            self._return_to(self.turns)

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
        asked = self.messages[:-1]
        prompt = self.template.ids(asked, generation_prompt=True)
        whole = self.template.ids([*asked, Message("assistant", text, reasoning=reasoning)], generation_prompt=False)
        said = common_prefix(self.template.ids(asked, generation_prompt=False), prompt)
        begins = common_prefix(prompt, whole)
        if begins < said:
            return []
        answer = whole[begins:]
        end = next((place for place, token in enumerate(answer) if token in self.engine.stop_ids), len(answer))
        return answer[: end if partial else end + 1]

    def prefill(self) -> None:
        """Feed what the engine does not hold yet, without generating; nothing is fed before the first message."""
        if self._begun:
            for begins, part in self._segments(self._reconcile(generation_prompt=False)[0]):
                self._feed(begins, part)

    def prefill_progress(self) -> Iterator[PrefillProgress]:
        """As `prefill`, with progress in tokens of the whole dialogue; closed early, it keeps what was fed."""
        if not self._begun:
            return
        new_ids, _ = self._reconcile(generation_prompt=False)
        total = len(self.engine.tokens) + len(new_ids)
        for begins, part in self._segments(new_ids):
            if begins:
                self.engine.begin_segment()
            held = len(self.engine.tokens)
            for progress in self.engine.feed_progress(part):
                yield PrefillProgress(held + progress.done, total)

    def take_up(self, path: Path) -> int:
        """Hold what a saved cache has of this dialogue, as far as they agree; how many tokens, 0 if as many are held.

        Raises LoopserveError, in one line, for a file that is damaged or another model's, or has little of it.
        """
        full = self.template.ids(self.messages, generation_prompt=False, limit=self.engine.context_limit)
        saved = self.engine.saved(path)
        agreed = common_prefix(saved.tokens, full)
        if agreed < LEAST_SHARE * len(saved.tokens):
            raise LoopserveError(f"{path}: only {agreed:,} of its {len(saved.tokens):,} tokens are of this dialogue")
        if agreed <= common_prefix(self.engine.tokens, full):
            return 0
        self.engine.restore(saved)
        self._roll_back(full)
        return agreed

    def settle(self) -> int:
        """Forget what the engine holds beyond the dialogue as it is now; how many tokens that were."""
        return self._roll_back(self.template.ids(self.messages, generation_prompt=False) if self._begun else [])

    @property
    def missing(self) -> int:
        """How many tokens of the dialogue so far the engine does not hold."""
        full = self.template.ids(self.messages, generation_prompt=False) if self._begun else []
        return len(full) - common_prefix(self.engine.tokens, full)

    @contextmanager
    def aside(self, profile: Profile | None = None) -> Iterator[None]:
        """What is said or taken back inside, perhaps under another profile, is afterwards as if it had not been.

        See `Engine.aside`: another profile has the same tier, which does not evict.
        """
        messages, begins, held = list(self.messages), dict(self._begins), list(self.engine.tokens)
        try:
            with self.engine.aside(profile):
                yield
        finally:
            self.messages, self._begins = messages, begins
            self._roll_back(held)  # a tier that evicts has the detour in its store still

    def begin_turn_anew(self) -> str | None:
        """Be as before the last turn was asked, its message's first token fed by the next; its text, None without one.

        Unlike `undo`, which lets full attention keep what the store has of the message.
        """
        if not self.turns:
            return None
        began = self.began()[-1]
        text = self.undo()
        if began < len(self.engine.tokens):
            self._rewind(began)
        return text

    def began(self) -> list[int]:
        """Of every turn, how many of the tokens that the engine holds come before it; ascending.

        Where turns are frozen it is where they began to be read. Else only the last one's beginning is known so, and
        the others' are where the template writes them, which a changed system prompt or a resume does not move.
        """
        asked = [place for place, message in enumerate(self.messages) if message.role == "user"]
        found: list[int] = []
        for turn, place in enumerate(asked):
            known = self._begins.get(turn) if self.engine.freezes or turn == len(asked) - 1 else None
            if known is None:
                known = len(self.template.ids(self.messages[:place], generation_prompt=False)) if turn else 0
            found.append(min(known, len(self.engine.tokens)))
        return found

    def _feed(self, begins: bool, ids: list[int]) -> None:
        if begins:
            self.engine.begin_segment()
        self.engine.feed(ids)

    def _segments(self, new_ids: list[int]) -> list[tuple[bool, list[int]]]:
        """What is to be fed, and whether a turn begins with it: one piece, or one per turn that the engine freezes."""
        held = len(self.engine.tokens)
        cuts: list[int] = []
        if self.engine.freezes:
            asked = [place for place, m in enumerate(self.messages) if m.role == "user" and not m.forgotten]
            for place in reversed(asked[1:]):
                cut = len(self.template.ids(self.messages[:place], generation_prompt=False)) - held
                if cut < 0:
                    break
                cuts.append(cut)
        ends = [*reversed(cuts), len(new_ids)]
        turns = [(True, new_ids[first:last]) for first, last in itertools.pairwise(ends)]
        return [(False, new_ids[: ends[0]]), *turns] if ends[0] else turns

    def undo(self) -> str | None:
        """Take back the last exchange and forget its keys; returns its user text, or None if there was none."""
        last = max((i for i, m in enumerate(self.messages) if m.role == "user"), default=None)
        if last is None:
            return None
        text = self.messages[last].content
        self.messages = self.messages[:last]
        held = self._begun and self.engine.tokens  # else a dialogue that is too long is tokenised for nothing
        self._roll_back(self.template.ids(self.messages, generation_prompt=False) if held else [])
        self._return_to(self.turns)
        return text

    def load(self, messages: list[Message]) -> None:
        """Replace the whole dialogue; what the engine holds of it already is kept."""
        agreed = messages[: common_prefix(self.messages, messages)]
        self.messages = list(messages)
        self._return_to(sum(m.role == "user" for m in agreed))

    def clear(self) -> None:
        """Forget everything but the system prompt and the tools; the dialogue that begins has a new date."""
        self.messages = self.messages[:1] if self.system is not None else []
        self._begins.clear()
        self.begin(tools=self.tools)
        self.engine.reset()

    def _reconcile(self, generation_prompt: bool) -> tuple[list[int], int]:
        """Roll the engine back to where it agrees with the template; the ids to feed and how many were undone."""
        full = self.template.ids(self.messages, generation_prompt, self.engine.context_limit)
        rolled_back = self._roll_back(full[:-1] if generation_prompt else full)
        return full[len(self.engine.tokens) :], rolled_back

    def _return_to(self, turns: int) -> None:
        """Be as before the turn after so many began, if there was one: the end of the answer before it is fed again.

        A profile that leaves something out judges by what a turn feeds, so a detour must not leave a part of it in
        the store. Full attention does not care, and keeps what it has.
        """
        begin = self._begins.get(turns, len(self.engine.tokens))
        self._begins = {turn: held for turn, held in self._begins.items() if turn < turns}
        if begin < len(self.engine.tokens) and not self.engine.profile.attends_to_everything:
            self._rewind(begin)

    def _rewind(self, length: int) -> None:
        """Shorten the engine's store; where turns are frozen, to where the one that holds token `length` began.

        What was noted of a turn's first half is not what is noted of all of it, so judged by that half a detour would
        leave its trace in what is kept. The turn is read anew.
        """
        self.engine.rewind(length)
        if self.engine.freezes:
            self.engine.rewind(self.engine.turn_began)

    def _roll_back(self, full: list[int]) -> int:
        """Shorten the engine's store to its common prefix with `full`; returns how many tokens went."""
        held = len(self.engine.tokens)
        common = common_prefix(self.engine.tokens, full)
        if common < held:
            self._rewind(common)
            self._begins = {turn: min(begin, common) for turn, begin in self._begins.items()}
        return held - len(self.engine.tokens)


def common_prefix(left: list[T], right: list[T]) -> int:
    """How many leading items agree."""
    shorter = min(len(left), len(right))
    if left[:shorter] == right[:shorter]:
        return shorter
    return next(i for i in range(shorter) if left[i] != right[i])
