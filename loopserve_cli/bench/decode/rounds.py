"""The order of the timings: at every length all profiles answer in every round, the first to go changing.

Each has an engine and a store of its own over the same weights, so that what one leaves behind costs no other time.
A store is filled once per length; between the rounds the answer is taken back.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from loopserve_cli.bench.decode.options import QUESTION
from loopserve_cli.config import SamplingOptions
from loopserve_cli.measure.measured import drained
from loopserve_cli.measure.rounds import in_rounds
from loopserve_cli.stats import TurnRecord

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine


@dataclass(frozen=True, slots=True)
class Answer:
    """One answer: the engine's record, and how many of its steps, `open_steps`, came before keys were ever chosen.

    Those read everything whatever the profile; the settled ones after them are what it costs to go on.
    """

    tokens: int
    open_steps: int
    record: TurnRecord

    @property
    def step_ms(self) -> float:
        """Milliseconds of a settled step, choosing included."""
        return statistics.fmean(self.record.itl_ms[self.open_steps :])

    @property
    def choosing_share(self) -> float | None:
        """Choosing keys, of the settled steps' time."""
        choosing = self.record.reselect_ms
        return None if choosing is None else choosing / sum(self.record.itl_ms[self.open_steps :])

    def as_document(self) -> dict[str, Any]:
        """The answer as JSON holds it."""
        own = {"tokens": self.tokens, "round": self.record.repeat, "open_steps": self.open_steps}
        return own | {"step_ms": self.step_ms, "choosing_share": self.choosing_share} | self.record.to_json()


def open_steps(engine: Engine) -> int:
    """Steps of an answer that read everything because no output was there to choose by."""
    return engine.keep.interval or 0 if engine.keep.first_full else 0


def time_answers(
    engines: Sequence[Engine],
    ids: Sequence[int],
    lengths: Sequence[int],
    new_tokens: int,
    rounds: int,
    say: Callable[[str], None],
) -> list[Answer]:
    """Every answer at every length, shortest first; `ids` are as long as the longest.

    The engines know of no stop ids.
    """
    return [
        answer
        for tokens in sorted(lengths)
        for answer in time_length(engines, list(ids[:tokens]), new_tokens, rounds, say)
    ]


def time_length(
    engines: Sequence[Engine], ids: list[int], new_tokens: int, rounds: int, say: Callable[[str], None]
) -> list[Answer]:
    """The answers to the last tokens of `ids` that have room for one."""
    what = f"{len(ids):,} tokens: "
    held = len(ids) - new_tokens - QUESTION
    for engine in engines:
        say(f"{what}filling the store of {engine.profile.name}")
        # With the answer's room, so that nothing grows while it is timed.
        engine.feed(ids[len(engine.tokens) :])
        engine.rewind(held)

    def answers(order: list[Engine], number: int) -> Iterator[Answer]:
        for engine in order:
            record = replace(answer(engine, ids[held : held + QUESTION], new_tokens), repeat=number)
            engine.rewind(held)
            yield Answer(len(ids), open_steps(engine), record)

    return in_rounds(engines, rounds, answers, say, what)


def answer(engine: Engine, question: list[int], new_tokens: int) -> TurnRecord:
    """The record of one greedy answer."""
    return drained(engine.turn(question, SamplingOptions(max_new_tokens=new_tokens))).record
