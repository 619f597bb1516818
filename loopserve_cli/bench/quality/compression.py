"""Recall under every compressed profile and budget.

Planted dialogues with names never seen in training are read in turns, and after every turn each profile is asked the
same questions at each budget, one by one from the same state: an answer counts when it is exactly the right one, ended.
Profiles with the same prefill share what was read, for no method forgets anything between turns; the question's own
prefill and the answer run under the profile itself.

The demo model's answers are short. Beside what was right the tables say how much of the answers was decoded from
chosen keys only; "long" are the answers that go on beyond the 16 tokens that loopserve begins by reading everything.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from loopserve_cli.bench.quality.combination import SHORT_ANSWER, Combination, combinations
from loopserve_cli.bench.quality.options import CompressionOptions
from loopserve_cli.bench.quality.questions import MOST_ANSWER_TOKENS, Question, rounds
from loopserve_cli.measure.reference import FULL

if TYPE_CHECKING:
    from rich.console import Group

    from loopserve_cli.bench.quality.engine_reader import EngineReader
    from loopserve_cli.engine.loader import LoadedModel


class CompressionRun:
    """What was asked and answered so far."""

    name = "compression"

    def __init__(self, options: CompressionOptions, loaded: LoadedModel, say: Callable[[str], None]) -> None:
        """Nothing yet; `say` hears after every turn, when all combinations got the same questions."""
        self.options = options
        self.loaded = loaded
        self.say = say
        self.questions: list[Question] = []
        self.combinations: list[Combination] = []

    def measure(self, length: int) -> None:
        """All dialogues of one length."""
        options = self.options
        found = combinations(options.profiles, options.budgets, length)
        self.combinations += found
        readers = readers_by_prefill(found, self.loaded)
        any_reader = readers[0][0]
        for dialogue in range(options.dialogues):
            sizes = (options.turns, options.questions, options.others)
            for reader, _ in readers:
                reader.engine.reset()
            for turn, one in enumerate(rounds(options.seed, length, dialogue, *sizes, any_reader), 1):
                first = len(self.questions)
                self.questions += one.questions
                for reader, sharing in readers:
                    reader.engine.set_profile(sharing[0].profile)
                    reader.engine.feed(one.ids)
                    for combination in sharing:
                        ask(reader, combination, one.questions, first)
                asked = f"{len(self.questions)} questions, {len(self.combinations)} combinations"
                self.say(f"{length} tokens, dialogue {dialogue + 1}, turn {turn}: {asked}")

    def full(self, length: int) -> Combination | None:
        """The combination that leaves nothing out, where it was measured."""
        return next((c for c in self.combinations if c.name == FULL and c.length == length), None)

    def to_json(self) -> dict[str, Any]:
        """All questions and all counts."""
        return {
            "dialogues": {q.length: q.dialogue + 1 for q in self.questions},
            "short_answer_tokens": SHORT_ANSWER,
            "combinations": [c.to_json(self.full(c.length)) for c in self.combinations],
            "questions": [asdict(question) for question in self.questions],
        }

    def tables(self) -> list[Group]:
        """What was right, and how much was left out."""
        from loopserve_cli.bench.quality.tables import compression_tables

        return compression_tables(self.combinations, self.full)


def readers_by_prefill(
    found: Sequence[Combination], loaded: LoadedModel
) -> list[tuple[EngineReader, list[Combination]]]:
    """One reader for each way of reading a dialogue, with the combinations that read it so."""
    from loopserve_cli.bench.quality.engine_reader import EngineReader
    from loopserve_cli.engine.engine import Engine

    groups: dict[str, list[Combination]] = {}
    for combination in found:
        profile = combination.profile
        groups.setdefault(repr((profile.prefill, profile.retain)), []).append(combination)
    return [(EngineReader(Engine(loaded, sharing[0].profile), 1), sharing) for sharing in groups.values()]


def ask(reader: EngineReader, combination: Combination, questions: Sequence[Question], first: int) -> None:
    """Ask all of them under the combination's profile, each from the state that the reader is in."""
    reader.engine.set_profile(combination.profile)
    for number, question in enumerate(questions, first):
        combination.add(number, question, reader.ask(question.said, MOST_ANSWER_TOKENS))
