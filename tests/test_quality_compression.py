"""Recall under compression: what is asked when, what is counted, and that sharing a store changes no answer."""

from __future__ import annotations

import json
import re
from pathlib import Path

import demo_oracle
import pytest
from rich.console import Console

from loopserve_cli.bench.quality.__main__ import main
from loopserve_cli.bench.quality.combination import Combination, combinations, compressed_tokens
from loopserve_cli.bench.quality.compression import CompressionRun
from loopserve_cli.bench.quality.engine_reader import EngineReader
from loopserve_cli.bench.quality.options import parse, with_a_budget
from loopserve_cli.bench.quality.questions import HEADLINE, MOST_ANSWER_TOKENS, OTHERS, Question, Round, rounds
from loopserve_cli.bench.quality.tables import compression_tables
from loopserve_cli.config import ModelOptions
from loopserve_cli.engine.engine import Engine
from loopserve_cli.engine.loader import LoadedModel, load
from loopserve_cli.errors import UsageError
from loopserve_cli.profile import load_profile
from loopserve_cli.stats import TurnRecord

SEED, LENGTH, TURNS = 2, 1600, 3
NAMES = ["full", "loopserve", "loopserve+keep.interval=4", "snapkv", "adakv", "h2o", "streaming-llm"]


@pytest.fixture(scope="module")
def loaded() -> LoadedModel:
    return load(ModelOptions("demo", device="cpu", dtype="float32"))


@pytest.fixture(scope="module")
def dialogue(loaded: LoadedModel) -> list[Round]:
    return rounds(SEED, LENGTH, 0, TURNS, 4, 1, EngineReader(Engine(loaded, load_profile("full")), 1))


def test_questions_are_about_what_was_said_until_then(loaded: LoadedModel, dialogue: list[Round]) -> None:
    said: list[str] = []
    for turn, one in enumerate(dialogue, 1):
        said += re.findall(r"<\|user\|>(.*?)<\|end\|>", loaded.tokenizer.decode(one.ids))
        assert one.questions
        for question in one.questions:
            assert (question.length, question.dialogue, question.turn) == (LENGTH, 0, turn)
            assert question.answer == demo_oracle.answer(said, question.said)
            assert question.answer_tokens == len(loaded.tokenizer(question.answer).input_ids) + 1
    kinds = {question.kind for one in dialogue for question in one.questions}
    assert kinds == {*HEADLINE, *OTHERS}


def test_a_dialogue_is_fed_once_and_whole(loaded: LoadedModel, dialogue: list[Round]) -> None:
    text = loaded.tokenizer.decode([i for one in dialogue for i in one.ids])
    assert text.count("<|bos|>") == 1 and text.startswith("<|bos|><|user|>") and text.endswith("<|end|>")
    lengths = [len(one.ids) for one in dialogue]
    assert 0.9 * LENGTH < sum(lengths) <= LENGTH and min(lengths) > LENGTH / TURNS / 2
    again = rounds(SEED, LENGTH, 0, TURNS, 4, 1, EngineReader(Engine(loaded, load_profile("full")), 1))
    assert again == dialogue
    places = [q.place for one in dialogue for q in one.questions if q.kind in HEADLINE]
    assert all(place is not None and 0 < place < LENGTH for place in places)


def test_a_shared_store_answers_as_engines_of_their_own(loaded: LoadedModel, dialogue: list[Round]) -> None:
    """The profiles take turns on one store, asking and rewinding; every other engine reads the dialogue itself."""
    profiles = [c.profile for c in combinations(NAMES, [48], LENGTH)]
    # The gate is opened, so that loopserve's prefill leaves something out.
    profiles = [p.with_overrides(["prefill.min_new=200", "prefill.min_keys=200"]) if "online" in p.prefill.policy else p
                for p in profiles]  # fmt: skip
    shared: dict[str, EngineReader] = {}
    for profile in profiles:
        shared.setdefault(profile.prefill.policy, EngineReader(Engine(loaded, profile), 1))
    own = [EngineReader(Engine(loaded, profile), 1) for profile in profiles]
    assert len(shared) == 2
    left_out = set()
    for one in dialogue:
        for reader in (*shared.values(), *own):
            reader.engine.feed(one.ids)
        for profile, alone in zip(profiles, own, strict=True):
            reader = shared[profile.prefill.policy]
            reader.engine.set_profile(profile)
            for question in one.questions:
                ours, theirs = (r.ask(question.said, MOST_ANSWER_TOKENS) for r in (reader, alone))
                same = ("output_text", "finish_reason", "tokens_output", "keys_read", "keys_stored", "reselections")
                assert [getattr(ours, name) for name in same] == [getattr(theirs, name) for name in same]
                left_out |= {profile.name} if ours.left_keys_out else set()
    assert len(left_out) == len(NAMES) - 1


