"""Scoring on hand-written readers whose right and wrong answers are known."""

from __future__ import annotations

import json
import re

import demo_oracle
import pytest

from loopserve_cli.bench.quality.__main__ import main
from loopserve_cli.bench.quality.accuracy import Tally, wilson
from loopserve_cli.bench.quality.options import parse
from loopserve_cli.bench.quality.questions import HEADLINE, OTHERS, planted_dialogue
from loopserve_cli.bench.quality.recall import Recall, RecallRun, measure_recall
from loopserve_cli.errors import UsageError

LENGTH = 3000


class Oracle:
    """Reads characters for tokens and answers what the user's messages say."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.asked: list[str] = []

    def count(self, text: str) -> int:
        return max(1, len(text) // 4)

    def encode(self, text: str) -> list[int]:
        return [ord(c) for c in text]

    def read(self, ids: list[int]) -> None:
        text = "".join(map(chr, ids))
        assert text.startswith("<|bos|><|user|>")
        self.said = re.findall(r"<\|user\|>(.*?)<\|end\|>", text)

    def answer(self, question: str, most: int) -> str | None:
        self.asked.append(question)
        return demo_oracle.answer(self.said, question)


class Careless(Oracle):
    """Drops the full stop, which is no exact answer."""

    def answer(self, question: str, most: int) -> str | None:
        return (super().answer(question, most) or "")[:-1]


class Endless(Oracle):
    """Never comes to the end token."""

    def answer(self, question: str, most: int) -> str | None:
        return None


class FirstValue(Oracle):
    """Misses every change of a value."""

    def read(self, ids: list[int]) -> None:
        super().read(ids)
        self.said = [re.sub(r"[^.]* is now [^.]*\.", "", text) for text in self.said]

    def answer(self, question: str, most: int) -> str | None:
        try:
            return super().answer(question, most)
        except KeyError:
            return None


class ShortSighted(Oracle):
    """Sees only the last third of the dialogue's characters."""

    def read(self, ids: list[int]) -> None:
        super().read(ids)
        total, kept, room = sum(map(len, self.said)), [], 0
        for text in reversed(self.said):
            room += len(text)
            if room > total / 3:
                break
            kept.insert(0, text)
        self.said = kept

    def answer(self, question: str, most: int) -> str | None:
        try:
            return super().answer(question, most)
        except KeyError:
            return None


def recall_of(model: Oracle, dialogues: int = 3) -> Recall:
    return measure_recall(model, LENGTH, dialogues, questions=8, seed=1, progress=lambda recall: None)


def test_a_perfect_reader_scores_everything() -> None:
    recall = recall_of(Oracle())
    assert recall.headline.asked >= 24
    assert recall.headline.right == recall.headline.asked
    assert recall.mistakes == []
    assert all(tally.asked and tally.right == tally.asked for tally in recall.kinds.values())
    assert sum(tally.asked for tally in recall.thirds.values()) == recall.headline.asked


@pytest.mark.parametrize("model", [Careless(), Endless()])
def test_nothing_less_than_the_exact_ended_answer_counts(model: Oracle) -> None:
    recall = recall_of(model)
    assert recall.headline.right == 0
    assert len(recall.mistakes) == sum(tally.asked for tally in recall.kinds.values())
    assert (recall.mistakes[0].got is None) == isinstance(model, Endless)


def test_updated_facts_need_their_latest_value() -> None:
    recall = recall_of(FirstValue(), dialogues=6)
    assert recall.kinds["single"].right == recall.kinds["single"].asked > 0
    assert recall.kinds["updated"].right == 0 < recall.kinds["updated"].asked


def test_thirds_tell_where_a_reader_is_blind() -> None:
    recall = recall_of(ShortSighted(), dialogues=6)
    assert recall.thirds["front"].right == recall.thirds["middle"].right == 0
    assert recall.thirds["front"].asked > 5
    assert recall.thirds["back"].right / recall.thirds["back"].asked > 0.7


def test_the_same_seed_asks_the_same() -> None:
    first, again = Oracle(), Oracle()
    recall_of(first)
    recall_of(again)
    assert first.asked == again.asked
    other = planted_dialogue(2, LENGTH, 0, first)
    assert other.turns != planted_dialogue(1, LENGTH, 0, first).turns


def test_wilson_interval() -> None:
    assert wilson(0, 0) is None
    assert wilson(19, 20) == pytest.approx((0.7639, 0.9911), abs=1e-4)
    assert wilson(20, 20) == pytest.approx((0.8389, 1.0), abs=1e-4)
    assert wilson(0, 10) == pytest.approx((0.0, 0.2775), abs=1e-4)
    assert str(Tally(19, 20)) == "95% (76-99)"
    assert str(Tally()) == "n/a"


def test_json_holds_every_count() -> None:
    recall = recall_of(Careless())
    data = json.loads(json.dumps(recall.to_json()))
    assert data["length"] == LENGTH
    assert data["dialogues"] == len(recall.tokens)
    assert set(data["kinds"]) == {*HEADLINE, *OTHERS}
    assert data["headline"]["share"] == 0
    assert data["mistakes"][0]["wanted"] == data["mistakes"][0]["got"] + "."


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["recall", "--lengths", "1k"], "not a list of numbers"),
        (["recall", "--lengths", "100"], "at least 256"),
        (["density", "--lengths", "300"], "at least 512"),
        (["recall", "--questions", "0"], "--questions at least 1"),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(arguments)


def test_a_missing_model_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["recall", "--model", "no-such-folder", "--lengths", "512"]) == 1
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "no-such-folder holds no config.json" in error


def test_every_dialogue_is_kept_as_soon_as_it_is_asked() -> None:
    kept: list[int] = []
    options = parse(["recall", "--lengths", str(LENGTH), "--dialogues", "3", "--questions", "2"])
    run = RecallRun(options, {"first": Oracle(), "careless": Careless()}, lambda text: kept.append(asked(run)))
    run.measure(LENGTH)
    assert kept == sorted(set(kept)) and len(kept) >= 6
    found = run.to_json()["recall"]
    assert [(row["profile"], row["headline"]["share"]) for row in found] == [("first", 1), ("careless", 0)]
    assert [mistake["question"] for mistake in found[1]["mistakes"]] == run.readers["careless"].asked


def asked(run: RecallRun) -> int:
    return sum(tally["asked"] for row in run.to_json()["recall"] for tally in row["kinds"].values())
