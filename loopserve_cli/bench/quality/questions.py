"""A dialogue read in turns, with questions after every one: what is fed, and what may then be asked.

After each turn the questions are about what was said until then, and their answers are what was true then. The same
arguments give the same dialogue and questions.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Protocol

from loopserve_cli.demo.dialogues import Kind, Turn
from loopserve_cli.demo.planted import Planted, render, report_sentences

# Questions about one fact are the headline; the other kinds are counted apart.
HEADLINE = ("single", "updated")
OTHERS = ("absent", "two_hop", "listing")
MOST_ANSWER_TOKENS = 128


class Answerer(Protocol):
    """Who is asked: reads a dialogue, and answers every question from the state that it is then in."""

    def count(self, text: str) -> int:
        """How many tokens the text has."""

    def encode(self, text: str) -> list[int]:
        """The text's ids; special tokens may be written out."""

    def read(self, ids: list[int]) -> None:
        """Forget the last dialogue and take in this one."""

    def answer(self, question: str, most: int) -> str | None:
        """The greedy answer, or None when it does not end within `most` tokens; the question is then forgotten."""


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


def begun_dialogue(seed: int, length: int, index: int, count: Callable[[str], int]) -> Planted:
    """Dialogue number `index` of about `length` tokens, nothing said yet. `count` is how many tokens a text has."""
    return Planted(Random(f"{seed}:{length}:{index}"), count, report_sentences(length))


def planted_dialogue(seed: int, length: int, index: int, model: Answerer) -> Planted:
    """The whole of dialogue number `index`."""
    planted = begun_dialogue(seed, length, index, model.count)
    planted.grow(length)
    return planted


def dialogue_ids(turns: Iterable[Turn], model: Answerer, start: str = "<|bos|>") -> list[int]:
    """These turns as the model reads them; the first ones of a dialogue begin with its `start`."""
    return model.encode(start + "".join(render(turn) for turn in turns))


def rounds(seed: int, length: int, dialogue: int, turns: int, facts: int, others: int, model: Answerer) -> list[Round]:
    """A dialogue of about `length` tokens in `turns` turns.

    After every turn at most `facts` questions about single facts, spread over front, middle and back of what was read
    so far, and at most `others` of each other kind. Drawing questions moves the dialogue's random numbers on.
    """
    planted = begun_dialogue(seed, length, dialogue, model.count)
    found, read = [], 0
    for turn in range(1, turns + 1):
        planted.grow(length * turn // turns)
        new, read = planted.turns[read:], len(planted.turns)
        asked = list(questions_about(planted, length, dialogue, turn, facts, others))
        found.append(Round(dialogue_ids(new, model, "" if turn > 1 else "<|bos|>"), asked))
    return found


def questions_about(
    planted: Planted, length: int, dialogue: int, turn: int, facts: int, others: int
) -> Iterator[Question]:
    """At most `facts` questions about what was said so far, and at most `others` of each other kind."""
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