def record(tokens: int, read: int, text: str = "", finish: str = "stop") -> TurnRecord:
    return TurnRecord(
        tokens_output=tokens, keys_read=read, keys_stored=1000, reselections=2, output_text=text, finish_reason=finish
    )


@pytest.mark.parametrize(
    ("name", "tokens", "read", "compressed"),
    [
        ("loopserve", 17, 1000, 0),  # one from the prefill, sixteen from the first interval
        ("loopserve", 20, 130, 3),
        ("loopserve+keep.interval=4", 12, 130, 7),
        ("loopserve+keep.first=prompt", 12, 130, 11),
        ("loopserve+keep.first=prompt", 12, 1000, 0),
        ("snapkv", 12, 130, 11),
        ("full", 12, 1000, 0),
    ],
)
def test_tokens_that_came_from_chosen_keys(name: str, tokens: int, read: int, compressed: int) -> None:
    assert compressed_tokens(load_profile(name), record(tokens, read)) == compressed


def asked(kind: str, turn: int, third: str | None, tokens: int = 12) -> Question:
    place = None if third is None else 7
    return Question(LENGTH, 0, turn, kind, third, place, "What?", "That.", tokens)  # type: ignore[arg-type]


def test_counts_by_kind_position_and_turn() -> None:
    [ours] = combinations(["snapkv"], [100], LENGTH)
    [full] = combinations(["full"], [100], LENGTH)
    questions = [
        asked("single", 1, "front"),
        asked("updated", 2, "back"),
        asked("single", 2, "back"),
        asked("two_hop", 2, None, tokens=20),
        asked("absent", 1, None),
    ]
    answers = ["That.", "That.", "This.", "That.", "Endless"]
    for number, (question, answer) in enumerate(zip(questions, answers, strict=True)):
        ours.add(number, question, record(11, 100, answer, "length" if answer == "Endless" else "stop"))
        full.add(number, question, record(11, 1000, "That."))
    data = json.loads(json.dumps(ours.to_json(full)))

    def counts(name: str) -> dict[str, tuple[int, int]]:
        return {key: (tally["right"], tally["asked"]) for key, tally in data[name].items()}

    assert (data["profile"], data["budget"], data["length"]) == ("snapkv", 100, LENGTH)
    assert (data["headline"]["right"], data["headline"]["asked"]) == (2, 3)
    assert counts("thirds") == {"front": (1, 1), "middle": (0, 0), "back": (1, 2)}
    assert counts("turns") == {"1": (1, 1), "2": (1, 2)}
    assert counts("kinds") == {
        "single": (1, 2),
        "updated": (1, 1),
        "absent": (0, 1),
        "two_hop": (1, 1),
        "listing": (0, 0),
    }
    assert (data["long"]["right"], data["long"]["asked"]) == (1, 1)
    assert (data["same_as_full"]["right"], data["same_as_full"]["asked"]) == (3, 5)
    assert (data["tokens"], data["tokens_compressed"], data["answers_compressed"]) == (55, 50, 5)
    assert data["reselections"] == 10
    assert data["mistakes"] == {"2": "This.", "4": None}
    assert ours.compressed_share == pytest.approx(50 / 55) and ours.read_share == pytest.approx(0.1)
    assert full.compressed_share == 0


def test_what_has_a_budget_is_measured_at_each() -> None:
    found = combinations(["full", "snapkv", "loopserve+keep.interval=4"], [128, 256], LENGTH)
    assert [(c.name, c.budget) for c in found] == [
        ("full", None),
        ("snapkv", 128),
        ("snapkv", 256),
        ("loopserve+keep.interval=4", 128),
        ("loopserve+keep.interval=4", 256),
    ]
    assert [c.profile.keep.settings.get("budget") for c in found] == [None, 128, 256, 128, 256]
    assert found[-1].profile.keep.settings["interval"] == 4
    assert set(with_a_budget()) == {
        *("full", "adakv", "expected-attention", "h2o", "loopserve", "quest", "snapkv", "streaming-llm")
    }


