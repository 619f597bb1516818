"""A dialogue read in turns, with questions after every one: what is fed, and what may then be asked.

After each turn the questions are about what was said until then, and their answers are what was true then.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from random import Random

from loopserve_cli.demo.dialogues import Kind
from loopserve_cli.demo.planted import Planted, render, report_sentences
from loopserve_cli.demo.recall import HEADLINE, Answerer


@dataclass(frozen=True, slots=True)
class Question:
    """One question, its right answer, and where what it asks for stands.

    `turn` counts from 1; `third` and `place` (in tokens) are those of the fact, None for the kinds without one fact;
    `answer_tokens` counts the right answer with the token that ends it.
    """

    length: int
    dialogue: int
    turn: int
    kind: Kind
    third: str | None
    place: int | None
    said: str
    answer: str
    answer_tokens: int


@dataclass(frozen=True, slots=True)
class Round:
    """The new tokens of one turn, and the questions after it."""

    ids: list[int]
    questions: list[Question]


def rounds(seed: int, length: int, dialogue: int, turns: int, facts: int, others: int, model: Answerer) -> list[Round]:
    """A dialogue of about `length` tokens in `turns` turns, the same for the same arguments.

    After every turn at most `facts` questions about single facts, spread over front, middle and back of what was read
    so far, and at most `others` of each other kind. Drawing questions moves the dialogue's random numbers on.
    """
    planted = Planted(Random(f"{seed}:{length}:{dialogue}"), model.count, report_sentences(length))
    found, read = [], 0
    for turn in range(1, turns + 1):
        planted.grow(length * turn // turns)
        text = "".join(render(exchange) for exchange in planted.turns[read:])
        read = len(planted.turns)
        asked = list(_questions(planted, length, dialogue, turn, facts, others))
        found.append(Round(model.encode(text if turn > 1 else "<|bos|>" + text), asked))
    return found


def _questions(planted: Planted, length: int, dialogue: int, turn: int, facts: int, others: int) -> Iterator[Question]:
    for exchange in [*planted.fact_questions(facts), *planted.other_questions(others)]:
        index = exchange.fact_index if exchange.kind in HEADLINE else None
        yield Question(
            length=length,
            dialogue=dialogue,
            turn=turn,
            kind=exchange.kind,
            third=None if index is None else planted.third(index),
            place=None if index is None else planted.places[index],
            said=exchange.user,
            answer=exchange.assistant,
            answer_tokens=planted.count(exchange.assistant + "<|end|>"),
        )
