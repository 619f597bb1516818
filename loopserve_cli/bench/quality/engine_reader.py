"""The engine as one who reads a dialogue and answers questions about it: recall under any profile."""

from __future__ import annotations

from loopserve_cli.config import SamplingOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.events import TurnDone
from loopserve_cli.stats import TurnRecord


class EngineReader:
    """Reads as a dialogue grows, in turns; every question is asked from the same state."""

    def __init__(self, engine: Engine, turns: int) -> None:
        """`turns` is in how many equal parts a dialogue is fed."""
        self.engine = engine
        self.turns = turns

    def count(self, text: str) -> int:
        """How many tokens the text has."""
        return len(self.encode(text))

    def encode(self, text: str) -> list[int]:
        """The text's ids; special tokens may be written out."""
        ids: list[int] = self.engine.tokenizer(text, add_special_tokens=False).input_ids
        return ids

    def read(self, ids: list[int]) -> None:
        """Forget the last dialogue and take in this one, turn by turn."""
        self.engine.reset()
        cuts = [len(ids) * turn // self.turns for turn in range(self.turns + 1)]
        for first, last in zip(cuts, cuts[1:], strict=False):
            self.engine.feed(ids[first:last])

    def answer(self, question: str, most: int) -> str | None:
        """The greedy answer, or None when it has no end within `most` tokens; the question is forgotten afterwards."""
        record = self.ask(question, most)
        return record.output_text if record.finish_reason == "stop" else None

    def ask(self, question: str, most: int) -> TurnRecord:
        """What answering the question greedily cost and gave; the question is forgotten afterwards."""
        held = len(self.engine.tokens)
        ids = self.encode(f"<|user|>{question}<|end|><|assistant|>")
        *_, done = self.engine.turn(ids, SamplingOptions(max_new_tokens=most))
        assert isinstance(done, TurnDone)
        self.engine.rewind(held)
        return done.record
