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
from collections.abc import Iterator, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

from loopserve_cli.config import ReplayOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.events import Token, TurnDone
from loopserve_cli.errors import LoopserveError, NumbersError
from loopserve_cli.measure.fidelity import Fidelity
from loopserve_cli.profile import Profile
from loopserve_cli.replay.agreement import Measured
from loopserve_cli.replay.script import Script
from loopserve_cli.replay.teacher import Teacher
from loopserve_cli.stats import TurnRecord, versions

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine

WARM_UP_TEXT = "Hello."
WARM_UP_TOKENS = 4
# torch's CUDA errors are RuntimeErrors. A wrong program raises other kinds, and those stop the run.
FAILURES = (LoopserveError, RuntimeError)


class Watcher(Protocol):
    """Who is told of the run's progress, only ever between turns."""

    def begin(self, script: Script, profile: Profile, repeat: int) -> None:
        """A dialogue starts under a profile."""

    def advance(self, turns: int) -> None:
        """So many turns are over."""

    def forcing(self, tokens: int) -> None:
        """So many tokens of a given answer are decoded now, which is in no timing."""

    def warn(self, line: str) -> None:
        """Something that the user should not miss."""


def rotated(profiles: Sequence[Profile], by: int) -> list[Profile]:
    """The profiles, starting `by` places further on."""
    start = by % len(profiles)
    return [*profiles[start:], *profiles[:start]]


class Runner:
    """One replay. `measured` holds every turn that ended, also when the run is interrupted."""

    def __init__(self, engine: Engine, options: ReplayOptions, scripts: Sequence[Script], watcher: Watcher) -> None:
        """Measure nothing yet."""
        self.engine = engine
        self.options = options
        self.scripts = scripts
        self.watcher = watcher
        self.measured: list[Measured] = []
        self.teacher = Teacher(engine, options, watcher)
        self._versions = versions()
        self._told: set[str] = set()
        self._date = datetime.now().isoformat(timespec="seconds")

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
            for index, script in enumerate(self.scripts):
                for profile in self._order(repeat, index):
                    self.watcher.begin(script, profile, repeat)
                    with self.teacher.noting(self.teacher.judges(script, profile, repeat)):
                        for turn in self._dialogue(script, profile, repeat):
                            self.measured.append(turn)
                            self.watcher.advance(1)
                self.teacher.end()

    def _order(self, repeat: int, index: int) -> list[Profile]:
        """The profiles as they go over the dialogue of that index in that repeat."""
        order = rotated(self.options.profiles, repeat - 1 + index)
        if repeat == 1:
            order.sort(key=lambda profile: profile is not self.teacher.reference)
        return order

    def _dialogue(self, script: Script, profile: Profile, repeat: int) -> Iterator[Measured]:
        """The dialogue's turns. One that fails is its last: what comes after would not see the same history."""
        self.engine.reset()  # what another dialogue left need not go to another tier
        self.engine.set_profile(profile)
        apart = self.teacher.apart(script, profile, repeat, self._conversation)
        conversation = self._conversation(script)
        for number, exchange in enumerate(script.exchanges, start=1):
            try:
                if number > 1 and script.history == "recorded":
                    past = script.exchanges[number - 2]
                    conversation.replace_answer(past.recorded or "", past.reasoning)
                turn = self._turn(conversation, exchange.user)
            except FAILURES as error:
                left = len(script.exchanges) - number
                yield Measured(self._failed(script, profile, repeat, number, error, left))
                self.watcher.advance(left)
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
        assert record is not None, "a turn ends with TurnDone"
        return Measured(record, tuple(ids))

    def _complete(self, record: TurnRecord, profile: Profile, repeat: int) -> TurnRecord:
        """The record with what the replay knows and the engine does not."""
        return replace(
            record,
            profile=profile.name,
            repeat=repeat,
            quant=record.quant or self.options.model.quant,
            seed=record.seed if record.seed is not None else self.options.sampling.seed,
            versions=record.versions or self._versions,
        )

    def _failed(
        self, script: Script, profile: Profile, repeat: int, turn: int, error: BaseException, left: int
    ) -> TurnRecord:
        """The record of a turn that did not end; what was not measured is None."""
        lines = str(error).splitlines() or [type(error).__name__]
        unrun = f" ({left} later turn{'s' if left > 1 else ''} not run)" if left else ""
        record = TurnRecord(
            conversation_id=script.id,
            turn=turn,
            model=self.engine.model_name,
            device=self.engine.device,
            dtype=self.engine.dtype,
            error=lines[0] + unrun,
        )
        return self._complete(record, profile, repeat)
