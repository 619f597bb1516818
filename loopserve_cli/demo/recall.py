"""Recall: questions about sparse dialogues, asked one by one, and how many answers are exactly right.

The headline is single and updated facts together, by where the fact stands; questions about what was never
told, through two facts, and for lists are counted apart.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field
from random import Random
from statistics import fmean
from typing import Any, Protocol

from loopserve_cli.demo.dialogues import Turn
from loopserve_cli.demo.planted import THIRDS, Planted, render, report_sentences

HEADLINE = ("single", "updated")
OTHERS = ("absent", "two_hop", "listing")
MOST_ANSWER_TOKENS = 128
Z95 = 1.959964


class Answerer(Protocol):
    """What the measure needs of a model."""

    def count(self, text: str) -> int:
        """How many tokens the text has."""

    def encode(self, text: str) -> list[int]:
        """The text's ids; special tokens may be written out."""

    def read(self, ids: list[int]) -> None:
        """Forget the last dialogue and take in this one."""

    def answer(self, question: str, most: int) -> str | None:
        """The greedy answer, or None when it does not end; the question is forgotten afterwards."""


def wilson(right: int, asked: int) -> tuple[float, float] | None:
    """The 95% Wilson interval of a share, or None when nothing was asked."""
    if not asked:
        return None
    share, z2 = right / asked, Z95 * Z95
    centre = (share + z2 / (2 * asked)) / (1 + z2 / asked)
    half = Z95 * math.sqrt(share * (1 - share) / asked + z2 / (4 * asked * asked)) / (1 + z2 / asked)
    return max(0.0, centre - half), min(1.0, centre + half)


@dataclass(slots=True)
class Tally:
    """Answers right of questions asked."""

    right: int = 0
    asked: int = 0

    def add(self, correct: bool) -> None:
        """Count one answer."""
        self.right += correct
        self.asked += 1

    def to_json(self) -> dict[str, Any]:
        """The counts, the share and its interval; null where nothing was asked."""
        interval = wilson(self.right, self.asked)
        share = self.right / self.asked if self.asked else None
        return {"right": self.right, "asked": self.asked, "share": share, "interval95": interval}

    def __str__(self) -> str:
        """As a table shows it: "95% (89-98)"."""
        interval = wilson(self.right, self.asked)
        if interval is None:
            return "n/a"
        return f"{self.right / self.asked:.0%} ({interval[0] * 100:.0f}-{interval[1] * 100:.0f})"


@dataclass(frozen=True, slots=True)
class Mistake:
    """A question that was not answered exactly; `got` is None when the answer did not end."""

    question: str
    wanted: str
    got: str | None
    kind: str
    place: int | None


@dataclass(slots=True)
class Recall:
    """What was right at one dialogue length."""

    length: int
    tokens: list[int] = field(default_factory=list)
    kinds: dict[str, Tally] = field(default_factory=lambda: {k: Tally() for k in (*HEADLINE, *OTHERS)})
    thirds: dict[str, Tally] = field(default_factory=lambda: {name: Tally() for name in THIRDS})
    mistakes: list[Mistake] = field(default_factory=list)

    @property
    def headline(self) -> Tally:
        """Single and updated facts together."""
        return Tally(*(sum(getattr(self.kinds[k], name) for k in HEADLINE) for name in ("right", "asked")))

    def to_json(self) -> dict[str, Any]:
        """Everything counted at this length."""
        return {
            "length": self.length,
            "dialogues": len(self.tokens),
            "tokens_mean": fmean(self.tokens),
            "headline": self.headline.to_json(),
            "thirds": {name: tally.to_json() for name, tally in self.thirds.items()},
            "kinds": {name: tally.to_json() for name, tally in self.kinds.items()},
            "mistakes": [asdict(mistake) for mistake in self.mistakes],
        }


def planted_dialogue(seed: int, length: int, index: int, model: Answerer) -> Planted:
    """Dialogue number `index` of that length; the same seed gives the same dialogue."""
    rng = Random(f"{seed}:{length}:{index}")
    planted = Planted(rng, model.count, report_sentences(length))
    planted.grow(length)
    return planted


def dialogue_ids(planted: Planted, model: Answerer) -> list[int]:
    """The dialogue so far, as the model reads it."""
    return model.encode("<|bos|>" + "".join(render(turn) for turn in planted.turns))


def score(planted: Planted, turns: Iterable[Turn], model: Answerer, recall: Recall) -> None:
    """Ask each question on its own of a model that has read the dialogue, and count."""
    for turn in turns:
        got = model.answer(turn.user, MOST_ANSWER_TOKENS)
        correct = got == turn.assistant
        recall.kinds[turn.kind].add(correct)
        place = None
        if turn.kind in HEADLINE and turn.fact_index is not None:
            recall.thirds[planted.third(turn.fact_index)].add(correct)
            place = planted.places[turn.fact_index]
        if not correct:
            recall.mistakes.append(Mistake(turn.user, turn.assistant, got, turn.kind, place))


def measure_recall(
    model: Answerer, length: int, dialogues: int, questions: int, seed: int, progress: Callable[[Recall], None]
) -> Recall:
    """At least `dialogues` dialogues, and more until `dialogues` x `questions` facts were asked for.

    `progress` hears after every dialogue. A dialogue holds a few facts per thousand tokens, so short ones are many.
    """
    recall = Recall(length)
    while len(recall.tokens) < dialogues or recall.headline.asked < dialogues * questions:
        planted = planted_dialogue(seed, length, len(recall.tokens), model)
        model.read(dialogue_ids(planted, model))
        each = max(1, questions // 10)
        score(planted, [*planted.fact_questions(questions), *planted.other_questions(each)], model, recall)
        recall.tokens.append(planted.tokens)
        progress(recall)
    return recall
