"""The engine here under its profiles, each a variant of a replay.

One engine has one store, and a profile's keys and values are its own (sparse prefill changes those of every later
layer), so a profile replays a dialogue from an empty store. Switching profile inside a dialogue would need its whole
history fed again at every turn, and would cool what is measured.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from loopserve_cli.config import ReplayOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.events import Token
from loopserve_cli.errors import LoopserveError, NumbersError
from loopserve_cli.measure.fidelity import Fidelity
from loopserve_cli.measure.measured import Measured, drained
from loopserve_cli.profile import Profile
from loopserve_cli.replay.completed import completed
from loopserve_cli.replay.missing import Pass
from loopserve_cli.replay.script import Exchange, Script
from loopserve_cli.replay.teacher import Teacher
from loopserve_cli.replay.variant import WARM_UP_TEXT, WARM_UP_TOKENS, Watcher, failed
from loopserve_cli.stats import TurnRecord, versions

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine

# torch's CUDA errors are RuntimeErrors. A wrong program raises other kinds, and those stop the run.
FAILURES = (LoopserveError, RuntimeError)
# Tokens of the chunk that warms up what only large products use.
WARM_UP_CHUNK = 1024


class Local:
    """What the profiles of a replay share: the engine, the fidelity of what they say, and who is told."""

    def __init__(
        self,
        engine: Engine,
        options: ReplayOptions,
        watcher: Watcher,
        missing: Mapping[Pass, int],
        date: str,
        kept: Sequence[Measured] = (),
    ) -> None:
        """`missing` says what is to run, `date` is that of dialogues without one, `kept` are an earlier run's turns."""
        self.engine = engine
        self.options = options
        self.watcher = watcher
        self.teacher = Teacher(engine, options, watcher)
        self.teacher.recall(kept)
        self._missing = missing
        self._date = date
        self._kept = kept
        self._versions = versions()
        self._told: set[str] = set()

    @property
    def variants(self) -> list[UnderProfile]:
        """One for each profile."""
        return [UnderProfile(self, profile) for profile in self.options.profiles]

    @contextlib.contextmanager
    def around(self, script: Script, repeat: int) -> Iterator[None]:
        """Inside, the profiles go over a dialogue, and can be compared with full attention."""
        if repeat == 1:
            self._reference_again(script)
        yield
        self.teacher.end()

    def _reference_again(self, script: Script) -> None:
        """Where an earlier run has full attention's turns, and others' are missing, have it say again what it said."""
        full = self.teacher.reference
        others = [p for p in self.options.profiles if p is not full and (script.id, p.name, 1) in self._missing]
        if full is None or not others or not self.options.fidelity:
            return
        of_full = [t for t in self._kept if (t.record.conversation_id, t.record.profile) == (script.id, full.name)]
        kept = {t.record.turn: t for t in of_full if t.record.repeat == 1 and t.record.turn and not t.record.error}
        if kept:
            self.teacher.again(script, self.conversation, kept)

    def warm_up(self, profile: Profile) -> None:
        """One tiny turn under the profile, and a chunk after it: the first large one of a process takes longer."""
        sampling = replace(self.options.sampling, max_new_tokens=WARM_UP_TOKENS)
        self.engine.set_profile(profile)
        # A model that computes no numbers says so in the dialogues' records; another profile may do better.
        with contextlib.suppress(NumbersError):
            for _ in Conversation(self.engine, date=self._date).ask(WARM_UP_TEXT, sampling):
                pass
            ids, limit = self.engine.tokens, self.engine.context_limit or 2 * WARM_UP_CHUNK
            more = min(WARM_UP_CHUNK, limit // 2) - len(ids)
            if more > 0:
                self.engine.feed((ids * more)[:more])

    def conversation(self, script: Script) -> Conversation:
        """The dialogue before its first turn. Where its file has no date, all of a run have the same."""
        date = script.date or self._date
        special_tokens = self.options.special_tokens
        return Conversation(self.engine, script.system, script.id, script.tools, date, self._warn, special_tokens)

    def _warn(self, line: str) -> None:
        """Say once what holds for every repeat and every profile."""
        if line not in self._told:
            self._told.add(line)
            self.watcher.warn(line)

    def turn(self, conversation: Conversation, text: str) -> Measured:
        """Ask and drain. Nothing else happens meanwhile, so that only the turn is timed."""
        return drained(conversation.ask(text, self.options.sampling), self.watcher.event)

    def again(self, conversation: Conversation, exchange: Exchange) -> None:
        """Take a turn that was measured before, so that what is held is the same: only as far as that needs.

        What is generated as it is recorded stays in the store, with the keys that generating it gave; the rest of the
        recorded answer is fed in any case.
        """
        said = {True: "", False: ""}
        recorded = {True: exchange.reasoning or "", False: exchange.recorded or ""}

        def differs() -> bool:
            return any(not recorded[kind].lstrip().startswith(text.lstrip()) for kind, text in said.items())

        for event in conversation.ask(exchange.user, self.options.sampling, differs):
            if isinstance(event, Token):
                said[event.reasoning] += event.text

    def complete(self, record: TurnRecord, profile: Profile, repeat: int) -> TurnRecord:
        """The record with what the replay knows and the engine does not."""
        return completed(record, self.options, self.engine, profile.name, repeat, self._versions)


@dataclass(frozen=True, slots=True)
class UnderProfile:
    """The engine under one profile."""

    local: Local
    profile: Profile

    @property
    def name(self) -> str:
        """The profile's."""
        return self.profile.name

    @property
    def goes_first(self) -> bool:
        """Whether it is full attention."""
        return self.profile is self.local.teacher.reference

    def warm_up(self) -> None:
        """One tiny turn."""
        self.local.warm_up(self.profile)

    def dialogue(self, script: Script, repeat: int, first: int) -> Iterator[Measured]:
        """The dialogue's turns from the first to be measured on; the history before it is fed as it was then.

        One that fails is the last: what comes after would not see the same history.
        """
        teacher = self.local.teacher
        with teacher.noting(teacher.judges(script, self.profile, repeat)):
            yield from self._turns(script, repeat, first)

    def _turns(self, script: Script, repeat: int, first: int) -> Iterator[Measured]:
        local, teacher = self.local, self.local.teacher
        local.engine.reset()  # what another dialogue left need not go to another tier
        local.engine.set_profile(self.profile)
        # For the report: of one repeat, which says what all say, and only where there will be one.
        local.engine.keeps_heads = repeat == 1 and (local.options.out or local.options.resume) is not None
        apart = teacher.apart(script, self.profile, repeat, local.conversation)
        conversation = local.conversation(script)
        for number, exchange in enumerate(script.exchanges, start=1):
            try:
                if number > 1 and script.history == "recorded":
                    past = script.exchanges[number - 2]
                    conversation.replace_answer(past.recorded or "", past.reasoning)
                if number < first:
                    local.again(conversation, exchange)
                    continue
                turn = local.turn(conversation, exchange.user)
            except FAILURES as error:
                place = max(number, first)
                left = len(script.exchanges) - place
                local.watcher.advance(left)
                yield Measured(local.complete(failed(script, place, error, left), self.profile, repeat))
                return
            turn = replace(turn, record=local.complete(teacher.diverged(turn, self.profile), self.profile, repeat))
            fidelity = apart.get(number, Fidelity())
            if teacher.judges(script, self.profile, repeat):
                try:
                    fidelity = teacher.judge(conversation, script, self.profile, number, turn)
                except BaseException:
                    yield turn  # it was measured, whatever stopped what came after
                    raise
            yield replace(turn, record=fidelity.within(turn.record))
