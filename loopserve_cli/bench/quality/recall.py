"""Recall: questions about sparse dialogues, asked one by one, and how many answers are exactly right.

Dialogues with names and values never seen in training are read once; every question is then asked on its own, answered
greedily until the end token, and the answer must equal the true one to the letter. It is plain transformers that reads,
under full attention, or the engine under each profile, in turns; all of them get the same questions.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from statistics import fmean
from typing import TYPE_CHECKING, Any

from loopserve_cli.bench.quality.answers import Answer, Scored
from loopserve_cli.bench.quality.options import RecallOptions
from loopserve_cli.bench.quality.questions import (
    MOST_ANSWER_TOKENS,
    Answerer,
    dialogue_ids,
    planted_dialogue,
    questions_about,
)

if TYPE_CHECKING:
    from rich.console import Group

PLAIN = "transformers"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A question that was not answered exactly; `got` is None when the answer did not end."""

    question: str
    wanted: str
    got: str | None
    kind: str
    place: int | None


@dataclass(slots=True)
class Recall(Scored):
    """What was right at one dialogue length; `tokens` are the dialogues' own."""

    length: int
    tokens: list[int] = field(default_factory=list)
    answers: list[Answer] = field(default_factory=list)

    @property
    def mistakes(self) -> list[Mistake]:
        """The answers that are not right."""
        wrong = [a for a in self.answers if not a.right]
        return [Mistake(a.asked.said, a.asked.answer, a.got, a.asked.kind, a.asked.place) for a in wrong]

    def to_json(self) -> dict[str, Any]:
        """Everything counted at this length."""
        return {
            "length": self.length,
            "dialogues": len(self.tokens),
            "tokens_mean": fmean(self.tokens),
            **self.counts(),
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
        }


def measure_recall(
    model: Answerer, length: int, dialogues: int, questions: int, seed: int, progress: Callable[[Recall], None]
) -> Recall:
    """At least `dialogues` dialogues, and more until `dialogues` x `questions` facts were asked for.

    `progress` hears after every dialogue. A dialogue holds a few facts per thousand tokens, so short ones are many.
    """
    recall = Recall(length)
    while len(recall.tokens) < dialogues or recall.headline.asked < dialogues * questions:
        index = len(recall.tokens)
        planted = planted_dialogue(seed, length, index, model)
        model.read(dialogue_ids(planted.turns, model))
        for question in questions_about(planted, length, index, 1, questions, max(1, questions // 10)):
            recall.answers.append(Answer(question, model.answer(question.said, MOST_ANSWER_TOKENS)))
        recall.tokens.append(planted.tokens)
        progress(recall)
    return recall


class RecallRun:
    """What was measured so far, under each profile."""

    name = "recall"

    def __init__(self, options: RecallOptions, readers: Mapping[str, Answerer], say: Callable[[str], None]) -> None:
        """Nothing yet; `say` hears after every dialogue."""
        self.options = options
        self.readers = readers
        self.say = say
        self.found: dict[tuple[str, int], Recall] = {}

    def measure(self, length: int) -> None:
        """All dialogues of one length, under each profile."""
        sizes = (length, self.options.dialogues, self.options.questions, self.options.seed)
        for profile, reader in self.readers.items():

            def progress(recall: Recall, profile: str = profile) -> None:
                self.found[profile, length] = recall
                self.say(f"{profile}, {length} tokens, {len(recall.tokens)} dialogues: {recall.headline}")

            measure_recall(reader, *sizes, progress)

    def to_json(self) -> dict[str, Any]:
        """Every length under each profile."""
        return {"recall": [{"profile": profile, **recall.to_json()} for (profile, _), recall in self.found.items()]}

    def tables(self) -> list[Group]:
        """Facts, then the kinds of question."""
        from loopserve_cli.bench.quality.tables import recall_tables

        return recall_tables(self.found)
