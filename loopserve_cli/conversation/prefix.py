"""The part of a dialogue that the engine has in its cache, brought to agree with what the template writes.

The ids that it holds are compared with those of the whole dialogue: what agrees stays, what differs is rolled back,
and only the rest is fed.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from loopserve_cli.engine.events import PrefillProgress
from loopserve_cli.errors import LoopserveError
from loopserve_cli.messages import Message
from loopserve_cli.template import Template

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine
    from loopserve_cli.profile import Profile

# Two dialogues agree in what the template writes first, and a saved cache is read whole or not at all.
LEAST_SHARE = 0.1

T = TypeVar("T")
# Ids to be fed, and whether a turn begins with them.
Segment = tuple[bool, list[int]]


class CachedPrefix:
    """What one engine holds of one dialogue."""

    def __init__(self, engine: Engine) -> None:
        """No turn has begun."""
        self._engine = engine
        self._begins: dict[int, int] = {}  # by turns before it, what the engine held when a turn began

    def __len__(self) -> int:
        """Tokens held."""
        return len(self._engine.tokens)

    def missing(self, full: list[int]) -> int:
        """How many of the dialogue's ids are not held."""
        return len(full) - common_prefix(self._engine.tokens, full)

    def roll_back(self, full: list[int]) -> int:
        """Hold only what agrees with the dialogue's ids; returns how many tokens went."""
        held = len(self)
        common = common_prefix(self._engine.tokens, full)
        if common < held:
            self.rewind(common)
            self._begins = {turn: min(begin, common) for turn, begin in self._begins.items()}
        return held - len(self)

    def rewind(self, length: int) -> None:
        """Hold no more than `length` tokens; where turns are frozen, to where the one that holds that token began.

        What was noted of a turn's first half is not what is noted of all of it, so judged by that half a detour would
        leave its trace in what is kept. The turn is read anew.
        """
        self._engine.rewind(length)
        if self._engine.freezes:
            self._engine.rewind(self._engine.turn_began)

    def begin_turn(self, turns: int) -> None:
        """A turn begins after so many others."""
        self._begins[turns] = len(self)

    def return_to(self, turns: int) -> None:
        """Be as before the turn after so many began, if there was one: the end of the answer before it is fed again.

        A profile that leaves something out judges by what a turn feeds, so a detour must not leave a part of it in
        the store. Full attention does not care, and keeps what it has.
        """
        begin = self._begins.get(turns, len(self))
        self._begins = {turn: held for turn, held in self._begins.items() if turn < turns}
        if begin < len(self) and not self._engine.profile.attends_to_everything:
            self.rewind(begin)

    def clear(self) -> None:
        """Hold nothing."""
        self._begins.clear()
        self._engine.reset()

    def segments(self, template: Template, messages: Sequence[Message], new_ids: list[int]) -> list[Segment]:
        """What is to be fed: one piece, or one per turn where the engine freezes turn by turn."""
        held = len(self)
        cuts: list[int] = []
        if self._engine.freezes:
            asked = [place for place, m in enumerate(messages) if m.role == "user" and not m.forgotten]
            for place in reversed(asked[1:]):
                cut = len(template.ids(messages[:place], generation_prompt=False)) - held
                if cut < 0:
                    break
                cuts.append(cut)
        ends = [*reversed(cuts), len(new_ids)]
        turns = [(True, new_ids[first:last]) for first, last in itertools.pairwise(ends)]
        return [(False, new_ids[: ends[0]]), *turns] if ends[0] else turns

    def feed(self, segments: Sequence[Segment]) -> None:
        """Prefill them, one after the other."""
        for begins, ids in segments:
            if begins:
                self._engine.begin_segment()
            self._engine.feed(ids)

    def feed_progress(self, segments: Sequence[Segment]) -> Iterator[PrefillProgress]:
        """As `feed`, with progress in tokens of the whole dialogue; closed early, it keeps what was fed."""
        total = len(self) + sum(len(ids) for _, ids in segments)
        for begins, ids in segments:
            if begins:
                self._engine.begin_segment()
            held = len(self)
            for progress in self._engine.feed_progress(ids):
                yield PrefillProgress(held + progress.done, total)

    def began(self, template: Template, messages: Sequence[Message]) -> list[int]:
        """Of every turn, how many of the tokens held come before it; ascending.

        Where turns are frozen it is where they began to be read. Else only the last one's beginning is known so, and
        the others' are where the template writes them, which a changed system prompt or a resume does not move.
        """
        asked = [place for place, message in enumerate(messages) if message.role == "user"]
        found: list[int] = []
        for turn, place in enumerate(asked):
            known = self._begins.get(turn) if self._engine.freezes or turn == len(asked) - 1 else None
            if known is None:
                known = len(template.ids(messages[:place], generation_prompt=False)) if turn else 0
            found.append(min(known, len(self)))
        return found

    def take_up(self, path: Path, full: list[int]) -> int:
        """Hold what a saved cache has of the dialogue's ids, as far as they agree; how many, 0 if as many are held.

        Raises LoopserveError, in one line, for a file that is damaged or another model's, or has little of it.
        """
        saved = self._engine.saved(path)
        agreed = common_prefix(saved.tokens, full)
        if agreed < LEAST_SHARE * len(saved.tokens):
            raise LoopserveError(f"{path}: only {agreed:,} of its {len(saved.tokens):,} tokens are of this dialogue")
        if agreed <= common_prefix(self._engine.tokens, full):
            return 0
        self._engine.restore(saved)
        self.roll_back(full)
        return agreed

    @contextmanager
    def aside(self, profile: Profile | None = None) -> Iterator[None]:
        """What is held after it is what was held before, whatever was fed and taken back inside; see `Engine.aside`."""
        begins, held = dict(self._begins), list(self._engine.tokens)
        try:
            with self._engine.aside(profile):
                yield
        finally:
            self._begins = begins
            self.roll_back(held)  # a tier that evicts has the detour in its store still


def common_prefix(left: list[T], right: list[T]) -> int:
    """How many leading items agree."""
    shorter = min(len(left), len(right))
    if left[:shorter] == right[:shorter]:
        return shorter
    return next(i for i in range(shorter) if left[i] != right[i])
