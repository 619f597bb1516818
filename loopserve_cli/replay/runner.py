"""Replays dialogues on one engine, profile after profile, and keeps what each turn measured.

Order. One engine has one store, and a profile's keys and values are its own (sparse prefill changes
those of every later layer), so a profile replays a dialogue from an empty store. Within a repeat the
profiles take turns dialogue by dialogue, and who goes first rotates with dialogue and repeat: A B, B A,
A B ... A machine that slows down or warms up then does so for all of them alike. Switching profile
inside a dialogue would need its whole history fed again at every turn, and would cool what is measured.
In the first repeat `full` goes first where it is among them: the others are compared with what it said.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Protocol

from loopserve_cli.config import ReplayOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.events import Event, Token, TurnDone
from loopserve_cli.errors import LoopserveError, NumbersError
from loopserve_cli.measure.fidelity import Fidelity
from loopserve_cli.profile import Profile
from loopserve_cli.replay.agreement import Measured
from loopserve_cli.replay.failed import completed, failed_turn
from loopserve_cli.replay.missing import Pass, first_measured
from loopserve_cli.replay.order import order_of
from loopserve_cli.replay.script import Exchange, Script
from loopserve_cli.replay.teacher import Teacher
from loopserve_cli.stats import TurnRecord, versions

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine

WARM_UP_TEXT = "Hello."
WARM_UP_TOKENS = 4
# torch's CUDA errors are RuntimeErrors. A wrong program raises other kinds, and those stop the run.
FAILURES = (LoopserveError, RuntimeError)


class Watcher(Protocol):
    """Who is told of the run's progress; a turn's clock stands still while its events are looked at."""

    def begin(self, script: Script, profile: Profile, repeat: int) -> None:
        """A dialogue starts under a profile."""

    def event(self, event: Event) -> None:
        """Something happened within a turn."""

    def ended(self, record: TurnRecord) -> None:
        """A turn is over."""

    def advance(self, turns: int) -> None:
        """The last so many turns of the dialogue are not run."""

    def forcing(self, tokens: int) -> None:
        """So many tokens of a given answer are decoded now, which is in no timing."""

    def warn(self, line: str) -> None:
        """Something that the user should not miss."""


class Runner:
    """One replay. `measured` holds every turn that ended, also when the run is interrupted."""

    def __init__(
        self,
        engine: Engine,
        options: ReplayOptions,
        scripts: Sequence[Script],
        watcher: Watcher,
        missing: Mapping[Pass, int],
        date: str,
        keep: Callable[[Measured], None],
        kept: Sequence[Measured] = (),
        first_index: int = 0,
    ) -> None:
        """Measure nothing yet.

        `missing` says what is to run, `date` is that of dialogues without one, and `keep` is given every turn as soon
        as it is over; `kept` are those of an earlier run that this one goes on with. `first_index` is where these
        dialogues begin among those of the whole replay.
        """
        self.engine = engine
        self.options = options
        self.scripts = scripts
        self.watcher = watcher
        self.measured: list[Measured] = []
        self.teacher = Teacher(engine, options, watcher)
        self._missing = missing
        self._keep = keep
        self._kept = kept
        self._first_index = first_index
        self.teacher.recall(kept)
        self._versions = versions()
        self._told: set[str] = set()
        self._date = date

    def warm_up(self) -> None:
        """One tiny turn under each profile, unrecorded: what is done once per process is done before measuring."""
        sampling = replace(self.options.sampling, max_new_tokens=WARM_UP_TOKENS)
        for profile in self.options.profiles:
            self.engine.set_profile(profile)
            # A model that computes no numbers says so in the dialogues' records; another profile may do better.
            with contextlib.suppress(NumbersError):
                for _ in Conversation(self.engine, date=self._date).ask(WARM_UP_TEXT, sampling):
                    pass

    def run(self) -> None:
        """Every repeat of every dialogue under every profile, in the order the module describes."""
        for repeat in range(1, self.options.repeat + 1):
            for index, script in enumerate(self.scripts, start=self._first_index):
                if repeat == 1:
                    self._reference_again(script)
                for profile in order_of(self.options.profiles, repeat, index):
                    done = self._missing.get((script.id, profile.name, repeat))
                    if done is None:
                        continue
                    self.watcher.begin(script, profile, repeat)
                    with self.teacher.noting(self.teacher.judges(script, profile, repeat)):
                        for turn in self._dialogue(script, profile, repeat, first_measured(script, done)):
                            self.measured.append(turn)
                            self._keep(turn)
                            self.watcher.ended(turn.record)
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
            self.teacher.again(script, self._conversation, kept)

    def _dialogue(self, script: Script, profile: Profile, repeat: int, first: int) -> Iterator[Measured]:
        """The dialogue's turns from the first to be measured on; the history before it is fed as it was then.

        One that fails is the last: what comes after would not see the same history.
        """
        self.engine.reset()  # what another dialogue left need not go to another tier
        self.engine.set_profile(profile)
        apart = self.teacher.apart(script, profile, repeat, self._conversation)
        conversation = self._conversation(script)
        for number, exchange in enumerate(script.exchanges, start=1):
            try:
                if number > 1 and script.history == "recorded":
                    past = script.exchanges[number - 2]
                    conversation.replace_answer(past.recorded or "", past.reasoning)
                if number < first:
                    self._again(conversation, exchange)
                    continue
                turn = self._turn(conversation, exchange.user)
            except FAILURES as error:
                failed = max(number, first)
                left = len(script.exchanges) - failed
                self.watcher.advance(left)
                yield Measured(self._failed(script, profile, repeat, failed, error, left))
                return
            turn = replace(turn, record=self._complete(self.teacher.diverged(turn, profile), profile, repeat))
            fidelity = apart.get(number, Fidelity())
            if self.teacher.judges(script, profile, repeat):
                try:
                    fidelity = self.teacher.judge(conversation, script, profile, number, turn)
                except BaseException:
                    yield turn  # it was measured, whatever stopped what came after
                    raise
            yield replace(turn, record=fidelity.within(turn.record))

    def _conversation(self, script: Script) -> Conversation:
        """The dialogue before its first turn. Where its file has no date, all of a run have the same."""
        date = script.date or self._date
        special_tokens = self.options.special_tokens
        return Conversation(self.engine, script.system, script.id, script.tools, date, self._warn, special_tokens)

    def _warn(self, line: str) -> None:
        """Say once what holds for every repeat and every profile."""
        if line not in self._told:
            self._told.add(line)
            self.watcher.warn(line)

    def _turn(self, conversation: Conversation, text: str) -> Measured:
        """Ask and drain. Nothing else happens meanwhile, so that only the turn is timed."""
        ids: list[int] = []
        record: TurnRecord | None = None
        for event in conversation.ask(text, self.options.sampling):
            if isinstance(event, Token):
                ids.append(event.id)
            elif isinstance(event, TurnDone):
                record = event.record
            self.watcher.event(event)
        assert record is not None, "a turn ends with TurnDone"
        return Measured(record, tuple(ids))

    def _again(self, conversation: Conversation, exchange: Exchange) -> None:
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

    def _complete(self, record: TurnRecord, profile: Profile, repeat: int) -> TurnRecord:
        """The record with what the replay knows and the engine does not."""
        return completed(record, self.options, profile.name, repeat, self._versions)

    def _failed(
        self, script: Script, profile: Profile, repeat: int, turn: int, error: BaseException, left: int
    ) -> TurnRecord:
        """The record of a turn that did not end."""
        lines = str(error).splitlines() or [type(error).__name__]
        return self._complete(failed_turn(self.engine, script.id, turn, lines[0], left), profile, repeat)
