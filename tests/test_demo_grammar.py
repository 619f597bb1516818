"""What the demo model was taught to read, told from its language: no false alarm, nothing foreign let through."""

from __future__ import annotations

from random import Random

import pytest

from loopserve_cli.bundled_files import TRANSCRIPTS, bundled_path
from loopserve_cli.demo import language as lang
from loopserve_cli.demo.dialogues import MIXES, Talk
from loopserve_cli.demo.grammar import capitalised, outside
from loopserve_cli.transcript import read_dialogues


@pytest.mark.parametrize("name", TRANSCRIPTS)
def test_every_user_of_the_bundled_dialogues_is_understood(name: str) -> None:
    asked = [m.content for m in read_dialogues(bundled_path(name))[0].messages if m.role == "user"]
    assert asked and [text for text in asked if outside(text) is not None] == []


@pytest.mark.parametrize("mix", MIXES)
@pytest.mark.parametrize("split", ["train", "held_out"])
def test_all_that_training_says_is_understood(mix: object, split: lang.Split) -> None:
    turns = Talk(Random(3), split, mix, rarer=(0.1, 0.2, 0.2)).turns()  # type: ignore[arg-type]
    asked = [next(turns).user for _ in range(300)]
    assert [text for text in asked if outside(text) is not None] == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The room of Miro is 417", None),
        ("  What is the pet of Miro\n", None),
        ("The label of the candle is B7. List all that you know of the candle.", None),
        ("", None),
        ("The room of Miro is 41.", "The room of Miro is 41."),
        ("The room of Anna is 417.", "Anna"),
        ("The room of miro is 417.", "miro"),
        ("The pet of Miro is a cat.", "The pet of Miro is a cat."),
        ("The pet of Miro Tesa is cat.", "The pet of Miro Tesa is cat."),
        ("Miro's room is 417.", "Miro's"),
        ("How are you today?Thanks", "Thanks"),
        ("...", "..."),
        ("Bonjour à tous", "Bonjour"),
        ("The room of Miro is 417. Where?", "Where"),
        ("12345", "12345"),
    ],
)
def test_the_first_strange_part_is_named(text: str, expected: str | None) -> None:
    assert outside(text) == expected


def test_sentences_get_their_capitals() -> None:
    assert capitalised(" the room. what is it? so. ") == "The room. What is it? So."
