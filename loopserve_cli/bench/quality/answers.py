"""Answers counted by kind of question, by where the fact stands, and by turn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

from loopserve_cli.bench.quality.accuracy import Tally, tally_of
from loopserve_cli.bench.quality.questions import HEADLINE, OTHERS, Question
from loopserve_cli.demo.planted import THIRDS

Name = TypeVar("Name", str, int)


@dataclass(frozen=True, slots=True)
class Answer:
    """What was answered to one question; `got` is None when the answer did not end."""

    asked: Question
    got: str | None

    @property
    def right(self) -> bool:
        """Exactly the right answer, to the letter, ended."""
        return self.got == self.asked.answer


class Scored:
    """Whatever has `answers`: their accuracy, all together and apart."""

    __slots__ = ()
    answers: Sequence[Answer]

    @property
    def headline(self) -> Tally:
        """Single and updated facts together."""
        return tally_of(a.right for a in self.answers if a.asked.kind in HEADLINE)

    @property
    def kinds(self) -> dict[str, Tally]:
        """Every kind of question."""
        return self.tallies((*HEADLINE, *OTHERS), lambda a: a.asked.kind)

    @property
    def thirds(self) -> dict[str, Tally]:
        """The headline's questions by where the fact stands in what was read so far."""
        return self.tallies(THIRDS, lambda a: a.asked.third)

    @property
    def turns(self) -> dict[int, Tally]:
        """The headline's questions by the turn after which they were asked."""
        numbers = sorted({a.asked.turn for a in self.answers})
        return self.tallies(numbers, lambda a: a.asked.turn if a.asked.kind in HEADLINE else None)

    def tallies(self, names: Iterable[Name], of: Callable[[Answer], str | int | None]) -> dict[Name, Tally]:
        """The answers that `of` gives each of these names."""
        return {name: tally_of(a.right for a in self.answers if of(a) == name) for name in names}

    def counts(self) -> dict[str, Any]:
        """What a document says of them, however they were got."""
        return {
            "headline": self.headline.to_json(),
            "thirds": {name: tally.to_json() for name, tally in self.thirds.items()},
            "kinds": {name: tally.to_json() for name, tally in self.kinds.items()},
        }
