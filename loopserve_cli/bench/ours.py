"""Our engine as one of the ways to run a model that are compared."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from loopserve_cli.bench.options import OURS
from loopserve_cli.config import SamplingOptions
from loopserve_cli.measure.measured import Measured, drained

if TYPE_CHECKING:
    from loopserve_cli.engine.engine import Engine


class Loopserve:
    """Our engine under one profile, driven with token ids as the chat drives it."""

    dialogues = True
    rewinds = True

    def __init__(self, engine: Engine, name: str = OURS) -> None:
        """The engine must not know of stop ids: an answer has exactly the length asked for."""
        self.engine = engine
        self.name = name

    def reset(self) -> None:
        """Empty the store."""
        self.engine.reset()

    def rewind(self, length: int) -> int:
        """Hold only the first `length` tokens, or fewer where the engine evicted some; how many that is."""
        self.engine.rewind(length)
        return len(self.engine.tokens)

    def feed(self, ids: list[int]) -> None:
        """Hold `ids` too, without answering."""
        self.engine.feed(ids)

    def turn(self, ids: list[int], new_tokens: int) -> Measured:
        """Answer `ids`, of which what the store holds is not fed again."""
        started = time.perf_counter()
        new = ids[len(self.engine.tokens) :]
        return drained(self.engine.turn(new, SamplingOptions(max_new_tokens=new_tokens), lambda: False, started))