def test_nothing_asked_is_nothing_known() -> None:
    [combination] = combinations(["full"], [128], LENGTH)
    assert isinstance(combination, Combination)
    assert combination.compressed_share is None and combination.read_share is None
    assert combination.to_json(None)["same_as_full"] is None


def test_a_run_is_kept_after_every_turn(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = tmp_path / "recall.json"
    given = [
        "compression",
        "--lengths",
        "1000",
        "--dialogues",
        "1",
        "--turns",
        "2",
        "--questions",
        "3",
        "--others",
        "1",
    ]
    given += ["--budgets", "100", "--profile", "full", "--profile", "streaming-llm", "--json", str(file)]
    kept, places = [], []

    def keep(text: str) -> None:
        places.append(text.partition(":")[0])
        kept.append(run.to_json())

    run = CompressionRun(parse(given), load(ModelOptions("demo", device="cpu", dtype="float32")), keep)
    run.measure(1000)
    assert places == ["1000 tokens, dialogue 1, turn 1", "1000 tokens, dialogue 1, turn 2"]
    assert 0 < len(kept[0]["questions"]) < len(kept[1]["questions"])
    for data in kept:
        for combination in data["combinations"]:
            assert sum(tally["asked"] for tally in combination["kinds"].values()) == len(data["questions"])

    assert main(given) == 0
    out, err = capsys.readouterr()
    written = json.loads(file.read_text())
    assert written["combinations"] == json.loads(json.dumps(run.to_json()))["combinations"]
    assert written["command"].startswith("python -m loopserve_cli.bench.quality compression --lengths 1000")
    assert written["dialogues"] == {"1000": 1} and written["seed"] == 7001 and written["versions"]["torch"]
    full, streaming = written["combinations"]
    assert full["headline"]["share"] == 1 and full["tokens_compressed"] == 0
    assert streaming["headline"]["right"] < streaming["headline"]["asked"]
    assert streaming["tokens_compressed"] > 0 and streaming["mistakes"]
    assert "streaming-llm" in out and "turn 2" in out and "1000 tokens, dialogue 1, turn 2" in err
    assert [path.name for path in tmp_path.iterdir()] == ["recall.json"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--lengths", "8k"], "not a list of numbers"),
        (["--budgets", "many"], "not a list of numbers"),
        (["--lengths", "1000"], "at least 256 a turn"),
        (["--questions", "0"], "--questions at least 1"),
        (["--others", "-1"], "--others must be at least 0"),
    ],
)
def test_wrong_options(arguments: list[str], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        parse(["compression", *arguments])


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--profile", "nosuch"], "no profile 'nosuch'"),
        (["--budgets", "0"], "keep.budget is 0"),
        (["--profile", "snapkv+retain.tier=evict"], "snapkv+retain.tier=evict evicts"),
    ],
)
def test_a_wrong_profile_is_one_line(arguments: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["compression", *arguments]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_the_tables_count_apart_what_each_length_was_asked() -> None:
    [short] = combinations(["full"], [100], 500)
    [long] = combinations(["snapkv"], [100], 900)
    short.add(0, asked("single", 1, "front"), record(11, 1000, "That."))
    for number, kind in enumerate(("single", "absent", "absent"), 1):
        long.add(number, asked(kind, 2, "back" if kind == "single" else None), record(11, 100, "That."))
    console = Console(width=80)
    with console.capture() as captured:
        console.print(*compression_tables([short, long], lambda length: short if length == 500 else None))
    lines = [line.split() for line in captured.get().splitlines() if line.startswith((" full", " snapkv"))]
    full, snapkv = lines[::2], lines[1::2]
    assert full[0][2:] == ["1", "100%", "(21-100)", "100%", "n/a", "n/a"]
    assert full[1][2:] == ["100%"] and snapkv[1][3:] == ["100%"]  # each asked after one turn, of two
    assert " ".join(full[2][2:]) == "n/a of 0 n/a of 0 n/a of 0 n/a of 0"
    assert " ".join(snapkv[2][3:]) == "100% of 2 n/a of 0 n/a of 0 n/a of 0"
    assert full[3][2:] == ["100%", "0%", "2", "100%"] and snapkv[3][3:] == ["n/a", "91%", "6", "10%"]
