"""After a timed turn of the first repeat: the recorded answer forced under its profile, and compared with `full`'s.

All of it happens once the turn's last stamp is taken. `full` goes first in the first repeat, so that what the others
are compared with is there. With live history profiles go on from different answers: then each goes through the
dialogue once more before it is timed, with full attention's answers in it, and those are forced.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Protocol

from loopserve_cli.config import ReplayOptions
from loopserve_cli.conversation import Conversation
from loopserve_cli.engine.distributions import Rows
from loopserve_cli.errors import LoopserveError
from loopserve_cli.measure.fidelity import Fidelity, Reference, compare, first_difference, note
from loopserve_cli.measure.measured import Measured
from loopserve_cli.measure.reference import full_of
from loopserve_cli.profile import Profile
from loopserve_cli.replay.script import Exchange, Script
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    from torch import Tensor

    from loopserve_cli.engine.engine import Engine

# torch's CUDA errors are RuntimeErrors, a full disk is an OSError: the turn was measured, its fidelity is unknown.
FAILURES = (LoopserveError, RuntimeError, OSError)


@dataclass(frozen=True, slots=True)
class Taught:
    """One turn under full attention, kept for the others: how to compare with it, and the answer as text."""

    reference: Reference
    text: str
    reasoning: str | None


class Hearer(Protocol):
    """Who is told of what is done beside the timed turns."""

    def forcing(self, tokens: int) -> None:
        """So many tokens of a given answer are decoded now, which is in no timing."""

    def warn(self, line: str) -> None:
        """Something that the user should not miss."""


class Teacher:
    """One replay's fidelity. What `full` said of a dialogue is kept until the others have been compared with it."""

    def __init__(self, engine: Engine, options: ReplayOptions, hearer: Hearer) -> None:
        """Nothing is known yet."""
        self.reference = full_of(options.profiles)
        self._engine = engine
        self._options = options
        self._hearer = hearer
        self._answers: dict[tuple[str, int], tuple[int, ...]] = {}
        self._taught: dict[int, Taught] = {}
        self._rows: Rows | None = None
        self._told: set[str] = set()

    def judges(self, script: Script, profile: Profile, repeat: int) -> bool:
        """Whether the dialogue's timed turns are judged, each when it has ended."""
        alike = script.history == "recorded" or profile is self.reference
        return self._options.fidelity and repeat == 1 and alike

    @contextmanager
    def noting(self, really: bool = True) -> Iterator[None]:
        """Inside, turns can be judged."""
        if really:
            self._engine.keeps_start = True
        try:
            yield
        finally:
            if really:
                self._engine.keeps_start = False

    def end(self) -> None:
        """A dialogue is done under all profiles: give back what was kept of it."""
        if self._rows is not None:
            self._rows.close()
        self._rows = None
        self._taught.clear()

    def diverged(self, turn: Measured, profile: Profile) -> TurnRecord:
        """The record with where the greedy answer parts from `full`'s in the first repeat."""
        record = turn.record
        if self._options.sampling.temperature > 0 or record.conversation_id is None or record.turn is None:
            return record
        place = record.conversation_id, record.turn
        if profile is self.reference:
            self._answers.setdefault(place, turn.output_ids)
            return record
        full = self._answers.get(place)
        return record if full is None else replace(record, diverged_at=first_difference(turn.output_ids, full))

    def judge(
        self, conversation: Conversation, script: Script, profile: Profile, number: int, turn: Measured
    ) -> Fidelity:
        """Force the answer of timed turn `number`, which just ended; what cannot be known is None."""
        exchange = script.exchanges[number - 1]
        own = script.history == "live" or exchange.recorded is None
        try:
            if profile is self.reference:
                return self._note(number, turn.output_ids if own else self._recorded(conversation, exchange), turn)
            if (reference := self._reference(number)) is not None:
                return compare(reference.answer, reference, self._force)
            recorded = () if own else self._recorded(conversation, exchange)
            return compare(recorded, None, self._force) if recorded else Fidelity()
        except FAILURES as error:
            return self._unknown(error)

    def apart(
        self, script: Script, profile: Profile, repeat: int, begin: Callable[[Script], Conversation]
    ) -> Mapping[int, Fidelity]:
        """Under live history, and not timed: every turn with full attention's answers before it, those forced."""
        found: dict[int, Fidelity] = {}
        if script.history != "live" or not self._options.fidelity or repeat > 1 or not self._taught:
            return found
        one = replace(self._options.sampling, max_new_tokens=1)
        try:
            with self.noting():
                conversation = begin(script)
                for number, taught in self._taught.items():
                    for _ in conversation.ask(script.exchanges[number - 1].user, one):
                        pass
                    if (reference := self._reference(number)) is not None:
                        found[number] = compare(reference.answer, reference, self._force)
                    conversation.replace_answer(taught.text, taught.reasoning)
        except FAILURES as error:
            self._unknown(error)
        return found

    def again(self, script: Script, begin: Callable[[Script], Conversation], kept: Mapping[int, Measured]) -> None:
        """What full attention said at turns that an earlier run measured, by number: once more, and not timed."""
        one = replace(self._options.sampling, max_new_tokens=1)
        assert self.reference is not None
        try:
            self._engine.reset()
            self._engine.set_profile(self.reference)
            with self.noting():
                conversation = begin(script)
                for number, turn in kept.items():
                    exchange, record = script.exchanges[number - 1], turn.record
                    for _ in conversation.ask(exchange.user, one):
                        pass
                    self.judge(conversation, script, self.reference, number, turn)
                    if script.history == "recorded":
                        conversation.replace_answer(exchange.recorded or "", exchange.reasoning)
                    else:
                        conversation.replace_answer(record.output_text or "", record.reasoning_text)
        except FAILURES as error:
            self._unknown(error)

    def recall(self, kept: Sequence[Measured]) -> None:
        """Turns of an earlier run, so that later answers are compared with full attention's there."""
        for turn in kept:
            if self.reference is not None and turn.record.profile == self.reference.name and turn.record.repeat == 1:
                self.diverged(turn, self.reference)

    def _reference(self, number: int) -> Reference | None:
        """What full attention said at this turn; None where that is unknown, or the history was another."""
        taught, start = self._taught.get(number), self._engine.start
        if taught is None or start is None or taught.reference.prompt != self._engine.tokens[: start.tokens]:
            return None
        return taught.reference

    def _note(self, number: int, answer: Sequence[int], turn: Measured) -> Fidelity:
        """Full attention's own turn, kept for the others."""
        start = self._engine.start
        if start is None or not answer:
            return Fidelity()
        if self._rows is None:
            self._rows = Rows()
        reference = Reference(self._engine.tokens[: start.tokens], answer, self._rows, self._rows.count)
        fidelity = note(reference, self._force)
        if fidelity.tokens_forced is None:
            return fidelity
        self._taught[number] = Taught(reference, turn.record.output_text or "", turn.record.reasoning_text)
        return fidelity

    def _recorded(self, conversation: Conversation, exchange: Exchange) -> Sequence[int]:
        """The recorded answer as it would be generated, no longer than a generated one may be."""
        ids = conversation.answer_ids(exchange.recorded or "", exchange.reasoning, exchange.partial)
        if not ids:
            self._say("fidelity is unknown: the model's chat template rewrites the dialogue when it has an answer")
        return ids[: self._options.sampling.max_new_tokens]

    def _force(self, ids: Sequence[int], see: Callable[[Tensor], None]) -> int:
        self._hearer.forcing(len(ids))
        seen = self._engine.force(ids, see)
        if not seen:
            self._say("fidelity is unknown for some turns: the model's positions changed within their answers")
        return seen

    def _unknown(self, error: BaseException) -> Fidelity:
        lines = str(error).splitlines() or [type(error).__name__]
        self._say(f"fidelity is unknown for some turns: {lines[0]}")
        return Fidelity()

    def _say(self, line: str) -> None:
        """Say once what may hold for every turn."""
        if line not in self._told:
            self._told.add(line)
            self._hearer.warn(line)
