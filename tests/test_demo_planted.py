"""The generator: fixed by its seed, held-out names only, facts where it says, and answers that can be derived."""

from __future__ import annotations

import itertools
import re
from random import Random

import demo_oracle
import pytest

from loopserve_cli.demo import language as lang
from loopserve_cli.demo.dialogues import MIXES, Talk
from loopserve_cli.demo.planted import THIRDS, Planted, render

NAME = re.compile(r"\b[A-Z][a-z]{3}\b")
SYLLABLES = {c + v for c in lang.CONSONANTS for v in lang.VOWELS}


def characters(text: str) -> int:
    """A stand-in for a tokenizer: four characters to a token, never none."""
    return max(1, len(text) // 4)


def names_in(text: str) -> set[str]:
    """The people's names of a text: words of two syllables."""
    words = NAME.findall(text)
    return {w for w in words if w[:2].lower() in SYLLABLES and w[2:] in SYLLABLES} - {"Here", "June"}


def grown(seed: int, tokens: int) -> Planted:
    planted = Planted(Random(seed), characters)
    planted.grow(tokens)
    return planted


def test_same_seed_same_dialogue_and_questions() -> None:
    first, again, other = grown(1, 3000), grown(1, 3000), grown(2, 3000)
    assert first.turns == again.turns
    assert first.fact_questions(9) == again.fact_questions(9)
    assert first.other_questions(2) == again.other_questions(2)
    assert first.turns != other.turns


def test_held_out_names_are_a_tenth_and_never_meet_training_names() -> None:
    rng = Random(0)
    everybody = ["".join(pair).capitalize() for pair in itertools.product(sorted(SYLLABLES), repeat=2)]
    assert 0.07 < sum(map(lang.is_held_out, everybody)) / len(everybody) < 0.13
    for mix in MIXES:
        trained = itertools.islice(Talk(rng, "train", mix).turns(), 150)
        seen = names_in(" ".join(turn.user + " " + turn.assistant for turn in trained))
        assert len(seen) > 1
        assert not any(map(lang.is_held_out, seen))
    planted = grown(3, 8000)
    measured = names_in(" ".join(render(turn) for turn in planted.turns))
    assert len(measured) > 10
    assert all(map(lang.is_held_out, measured))


@pytest.mark.parametrize("seed", range(8))
def test_every_answer_can_be_read_off_the_dialogue(seed: int) -> None:
    planted = grown(seed, 6000)
    said: list[str] = []
    for turn in planted.turns:
        if turn.kind != "talk":
            assert demo_oracle.answer(said, turn.user) == turn.assistant
        said.append(turn.user)
    questions = [*planted.fact_questions(30), *planted.other_questions(3)]
    for turn in questions:
        assert demo_oracle.answer(said, turn.user) == turn.assistant
    kinds = {turn.kind for turn in questions}
    assert {"single", "absent"} <= kinds


def test_questions_are_about_facts_that_no_answer_repeated() -> None:
    planted = grown(5, 8000)
    answered = " ".join(turn.assistant for turn in planted.turns)
    questions = planted.fact_questions(100)
    assert len({turn.fact_index for turn in questions}) == len(questions) > 10
    for turn in questions:
        assert turn.assistant[:-1] not in answered


def test_places_are_where_the_statement_stands() -> None:
    planted = grown(6, 5000)
    text = "".join(render(turn) for turn in planted.turns)
    for index, place in planted.places.items():
        at = text.lower().rfind(planted.talk.facts[index].statement().lower(), 0, None)
        assert at >= 0
        if index not in planted.repeated:
            # Every turn is rounded down to whole tokens, so the count may lag the text by one a turn.
            assert -2 <= at / 4 - place <= 2 * len(planted.turns)


def test_questions_are_spread_over_the_thirds() -> None:
    planted = grown(6, 20000)
    questions = planted.fact_questions(9)
    places = [planted.places[turn.fact_index or 0] / planted.tokens for turn in questions]
    assert [sum(low <= 3 * p < low + 1 for p in places) for low in range(3)] == [3, 3, 3]
    assert [planted.third(turn.fact_index or 0) for turn in questions] == 3 * list(THIRDS)
    assert {turn.kind for turn in planted.fact_questions(100)} == {"single", "updated"}
    assert [turn.kind for turn in planted.other_questions(2)] == ["absent"] * 2 + ["two_hop"] * 2 + ["listing"] * 2


@pytest.mark.parametrize("tokens", [256, 1024, 4096, 16384])
def test_length_and_density_of_facts(tokens: int) -> None:
    planted = grown(7, tokens)
    assert tokens - 40 <= planted.tokens <= tokens
    assert planted.tokens == 1 + sum(characters(render(turn)) for turn in planted.turns)
    if tokens >= 4096:
        assert 2 < 1000 * len(planted.talk.facts) / tokens < 5
